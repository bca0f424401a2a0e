//! A rendered prompt: one string, and which of its bytes the template wrote. Owns that bookkeeping only; `render` decides
//! what is written, `tokenizer` what becomes of it.

use std::ops::Range;

/// Text for the model. Control strings act only inside template ranges (`spec/prompt.md` 23.5): whatever a client sends, it
/// cannot open a turn or close one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    text: String,
    /// Non-empty byte ranges in order, none touching the next.
    template: Vec<Range<usize>>,
}

/// A maximal stretch of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Template(&'a str),
    Untrusted(&'a str),
}

impl Prompt {
    /// The empty prompt.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends text whose control strings act.
    pub fn push_template(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        let end = self.text.len();
        match self.template.last_mut() {
            _ if start == end => {}
            Some(last) if last.end == start => last.end = end,
            _ => self.template.push(start..end),
        }
    }

    /// Appends text that must not act, whatever it spells.
    pub fn push_untrusted(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends another prompt, keeping the kinds.
    pub fn push(&mut self, other: &Prompt) {
        for piece in other.pieces() {
            match piece {
                Piece::Template(text) => self.push_template(text),
                Piece::Untrusted(text) => self.push_untrusted(text),
            }
        }
    }

    /// The whole text, as the reference renders it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Byte ranges written by the template, in order, none touching the next.
    pub fn template(&self) -> &[Range<usize>] {
        &self.template
    }

    /// The text in order, cut where the kind changes.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let ends = self.template.iter().map(|r| (r.start, r.end)).chain([(self.text.len(), self.text.len())]);
        let mut at = 0;
        ends.flat_map(move |(start, end)| {
            let before = &self.text[at..start];
            at = end;
            [Piece::Untrusted(before), Piece::Template(&self.text[start..end])]
        })
        .filter(|piece| !matches!(piece, Piece::Untrusted("") | Piece::Template("")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_template_stretches_become_one() {
        let mut prompt = Prompt::new();
        prompt.push_template("<a>");
        prompt.push_untrusted("");
        prompt.push_template("<b>");
        prompt.push_untrusted("x");
        prompt.push_template("");
        prompt.push_untrusted("y");
        let pieces: Vec<_> = prompt.pieces().collect();
        assert_eq!(pieces, [Piece::Template("<a><b>"), Piece::Untrusted("xy")]);
        let mut twice = prompt.clone();
        twice.push(&prompt);
        assert_eq!(twice.text(), "<a><b>xy<a><b>xy");
        assert_eq!(twice.template(), [0..6, 8..14]);
    }
}
