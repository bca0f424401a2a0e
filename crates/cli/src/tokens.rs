//! `--dump-tokens`: the prompt's ids and their texts. Needs the metadata of a model only.

use std::fmt::Write as _;
use std::io::Write;

use ds4_text::Tokenizer;

use crate::config::Config;
use crate::device::open_gguf;
use crate::flags::PromptFlag;
use crate::run::read_prompt;
use crate::terminal;

pub(crate) fn dump(config: &Config, prompt: &PromptFlag, out: &mut dyn Write) -> anyhow::Result<()> {
    let text = read_prompt(prompt)?;
    let gguf = open_gguf(&config.model, config.quiet)?;
    let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
    let ids = tokenizer.encode(&text);
    let mut lines = String::new();
    for (index, &id) in ids.iter().enumerate() {
        let _ = writeln!(lines, "{index} {id} \"{}\"", escaped(tokenizer.token_bytes(id)));
    }
    let _ = writeln!(lines, "tokens={}", ids.len());
    terminal::show(out, &lines)
}

/// Text on one line: control characters, quotes and backslashes escaped, bytes that are no character as `\xNN`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => {
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn every_token_fits_on_one_line() {
        assert_eq!(escaped(b"a\"b\\\n\t"), "a\\\"b\\\\\\n\\t");
        assert_eq!(escaped(b"\x01\xe4\xb8"), "\\u{1}\\xe4\\xb8");
        assert_eq!(escaped("中".as_bytes()), "中");
    }
}
