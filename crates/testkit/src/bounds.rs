//! How far a device may be from the reference, stage by stage. Every stage is given the reference's inputs, so a bound is about
//! one stage alone.

use ds4_model::Stage;

use crate::tally::StageLine;

/// What is accepted of an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
    /// Relative distance of a row.
    pub(crate) relative: f64,
    /// Share of differing codes.
    pub(crate) codes: f64,
    /// Share of rows of numbers that differ without a near tie; one row is accepted in any case where it is not zero.
    pub(crate) ids: f64,
}

/// Bounds in decode steps (at most 64 rows) and in prefill steps.
///
/// - A look-up is exact but for the product of code and scale, and a copy is exact.
/// - Dense decode kernels keep float32 activations: what is left is the order of sums.
/// - Dense prefill kernels round activations to float16: 2^-11 a value, and sums of them.
/// - Attention's scores are products of float16 queries and exact E4M3 rows in every step.
/// - Experts in decode have activations of two int8 planes, in prefill float16.
const TABLE: [(Stage, f64, f64); 13] = [
    (Stage::Embed, 1e-6, 1e-6),
    (Stage::HcPre, 2e-5, 2e-3),
    (Stage::Project, 2e-5, 2e-3),
    (Stage::Query, 2e-5, 2e-3),
    (Stage::Compress, 2e-5, 2e-5),
    (Stage::Select, 0.0, 0.0),
    (Stage::Attend, 1e-3, 1e-3),
    (Stage::AttnOutput, 2e-5, 2e-3),
    (Stage::Route, 2e-5, 2e-3),
    (Stage::Experts, 2e-4, 2e-3),
    (Stage::Head, 2e-5, 2e-3),
    (Stage::KeepStreams, 0.0, 0.0),
    (Stage::DraftEmbed, 2e-5, 2e-3),
];

/// Rows of E4M3 codes: a value next to a rounding boundary moves by an eighth of itself, however small the error before.
const ROW: f64 = 3e-2;
/// Values of E2M1 codes: one that moves does so by a tenth of its row, a scale that moves takes 32 along.
const GRID: f64 = 0.3;
/// More values than that are not next to a boundary.
const CODES: f64 = 0.02;
/// Rows whose experts' scores, which only the stage itself knows, are likely closer than the error allowed above.
const IDS: (f64, f64) = (2e-3, 2e-2);

/// The bound of a line.
pub(crate) fn of(line: &StageLine) -> Bound {
    let (_, decode, prefill) = TABLE.iter().find(|(stage, ..)| *stage == line.stage).expect("every stage is listed");
    let dense = if line.prefill { *prefill } else { *decode };
    let ids = if line.prefill { IDS.1 } else { IDS.0 };
    match (line.stage, line.output) {
        (Stage::Project, "window") | (Stage::Compress, "rows") => Bound { relative: ROW, codes: CODES, ids: 0.0 },
        (Stage::Query, "index") | (Stage::Compress, "index_rows") => Bound { relative: GRID, codes: CODES, ids: 0.0 },
        (Stage::Route, "ids") => Bound { relative: 0.0, codes: 0.0, ids },
        // A row has as many values as there are indexer heads, two in the smallest model: both may be near zero.
        (Stage::Project, "index_weights") => Bound { relative: 10.0 * dense, codes: 0.0, ids: 0.0 },
        _ => Bound { relative: dense, codes: 0.0, ids: 0.0 },
    }
}

/// Whether a line keeps its bound.
pub(crate) fn keeps(line: &StageLine) -> bool {
    let bound = of(line);
    let accepted = if bound.ids > 0.0 { (bound.ids * line.rows as f64).max(1.0) } else { 0.0 };
    line.worst <= bound.relative && line.code_share() <= bound.codes && line.unexplained as f64 <= accepted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_bound_in_every_respect() {
        let line = |worst: f64, codes_differ, unexplained| StageLine {
            rows: 1000,
            worst,
            codes: 100,
            codes_differ,
            unexplained,
            ..StageLine::new(Stage::Project, "window", false)
        };
        assert!(keeps(&line(0.02, 2, 0)));
        assert!(!keeps(&line(0.04, 2, 0)) && !keeps(&line(0.02, 3, 0)) && !keeps(&line(0.02, 2, 1)));
        assert!(!keeps(&line(f64::INFINITY, 0, 0)));
        let ids = |prefill, unexplained| StageLine { unexplained, ..line(0.0, 0, 0) }.of_ids(prefill);
        assert!(keeps(&ids(false, 2)) && !keeps(&ids(false, 3)) && keeps(&ids(true, 20)) && !keeps(&ids(true, 21)));
        let decode = StageLine { worst: 1e-4, ..StageLine::new(Stage::Head, "logits", false) };
        assert!(!keeps(&decode) && keeps(&StageLine { prefill: true, ..decode }));
    }

    impl StageLine {
        fn of_ids(self, prefill: bool) -> StageLine {
            StageLine { stage: Stage::Route, output: "ids", prefill, ..self }
        }
    }
}
