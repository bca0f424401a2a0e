//! A rendered prompt: one string, which of its bytes the template wrote, and which stand for ids that are known. Owns that
//! bookkeeping only; `render` decides what is written, `tokenizer` what becomes of it.

use std::ops::Range;

/// Text for the model. Control strings act only inside template ranges (`spec/prompt.md` 23.5): whatever a client sends, it
/// cannot open a turn or close one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    text: String,
    /// Non-empty byte ranges in order, none touching the next.
    template: Vec<Range<usize>>,
    /// Non-empty byte ranges in order, and the ids they stand for.
    exact: Vec<(Range<usize>, Vec<u32>)>,
}

/// Ids whatever their text would be tokenized to, and that text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exact {
    pub ids: Vec<u32>,
    /// What the ids spell; what is not UTF-8 is U+FFFD.
    pub text: String,
}

/// A maximal stretch of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Template(&'a str),
    Untrusted(&'a str),
    /// Text that stands for these ids.
    Exact(&'a str, &'a [u32]),
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

    /// Appends ids that stay as they are, with the text they spell.
    pub fn push_exact(&mut self, exact: &Exact) {
        let start = self.text.len();
        self.text.push_str(&exact.text);
        if !exact.text.is_empty() {
            self.exact.push((start..self.text.len(), exact.ids.clone()));
        }
    }

    /// Appends another prompt, keeping the kinds.
    pub fn push(&mut self, other: &Prompt) {
        for piece in other.pieces() {
            match piece {
                Piece::Template(text) => self.push_template(text),
                Piece::Untrusted(text) => self.push_untrusted(text),
                Piece::Exact(text, ids) => self.push_exact(&Exact { ids: ids.to_vec(), text: text.to_owned() }),
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

    /// Byte ranges that stand for known ids, in order.
    pub fn exact(&self) -> &[(Range<usize>, Vec<u32>)] {
        &self.exact
    }

    /// The text in order, cut where the kind changes.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let template = self.template.iter().map(|at| (at.clone(), Piece::Template(&self.text[at.clone()])));
        let exact = self.exact.iter().map(|(at, ids)| (at.clone(), Piece::Exact(&self.text[at.clone()], ids)));
        let mut known: Vec<_> = template.chain(exact).collect();
        known.sort_by_key(|(at, _)| at.start);
        let end = self.text.len();
        known.push((end..end, Piece::Template("")));
        let mut at = 0;
        known
            .into_iter()
            .flat_map(move |(range, piece)| {
                let before = &self.text[at..range.start];
                at = range.end;
                [Piece::Untrusted(before), piece]
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
