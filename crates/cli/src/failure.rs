//! Why the program ends, and with which exit code. Owns the mapping from errors to codes and to one line on standard
//! error; does not own any other message.

use std::io;

/// The command line asks for something that cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Usage {
    message: String,
    /// Shown on a second line after an unknown option or command.
    hint: Option<&'static str>,
}

/// Ended by a signal, nothing to say.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted {
    /// Exit code.
    pub(crate) code: u8,
}

/// Checks ran and some failed, which their own report already says: exit code 1, nothing to add.
#[derive(Debug, thiserror::Error)]
#[error("checks failed")]
pub(crate) struct ChecksFailed;

/// An evaluation ran and its result is not what it should be, which its own report already says: exit code 4.
#[derive(Debug, thiserror::Error)]
#[error("cases failed")]
pub(crate) struct CasesFailed;

/// A usage error without a hint.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage { message: message.into(), hint: None }.into()
}

/// A usage error followed by where to read what is known.
pub(crate) fn usage_hint(message: impl Into<String>, hint: &'static str) -> anyhow::Error {
    Usage { message: message.into(), hint: Some(hint) }.into()
}

/// The system's reason without the number the standard library adds to it.
pub(crate) fn reason(error: &io::Error) -> String {
    without_numbers(&error.to_string())
}

fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    out
}

/// Ends the process, without the exit handlers of libraries: a GPU's driver would take away in them what the engine's thread may
/// still be at work with. Standard output has to be flushed.
pub(crate) fn leave(code: u8) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(code.into());
    #[cfg(not(unix))]
    std::process::exit(code.into());
}

/// Exit code of an error, and the lines it leaves on standard error in the name of `program`.
pub(crate) fn verdict(error: &anyhow::Error, program: &str) -> (u8, Vec<String>) {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return (interrupted.code, Vec::new());
    }
    if error.is::<ChecksFailed>() {
        return (1, Vec::new());
    }
    if error.is::<CasesFailed>() {
        return (4, Vec::new());
    }
    if is_closed_pipe(error) {
        return (0, Vec::new());
    }
    if let Some(usage) = error.downcast_ref::<Usage>() {
        let mut lines = vec![format!("{program}: {}", usage.message)];
        lines.extend(usage.hint.map(str::to_owned));
        return (2, lines);
    }
    (if error.chain().any(is_device) { 3 } else { 1 }, vec![format!("{program}: {}", one_line(error))])
}

fn is_device(cause: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause.downcast_ref(), Some(ds4_model::Error::Device { .. }))
        || matches!(cause.downcast_ref(), Some(ds4_engine::Error::Device(_)))
}

/// The reader of our output went away: nothing is wrong with us.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}

/// The chain of causes, each once: a library that prints its cause itself is not repeated.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = without_numbers(&cause.to_string());
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_exits_with_two_and_shows_its_hint() {
        let (code, lines) = verdict(&usage_hint("unknown option: --x", "try 'ds4 --help'"), "ds4");
        assert_eq!(code, 2);
        assert_eq!(lines, ["ds4: unknown option: --x", "try 'ds4 --help'"]);
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_success() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert_eq!(verdict(&error, "ds4"), (0, Vec::new()));
    }

    /// As the system says it: 2 is a missing file on every one.
    fn missing() -> String {
        reason(&io::Error::from_raw_os_error(2))
    }

    #[test]
    fn a_cause_that_was_already_told_is_not_repeated() {
        let cause = ds4_gguf::Error::Io { file: "m".to_owned(), source: io::Error::from_raw_os_error(2) };
        let error = anyhow::Error::new(cause).context("cannot open model");
        assert_eq!(verdict(&error, "ds4").1, [format!("ds4: cannot open model: m: {}", missing())]);
    }

    #[test]
    fn causes_are_joined_without_errno_numbers() {
        let error = anyhow::Error::new(io::Error::from_raw_os_error(2)).context("cannot open file: a");
        assert_eq!(verdict(&error, "ds4"), (1, vec![format!("ds4: cannot open file: a: {}", missing())]));
        assert!(!missing().contains("(os error"));
    }
}
