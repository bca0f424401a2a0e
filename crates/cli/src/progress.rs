//! Progress on standard error. Prefill: rewritten in place on a terminal, at most two lines a second elsewhere. Loading:
//! rewritten in place on a terminal, one line at the end.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::terminal;

const LINE_EVERY: Duration = Duration::from_millis(500);
/// Loading reports more often than anybody can read.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

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
            Style::InPlace => self.redraw(&line),
            Style::Lines => {
                if self.shown.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
                    terminal::note(line);
                    self.shown = Some(Instant::now());
                }
            }
        }
    }

    fn redraw(&mut self, line: &str) {
        let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
        self.shown = Some(Instant::now());
    }

    /// Leaves the terminal line empty for what follows.
    pub(crate) fn clear(&mut self) {
        if self.style == Style::InPlace && self.shown.take().is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// Weights on their way to a device; told of bytes from any thread.
pub(crate) struct Loading {
    display: Mutex<(Progress, u64)>,
    total: u64,
    started: Instant,
}

impl Loading {
    pub(crate) fn new(total: u64, quiet: bool) -> Self {
        Self { display: Mutex::new((Progress::new(quiet), 0)), total, started: Instant::now() }
    }

    /// So many more bytes are there; the part of all that is.
    pub(crate) fn add(&self, bytes: u64) -> f64 {
        let Ok(mut display) = self.display.lock() else { return 0.0 };
        let (progress, done) = &mut *display;
        *done += bytes;
        let idle = progress.shown.is_none_or(|at| at.elapsed() >= REDRAW_EVERY);
        if progress.style == Style::InPlace && idle {
            progress.redraw(&format!("loading {} of {:.1} GB", speed(*done, self.started.elapsed()), gb(self.total)));
        }
        *done as f64 / self.total.max(1) as f64
    }

    /// Says how it went: `name: loaded 86.7 GB in 9.8 s (8.8 GB/s)`.
    pub(crate) fn finish(&self, name: &str) {
        let Ok(mut display) = self.display.lock() else { return };
        let progress = &mut display.0;
        progress.clear();
        if progress.style != Style::Silent {
            terminal::note(format_args!("{name}: loaded {}", speed(self.total, self.started.elapsed())));
        }
    }
}

/// As in "86.7 GB in 9.8 s (8.8 GB/s)".
fn speed(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!("{:.1} GB in {seconds:.1} s ({:.1} GB/s)", gb(bytes), gb(bytes) / seconds.max(1e-9))
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn line(done: u32, total: u32) -> String {
    let percent = u64::from(done) * 100 / u64::from(total.max(1));
    format!("processing {total} input tokens: {done}/{total} ({percent}%)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_summed_up_in_bytes_seconds_and_speed() {
        assert_eq!(speed(86_700_000_000, Duration::from_millis(9800)), "86.7 GB in 9.8 s (8.8 GB/s)");
        let loading = Loading::new(200, true);
        assert!((loading.add(50) - 0.25).abs() < 1e-9 && (loading.add(150) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_line_counts_tokens_and_percent() {
        assert_eq!(line(128, 512), "processing 512 input tokens: 128/512 (25%)");
        assert_eq!(line(0, 0), "processing 0 input tokens: 0/0 (0%)");
    }
}
