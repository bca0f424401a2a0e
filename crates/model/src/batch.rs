//! What one forward call works on: consecutive tokens of one or more sequences.

/// A sequence's place in the cache, `0..Limits::slots`.
pub type SlotId = u32;

/// The rows of a span for which logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    None,
    Last,
    All,
}

/// `len` consecutive tokens of the sequence in `slot`, the first at position `pos`.
/// The cache must hold positions `0..pos` of that sequence; a span at position 0 starts it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub slot: SlotId,
    pub pos: u32,
    pub len: u32,
    pub logits: LogitRows,
}

impl Span {
    /// Rows of logits this span produces.
    pub fn logit_rows(&self) -> usize {
        match self.logits {
            LogitRows::None => 0,
            LogitRows::Last => self.len.min(1) as usize,
            LogitRows::All => self.len as usize,
        }
    }
}

/// Spans of distinct slots and their tokens, concatenated in the same order.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub tokens: &'a [u32],
    pub spans: &'a [Span],
}

impl Batch<'_> {
    /// Rows of logits the whole batch produces, in span order.
    pub fn logit_rows(&self) -> usize {
        self.spans.iter().map(Span::logit_rows).sum()
    }
}
