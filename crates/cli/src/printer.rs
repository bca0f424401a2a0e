//! An answer as it is shown: reasoning dim, then the answer, then exactly one newline. Takes whole characters and writes
//! them at once; knows nothing of tokens.

use std::io::Write;

use anyhow::Context;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Writes one answer to `out`.
pub(crate) struct Printer {
    dim: bool,
    hide_thinking: bool,
    part: Part,
    /// Newlines at the end of what came so far: shown once something follows them.
    held: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Nothing,
    Thinking,
    Answer,
}

impl Printer {
    /// `dim`: reasoning is set apart by the terminal's faint style.
    pub(crate) fn new(dim: bool, hide_thinking: bool) -> Self {
        Self { dim, hide_thinking, part: Part::Nothing, held: String::new() }
    }

    pub(crate) fn thinking(&mut self, out: &mut dyn Write, text: &str) -> anyhow::Result<()> {
        if self.hide_thinking || text.is_empty() {
            return Ok(());
        }
        self.part = Part::Thinking;
        let text = self.hold(text);
        match (text.is_empty(), self.dim) {
            (true, _) => Ok(()),
            // Switched back at once: whatever ends the program, the terminal is left as it was.
            (false, true) => put(out, &format!("{DIM}{text}{PLAIN}")),
            (false, false) => put(out, &text),
        }
    }

    pub(crate) fn answer(&mut self, out: &mut dyn Write, text: &str) -> anyhow::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.part == Part::Thinking {
            self.held.clear();
            put(out, "\n")?;
        }
        self.part = Part::Answer;
        let text = self.hold(text);
        put(out, &text)
    }

    /// Ends the line that the answer stands on; an answer of nothing has none.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> anyhow::Result<()> {
        self.held.clear();
        if self.part == Part::Nothing { Ok(()) } else { put(out, "\n") }
    }

    /// What may be shown now: earlier held newlines and `text` without its own last ones.
    fn hold(&mut self, text: &str) -> String {
        let shown = text.trim_end_matches('\n');
        let tail = &text[shown.len()..];
        if shown.is_empty() {
            self.held.push_str(tail);
            return String::new();
        }
        std::mem::replace(&mut self.held, tail.to_owned()) + shown
    }
}

fn put(out: &mut dyn Write, text: &str) -> anyhow::Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(dim: bool, hide: bool, parts: &[(bool, &str)]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(dim, hide);
        for (thinking, text) in parts {
            let put = if *thinking { Printer::thinking } else { Printer::answer };
            put(&mut printer, &mut out, text).expect("a vector takes everything");
        }
        printer.finish(&mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn an_answer_ends_with_exactly_one_newline() {
        assert_eq!(print(false, false, &[(false, "a\n"), (false, "\n"), (false, "b\n\n")]), "a\n\nb\n");
        assert_eq!(print(false, false, &[(false, "\n\n")]), "\n");
    }

    #[test]
    fn nothing_said_is_nothing_printed() {
        assert_eq!(print(false, false, &[]), "");
        assert_eq!(print(false, true, &[(true, "hm")]), "");
    }

    #[test]
    fn reasoning_stands_on_lines_of_its_own_before_the_answer() {
        assert_eq!(print(false, false, &[(true, "hm"), (true, "m\n"), (false, "yes")]), "hmm\nyes\n");
        assert_eq!(print(true, false, &[(true, "hm"), (false, "yes")]), "\x1b[2mhm\x1b[0m\nyes\n");
        assert_eq!(print(true, true, &[(true, "hm"), (false, "yes")]), "yes\n");
    }
}
