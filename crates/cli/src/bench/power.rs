//! Power that a card takes, as its tool tells it.

use std::process::{Command, Stdio};

/// Watts of the card with this identity, a mean over about the last second; `None` where nobody knows.
pub(super) fn draw(uuid: &str) -> Option<f64> {
    let mut tool = Command::new("nvidia-smi");
    tool.args(["--query-gpu=power.draw", "--format=csv,noheader,nounits", "-i", uuid]);
    let output = tool.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| watts(&output.stdout)).flatten()
}

/// The number in what the tool wrote; other words mean that it does not know.
fn watts(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().filter(|watts: &f64| watts.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_power_and_everything_else_is_not() {
        assert_eq!(watts(b"312.45\n"), Some(312.45));
        assert_eq!([&b"[N/A]\n"[..], b"", b"nan", b"1\n2\n", b"\xff"].map(watts), [None; 5]);
    }
}
