//! The three standard streams as this program uses them: notes to standard error that never fail, colour decisions, and
//! what must be put back when the program ends early. Owns no text.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::style::ResetColor;
use ratatui::crossterm::terminal::LeaveAlternateScreen;

/// One line on standard error. A closed standard error is nobody's problem.
pub(crate) fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A warning in the program's style.
pub(crate) fn warn(line: impl fmt::Display) {
    note(format_args!("ds4: warning: {line}"));
}

/// Whether a stream may carry colours: a terminal, `NO_COLOR` unset and `TERM` not `dumb` (no-color.org).
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    let unset = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    stream.is_terminal() && unset && !dumb
}

/// Writes text the user asked for and makes it visible at once.
pub(crate) fn show(out: &mut dyn Write, text: &str) -> anyhow::Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Whether a program has the whole screen.
static SCREEN: AtomicBool = AtomicBool::new(false);

/// The whole screen is taken (or not any more), with raw input: what `leave_screen` has to undo.
pub(crate) fn screen_taken(taken: bool) {
    SCREEN.store(taken, Ordering::SeqCst);
}

/// Gives the screen back if it is taken: cursor, colours, what stood there before. Safe from any thread, any number of times.
pub(crate) fn leave_screen() {
    if SCREEN.swap(false, Ordering::SeqCst) {
        let _ = ratatui::crossterm::execute!(io::stdout(), ResetColor, LeaveAlternateScreen, Show);
        let _ = ratatui::crossterm::terminal::disable_raw_mode();
    }
}

/// Line settings of the terminal on standard input, to be put back by whoever ends the program while an editor holds it.
#[cfg(unix)]
#[derive(Clone)]
pub(crate) struct Settings(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl Settings {
    pub(crate) fn take() -> Self {
        Self(rustix::termios::tcgetattr(io::stdin()).ok())
    }

    pub(crate) fn restore(&self) {
        leave_screen();
        if let Some(saved) = &self.0 {
            let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, saved);
        }
    }
}

/// The same for a Windows console, which knows its usual settings: whether there is one.
#[cfg(windows)]
#[derive(Clone)]
pub(crate) struct Settings(bool);

#[cfg(windows)]
impl Settings {
    pub(crate) fn take() -> Self {
        Self(io::stdin().is_terminal())
    }

    pub(crate) fn restore(&self) {
        leave_screen();
        if self.0 {
            let _ = ratatui::crossterm::terminal::disable_raw_mode();
        }
    }
}
