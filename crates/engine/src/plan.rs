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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Budget = Budget { rows: 100, quantum: 16, score_rows: 8 };

    fn demand(slot: SlotId, len: u32, kind: Kind) -> Demand {
        Demand { slot, pos: 10, len, kind }
    }

    fn lens(spans: &[Span]) -> Vec<(SlotId, u32, LogitRows)> {
        spans.iter().map(|s| (s.slot, s.len, s.logits)).collect()
    }

    #[test]
    fn a_prompt_alone_gets_all_rows_and_logits_only_at_its_end() {
        assert_eq!(lens(&plan(&[demand(0, 250, Kind::Prefill)], BUDGET)), [(0, 100, LogitRows::None)]);
        assert_eq!(lens(&plan(&[demand(0, 100, Kind::Prefill)], BUDGET)), [(0, 100, LogitRows::Last)]);
    }

    #[test]
    fn prompts_beside_decoding_share_the_quantum() {
        let demands = [demand(0, 1, Kind::Decode), demand(1, 250, Kind::Prefill), demand(2, 3, Kind::Prefill)];
        let expected = [(0, 1, LogitRows::Last), (1, 13, LogitRows::None), (2, 3, LogitRows::Last)];
        assert_eq!(lens(&plan(&demands, BUDGET)), expected);
    }

    #[test]
    fn decode_rows_that_do_not_fit_are_left_to_the_next_step() {
        let demands = [demand(3, 1, Kind::Decode), demand(1, 1, Kind::Decode), demand(2, 1, Kind::Decode)];
        let spans = plan(&demands, Budget { rows: 2, ..BUDGET });
        assert_eq!(lens(&spans), [(3, 1, LogitRows::Last), (1, 1, LogitRows::Last)]);
    }

    #[test]
    fn scoring_needs_no_logits_before_its_first_row_and_few_at_a_time_after_it() {
        let spans = plan(&[demand(0, 50, Kind::Score { from: 15 })], BUDGET);
        assert_eq!(lens(&spans), [(0, 5, LogitRows::None)]);
        let spans = plan(&[demand(0, 50, Kind::Score { from: 10 })], BUDGET);
        assert_eq!(lens(&spans), [(0, 8, LogitRows::All)]);
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Decode), Just(Kind::Prefill), (0..60_u32).prop_map(|from| Kind::Score { from })]
    }

    proptest! {
        #[test]
        fn any_demands_are_planned_within_the_budget_and_someone_gets_on(
            asked in prop::collection::vec((1..70_u32, 0..50_u32, kinds()), 1..12),
            rows in 1..40_u32, quantum in 1..20_u32, score_rows in 0..10_u32,
        ) {
            let demands: Vec<Demand> = asked.iter().enumerate().map(|(slot, &(len, pos, kind))| Demand {
                slot: slot as u32, pos, len: if kind == Kind::Decode { 1 } else { len }, kind,
            }).collect();
            let spans = plan(&demands, Budget { rows, quantum, score_rows });
            let total: u32 = spans.iter().map(|s| s.len).sum();
            prop_assert!((1..=rows).contains(&total));
            let decodes = demands.iter().filter(|d| d.kind == Kind::Decode).count() as u32;
            let mut others = 0;
            for span in &spans {
                let d = demands[span.slot as usize];
                prop_assert!(span.pos == d.pos && (1..=d.len).contains(&span.len));
                others += if d.kind == Kind::Decode { 0 } else { span.len };
                prop_assert_eq!(span.logits, match d.kind {
                    Kind::Score { from } if d.pos < from => LogitRows::None,
                    Kind::Score { .. } => LogitRows::All,
                    _ if span.len == d.len => LogitRows::Last,
                    _ => LogitRows::None,
                });
            }
            prop_assert!(decodes == 0 || others <= quantum);
            let scored: u32 = spans.iter().filter(|s| s.logits == LogitRows::All).map(|s| s.len).sum();
            prop_assert!(scored <= score_rows.max(1));
            prop_assert_eq!(total - others, decodes.min(rows));
        }
    }
}
