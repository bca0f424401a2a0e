//! Who gets which rows of the next step. A pure function of what the sequences ask for: no model, no clock, no state.

use ds4_model::{LogitRows, SlotId, Span};

/// What one running sequence asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) slot: SlotId,
    /// Position of the first token not yet evaluated.
    pub(crate) pos: u32,
    /// Tokens that could be evaluated now. At least 1.
    pub(crate) len: u32,
    pub(crate) kind: Kind,
}

/// What the rows are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One sampled token; its logits are wanted.
    Decode,
    /// A prompt; logits after its last token.
    Prefill,
    /// Given tokens; logits after each from position `from` on.
    Score { from: u32 },
}

/// What one step may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Rows of one forward call.
    pub(crate) rows: u32,
    /// Rows that are not decode rows, while there are decode rows.
    pub(crate) quantum: u32,
    /// Rows of logits for scoring.
    pub(crate) score_rows: u32,
}

/// Spans of the next step, in the order of `demands`. Every decode row comes first, as far as they fit (those at the
/// front of `demands` win); what is left is shared evenly among the prompts, and what a short one does not need goes to
/// the longer ones. With any demand at all there is at least one span.
pub(crate) fn plan(demands: &[Demand], budget: Budget) -> Vec<Span> {
    let decodes = demands.iter().filter(|d| d.kind == Kind::Decode).count() as u32;
    let mut rows = budget.rows - decodes.min(budget.rows);
    if decodes > 0 {
        rows = rows.min(budget.quantum);
    }
    let mut prompts: Vec<usize> = (0..demands.len()).filter(|&i| demands[i].kind != Kind::Decode).collect();
    prompts.sort_by_key(|&i| demands[i].len);
    let mut granted = vec![0; demands.len()];
    let mut score_rows = budget.score_rows.max(1);
    let waiting = prompts.len();
    for (n, i) in prompts.into_iter().enumerate() {
        let share = rows.div_ceil((waiting - n) as u32);
        let span = limit_logits(&demands[i], demands[i].len.min(share), score_rows);
        score_rows -= if span.logits == LogitRows::All { span.len } else { 0 };
        rows -= span.len;
        granted[i] = span.len;
    }
    let mut decode_rows = decodes.min(budget.rows);
    let mut spans = Vec::new();
    for (demand, granted) in demands.iter().zip(granted) {
        if demand.kind == Kind::Decode {
            if decode_rows > 0 {
                decode_rows -= 1;
                spans.push(Span { slot: demand.slot, pos: demand.pos, len: 1, logits: LogitRows::Last });
            }
        } else if granted > 0 {
            spans.push(limit_logits(demand, granted, u32::MAX));
        }
    }
    spans
}

/// A span of at most `len` tokens that needs at most `score_rows` rows of logits for scoring.
fn limit_logits(demand: &Demand, len: u32, score_rows: u32) -> Span {
    let Demand { slot, pos, .. } = *demand;
    match demand.kind {
        Kind::Score { from } if pos < from => Span { slot, pos, len: len.min(from - pos), logits: LogitRows::None },
        Kind::Score { .. } => Span { slot, pos, len: len.min(score_rows), logits: LogitRows::All },
        Kind::Prefill | Kind::Decode => {
            let logits = if len == demand.len { LogitRows::Last } else { LogitRows::None };
            Span { slot, pos, len, logits }
        }
    }
}
