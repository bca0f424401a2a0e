//! A call block while it is written: whether it goes wrong, and from where it can be written again (server.md 5.10). Owns the
//! way back in ids and text; that of the state is the scheduler's.

use ds4_text::{Delta, Detokenizer, DsmlTracker, StreamParser, Tokenizer};

use crate::Constraint;

/// What ids say: bytes to text, text to deltas, and where in a block the text stands.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) detokenizer: Detokenizer,
    pub(crate) parser: StreamParser,
    pub(crate) tracker: DsmlTracker,
}

/// The block that is being written.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Behind the marker that opens it; none if it was opened by other ids than that.
    opened: Option<Reader>,
    /// Ids behind the marker, or behind the opening tag.
    ids: Vec<u32>,
}

/// How a block goes on that is written again.
pub(crate) struct Again {
    pub(crate) reader: Reader,
    pub(crate) rule: Box<dyn Constraint>,
    /// Ids at its end that are given up.
    pub(crate) dropped: usize,
}

impl Reader {
    pub(crate) fn new(thinking: bool, tools_offered: bool) -> Self {
        Reader {
            detokenizer: Detokenizer::new(),
            parser: StreamParser::new(thinking, tools_offered),
            tracker: DsmlTracker::new(thinking),
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Delta> {
        self.tracker.push(bytes);
        let text = self.detokenizer.push(bytes);
        self.parser.push(&text)
    }
}

impl Block {
    /// Takes an id that `reader` has read.
    pub(crate) fn push(&mut self, id: u32, marker: u32, reader: &Reader) {
        let parser = &reader.parser;
        if parser.in_block() || self.opened.is_some() && id != marker {
            self.ids.push(id);
        } else if id == marker && !parser.in_reasoning() && !parser.block_closed() {
            (self.opened, self.ids) = (Some(reader.clone()), Vec::new());
        }
    }

    /// Whether it only repeats itself: what ends it stood before in the same way, again and again.
    pub(crate) fn loops(&self, reader: &Reader, most: u32) -> bool {
        let looks = self.ids.len() > most as usize && self.ids.len().is_multiple_of(LOOK);
        looks && reader.parser.in_block() && repeats(&self.ids)
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The way to write it again under `rule`, which begins behind the marker. As much is kept as is in the official form, so that
    /// what was shown of it stands; from a block that leads nowhere, or which the rule does not admit so far, only the marker, if
    /// nothing was shown. The last id is never kept: it is the one with which the block went wrong.
    pub(crate) fn again(
        &self,
        reader: &Reader,
        rule: &dyn Constraint,
        tokenizer: &Tokenizer,
        leads_nowhere: bool,
    ) -> Option<Again> {
        let opened = self.opened.as_ref()?;
        let behind = reader.parser.text().get(opened.parser.text().len()..)?;
        if !opened.parser.text().ends_with(OPENER.0) || !behind.starts_with(OPENER.1) {
            // That marker was text, and the block was opened by other ids.
            return None;
        }
        let shown = reader.parser.shown();
        let official = if leads_nowhere { 0 } else { self.official(opened, &reader.parser, tokenizer) };
        let kept = |n: usize| {
            let (mut reader, mut rule) = (opened.clone(), rule.fork());
            for &id in &self.ids[..n] {
                reader.push(tokenizer.token_bytes(id));
                if !matches!(rule.push(id), Ok(false)) {
                    return None;
                }
            }
            (reader.parser.shown() == shown).then_some(Again { reader, rule, dropped: self.ids.len() - n })
        };
        kept(official).or_else(|| kept(0))
    }

    /// The block after `again` gave up `dropped` ids.
    pub(crate) fn cut(&mut self, dropped: usize) {
        self.ids.truncate(self.ids.len() - dropped);
    }

    /// Ids in the official form, of which everything that was shown is made.
    fn official(&self, opened: &Reader, parser: &StreamParser, tokenizer: &Tokenizer) -> usize {
        let mut reader = opened.clone();
        let mut kept = 0;
        for (n, &id) in self.ids.iter().enumerate() {
            if reader.parser.text().len() > parser.official() {
                break;
            }
            if reader.parser.shown() == parser.shown() {
                kept = n;
            }
            reader.push(tokenizer.token_bytes(id));
        }
        kept
    }
}

/// Whether the ids end in a piece and repetitions of it: at least four, and [`LOOP`] ids.
fn repeats(ids: &[u32]) -> bool {
    let Some((before, gram)) = ids.split_last_chunk::<GRAM>() else { return false };
    let Some(at) = before.windows(GRAM).rposition(|earlier| earlier == gram) else { return false };
    let period = before.len() - at;
    let len = LOOP.max(4 * period);
    ids.len() >= len + period && ids[ids.len() - len..] == ids[ids.len() - len - period..ids.len() - period]
}

/// The opening tag up to its marker, and behind it.
const OPENER: (&str, &str) = ("<｜DSML｜", "tool_calls>");
/// Ids that are looked for.
const GRAM: usize = 8;
/// Ids that repeat others before it counts: tables and test data have long repetitions, too.
const LOOP: usize = 1024;
/// Ids between two looks.
const LOOK: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_repeated_if_nothing_else_came_for_long() {
        let novel = |n: u32| (0..n).map(|i| i * i % 65_537 + 10_000);
        let piece = |n: u32| (0..n).cycle();
        let ids = |period: u32, n: usize| novel(500).chain(piece(period).take(n)).collect::<Vec<u32>>();
        assert!(repeats(&ids(1, 1040)) && repeats(&ids(30, 1060)) && repeats(&ids(700, 3500)));
        assert!(!repeats(&ids(30, 1050)), "a little less than enough");
        assert!(!repeats(&ids(700, 3499)), "not four times");
        assert!(!repeats(&novel(9000).collect::<Vec<_>>()) && !repeats(&[1; 10]) && !repeats(&[]));
        let mut counted = ids(30, 3000);
        counted.iter_mut().skip(500).step_by(30).enumerate().for_each(|(i, id)| *id = 1000 + i as u32);
        assert!(!repeats(&counted), "lines with numbers are no loop");
    }
}
