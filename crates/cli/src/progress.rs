//! Prefill progress on standard error: rewritten in place on a terminal, at most two lines a second elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::terminal;

const LINE_EVERY: Duration = Duration::from_millis(500);

/// One prefill's progress display.
pub(crate) struct Progress {
    style: Style,
    shown: Option<Instant>,
}

#[derive(PartialEq, Eq)]
enum Style {
    Silent,
    InPlace,
    Lines,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        let style = match (quiet, io::stderr().is_terminal() && !dumb) {
            (true, _) => Style::Silent,
            (false, true) => Style::InPlace,
            (false, false) => Style::Lines,
        };
        Self { style, shown: None }
    }

    /// `done` of `total` prompt tokens are in the cache.
    pub(crate) fn update(&mut self, done: u32, total: u32) {
        let line = line(done, total);
        match self.style {
            Style::Silent => {}
            Style::InPlace => {
                let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
                self.shown = Some(Instant::now());
            }
            Style::Lines => {
                if self.shown.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    terminal::note(line);
                    self.shown = Some(Instant::now());
                }
            }
        }
    }

    /// Leaves the terminal line empty for what follows.
    pub(crate) fn clear(&mut self) {
        if self.style == Style::InPlace && self.shown.take().is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(done: u32, total: u32) -> String {
    let percent = u64::from(done) * 100 / u64::from(total.max(1));
    format!("processing {total} input tokens: {done}/{total} ({percent}%)")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_line_counts_tokens_and_percent() {
        assert_eq!(line(128, 512), "processing 512 input tokens: 128/512 (25%)");
        assert_eq!(line(0, 0), "processing 0 input tokens: 0/0 (0%)");
    }
}
