//! Who gets which rows of the next step. A pure function of what the sequences ask for: no model, no clock, no state.

use std::cmp::Reverse;
use std::time::Duration;

use ds4_model::{LogitRows, SlotId, Span};

/// What one running sequence asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) slot: SlotId,
    /// Position of the first token not yet evaluated.
    pub(crate) pos: u32,
    /// Tokens that could be evaluated now. At least 1.
    pub(crate) len: u32,
    /// Tokens to be evaluated before the first one can be drawn: those that can't be evaluated now, too.
    pub(crate) left: u32,
    /// Which came first.
    pub(crate) order: u64,
    /// What the caller made it.
    pub(crate) priority: i8,
    /// Turns of [`TURN`] that it has gone without a row.
    pub(crate) age: u32,
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
/// front of `demands` win). What is left goes to the prompts: by priority, which grows while one goes without, then to short
/// ones, least left first, then to long ones, first come, first served, of which two share at a time. With any demand at all
/// there is at least one span.
pub(crate) fn plan(demands: &[Demand], budget: Budget) -> Vec<Span> {
    let decodes = demands.iter().filter(|d| d.kind == Kind::Decode).count() as u32;
    let mut rows = budget.rows - decodes.min(budget.rows);
    if decodes > 0 {
        rows = rows.min(budget.quantum);
    }
    let mut prompts: Vec<usize> = (0..demands.len()).filter(|&i| demands[i].kind != Kind::Decode).collect();
    prompts.sort_by_key(|&i| precedence(&demands[i]));
    let mut granted = vec![0; demands.len()];
    let mut score_rows = budget.score_rows.max(1);
    // Long prompts that share what is left: this one and at most one behind it.
    let mut long = prompts.iter().filter(|&&i| demands[i].left >= LONG).count().min(2) as u32;
    for i in prompts {
        let demand = &demands[i];
        let share = if demand.left >= LONG { rows.div_ceil(long.max(1)) } else { rows };
        long = long.saturating_sub(u32::from(demand.left >= LONG));
        let span = limit_logits(demand, demand.len.min(share), score_rows);
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

/// Sorts prompts, those that are served first to the front.
fn precedence(demand: &Demand) -> impl Ord + use<> {
    let long = demand.left >= LONG;
    let priority = i64::from(demand.priority) + i64::from(demand.age);
    (Reverse(priority), long, if long { 0 } else { demand.left }, demand.order)
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

/// Prompts with so much left do not go before one another for having less of it.
const LONG: u32 = 4096;
/// Who got no row for so long goes before those who did.
pub(crate) const TURN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Budget = Budget { rows: 100, quantum: 16, score_rows: 8 };

    fn demand(slot: SlotId, len: u32, kind: Kind) -> Demand {
        Demand { slot, pos: 10, len, left: len, order: u64::from(slot), priority: 0, age: 0, kind }
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

    #[test]
    fn short_prompts_go_before_long_ones_and_the_shortest_first() {
        let long = Demand { left: 9000, ..demand(0, 90, Kind::Prefill) };
        let demands = [long, demand(1, 70, Kind::Prefill), demand(2, 20, Kind::Prefill)];
        let spans = lens(&plan(&demands, BUDGET));
        assert_eq!(spans, [(0, 10, LogitRows::None), (1, 70, LogitRows::Last), (2, 20, LogitRows::Last)]);
        let spans = lens(&plan(&demands, Budget { rows: 50, ..BUDGET }));
        assert_eq!(spans, [(1, 30, LogitRows::None), (2, 20, LogitRows::Last)]);
    }

    #[test]
    fn two_long_prompts_share_and_those_behind_them_wait_their_turn() {
        let long = |slot, order, age| Demand { left: 9000, order, age, ..demand(slot, 900, Kind::Prefill) };
        let spans = lens(&plan(&[long(0, 3, 0), long(1, 1, 0), long(2, 2, 0)], BUDGET));
        assert_eq!(spans, [(1, 50, LogitRows::None), (2, 50, LogitRows::None)]);
        let spans = lens(&plan(&[long(0, 3, 1), long(1, 1, 0), long(2, 2, 0)], BUDGET));
        assert_eq!(spans, [(0, 50, LogitRows::None), (1, 50, LogitRows::None)], "it went without for a while");
        let spans = lens(&plan(&[long(0, 1, 2), demand(1, 95, Kind::Prefill)], BUDGET));
        assert_eq!(spans, [(0, 100, LogitRows::None)], "and goes before a short one too");
        let urgent = Demand { priority: 3, ..long(0, 9, 0) };
        let spans = lens(&plan(&[long(1, 1, 2), demand(2, 95, Kind::Prefill), urgent], BUDGET));
        assert_eq!(
            spans,
            [(1, 50, LogitRows::None), (0, 50, LogitRows::None)],
            "priority first, and ages count as such"
        );
    }

    #[test]
    fn what_one_of_two_long_prompts_cannot_use_goes_to_the_next() {
        let paused = Demand { left: 9000, ..demand(0, 5, Kind::Prefill) };
        let long = |slot| Demand { left: 9000, ..demand(slot, 900, Kind::Prefill) };
        assert_eq!(
            lens(&plan(&[paused, long(1), long(2)], BUDGET)),
            [(0, 5, LogitRows::Last), (1, 95, LogitRows::None)]
        );
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Decode), Just(Kind::Prefill), (0..60_u32).prop_map(|from| Kind::Score { from })]
    }

    proptest! {
        #[test]
        fn any_demands_are_planned_within_the_budget_and_someone_gets_on(
            asked in prop::collection::vec((1..70_u32, 0..50_u32, kinds()), 1..12),
            factor in 1..200_u32, rows in 1..40_u32, quantum in 1..20_u32, score_rows in 0..10_u32,
        ) {
            let demands: Vec<Demand> = asked.iter().enumerate().map(|(slot, &(len, pos, kind))| Demand {
                slot: slot as u32, pos, len: if kind == Kind::Decode { 1 } else { len },
                left: len * factor, order: u64::from(len % 7), priority: (len % 5) as i8 - 2, age: pos % 3, kind,
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
