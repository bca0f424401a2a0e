//! What one forward call works on: consecutive tokens of one or more sequences.

/// A sequence's place in the cache, `0..Limits::slots`.
pub type SlotId = u32;

/// The rows of a span for which logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// No row.
    None,
    /// The span's last row.
    Last,
    /// Every row.
    All,
}

/// `len` consecutive tokens of the sequence in `slot`, the first at position `pos`.
/// The cache must hold positions `0..pos` of that sequence; a span at position 0 starts it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The sequence's cache slot.
    pub slot: SlotId,
    /// Position of the first token.
    pub pos: u32,
    /// Tokens in the span.
    pub len: u32,
    /// Rows whose logits are wanted.
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
    /// Token ids of all spans.
    pub tokens: &'a [u32],
    /// The spans; their lengths sum to `tokens.len()`.
    pub spans: &'a [Span],
}

impl Batch<'_> {
    /// Rows of logits the whole batch produces, in span order.
    pub fn logit_rows(&self) -> usize {
        self.spans.iter().map(Span::logit_rows).sum()
    }
}

/// One draft: `token` is, or is taken to be, the token at `pos + 1`. The slot must hold the state of `pos`: of a position the
/// main model has evaluated, or the one an earlier draft has left there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftRow {
    /// The sequence's cache slot.
    pub slot: SlotId,
    /// Position of the state that the draft starts from.
    pub pos: u32,
    /// Token id at `pos + 1`; the logits are a guess of the token at `pos + 2`.
    pub token: u32,
}

/// Most positions past the last evaluated one that a slot can hold drafts for.
pub const MAX_DRAFT: u32 = 16;

/// `StepRow::logits` of a row whose logits nobody asked for.
pub const NO_LOGITS: u32 = u32::MAX;

/// One row of a step as the device sees it: 32 bytes, little endian, read from device memory by every stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct StepRow {
    /// Token id.
    pub token: u32,
    /// Absolute position.
    pub pos: u32,
    /// Cache slot.
    pub slot: u32,
    /// Position of the first row of this row's span in this step. Row `i` at `pos` has its sequence's position `q >= first`
    /// at row `i - (pos - q)`; earlier positions are in the cache.
    pub first: u32,
    /// One past the position of the last row of this row's span in this step.
    pub end: u32,
    /// Row of the logits buffer to fill, or [`NO_LOGITS`].
    pub logits: u32,
    /// Position whose state the row's streams are after the last layer: `pos`, and `pos + 1` in the draft block, whose
    /// streams stand in for a state that the main model has not computed yet.
    pub state: u32,
    /// Zero; keeps the row at 32 bytes.
    pub pad: u32,
}

/// What changes every step. `rows` lives in device memory; the numbers are part of the graph key, so a captured
/// graph may bake them in.
#[derive(Debug)]
pub struct Step<Buf> {
    /// [`StepRow`] per row.
    pub rows: Buf,
    /// Rows in this step.
    pub n: usize,
    /// Rows that want logits.
    pub logits: usize,
    /// An upper bound of every `pos + 1` in this step.
    pub context: u32,
}

/// Decode steps with equal keys enqueue the same work: a device may record it once and replay it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GraphKey {
    /// Rows in the step, one per sequence.
    pub rows: u32,
    /// Rows that want logits.
    pub logits: u32,
    /// Upper bound of every `pos + 1`: a power of two, or the longest context.
    pub context: u32,
    /// A step of the draft block, not of the main model.
    pub draft: bool,
}
