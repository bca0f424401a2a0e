//! How far a device's outputs are from the reference's: one line for each output of each stage, for decode and for prefill.

use std::collections::BTreeSet;

use ds4_model::{Numerics, Shape, Stage};

use crate::decode;

/// What an output's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// float32 values.
    Floats,
    /// float32 values of a coarse grid: a small error moves a few of them far.
    Grid,
    /// Numbers: expert ids, selected rows.
    Ids,
    /// A window or compressed row of the cache.
    Row,
    /// An indexer row of the cache.
    IndexRow,
}

/// Most rows of a step that counts as decode; devices have other kernels beyond.
pub(crate) const DECODE_ROWS: usize = 64;

/// What was seen of one output of one stage.
#[derive(Clone, Debug)]
pub struct StageLine {
    /// The stage.
    pub stage: Stage,
    /// Which of its outputs.
    pub output: &'static str,
    /// Steps of more than 64 rows.
    pub prefill: bool,
    /// Calls of the stage that wrote it.
    pub calls: usize,
    /// Rows compared.
    pub rows: usize,
    /// Largest `|device - reference| / |reference|` of a row; infinite where something is not a number.
    pub worst: f64,
    /// Largest difference of two values.
    pub absolute: f64,
    /// Model, step and row of `worst`.
    pub at: String,
    /// Values that went through a coarse rounding, and those of them that differ.
    pub codes: usize,
    /// See `codes`.
    pub codes_differ: usize,
    /// Rows of numbers that differ.
    pub ids_differ: usize,
    /// Those of them that no near tie explains.
    pub unexplained: usize,
}

impl StageLine {
    pub(crate) fn new(stage: Stage, output: &'static str, prefill: bool) -> StageLine {
        StageLine {
            stage,
            output,
            prefill,
            calls: 0,
            rows: 0,
            worst: 0.0,
            absolute: 0.0,
            at: String::new(),
            codes: 0,
            codes_differ: 0,
            ids_differ: 0,
            unexplained: 0,
        }
    }

    /// Adds what another model has shown.
    pub(crate) fn merge(&mut self, other: &StageLine) {
        self.calls += other.calls;
        self.rows += other.rows;
        self.absolute = self.absolute.max(other.absolute);
        self.codes += other.codes;
        self.codes_differ += other.codes_differ;
        self.ids_differ += other.ids_differ;
        self.unexplained += other.unexplained;
        if other.worst > self.worst || self.at.is_empty() {
            (self.worst, self.at) = (other.worst, other.at.clone());
        }
    }

    /// Share of differing codes.
    pub fn code_share(&self) -> f64 {
        if self.codes == 0 { 0.0 } else { self.codes_differ as f64 / self.codes as f64 }
    }

    fn row(&mut self, found: &[f32], expected: &[f32], at: &dyn Fn() -> String) {
        let (relative, absolute) = distance(found, expected);
        self.absolute = self.absolute.max(absolute);
        if relative > self.worst || self.at.is_empty() {
            (self.worst, self.at) = (relative, at());
        }
    }

    fn grid(&mut self, found: &[f32], expected: &[f32]) {
        self.codes += expected.len();
        self.codes_differ += found.iter().zip(expected).filter(|(a, b)| a != b).count();
    }
}

/// A row of numbers that differs.
pub(crate) struct Differing {
    /// Row of the step.
    pub(crate) row: usize,
    pub(crate) found: Vec<u32>,
    pub(crate) expected: Vec<u32>,
}

impl Differing {
    /// Numbers that only one of the two has.
    pub(crate) fn either(&self) -> Vec<u32> {
        let (a, b): (BTreeSet<_>, BTreeSet<_>) = (self.found.iter().collect(), self.expected.iter().collect());
        a.symmetric_difference(&b).map(|id| **id).collect()
    }
}

/// All lines of a device, and what they are about now.
pub(crate) struct Tally {
    shape: Shape,
    pub(crate) numerics: Numerics,
    /// Model and step.
    pub(crate) label: String,
    pub(crate) lines: Vec<StageLine>,
}

/// Rows of one output, as bytes of both sides.
pub(crate) struct Seen<'a> {
    pub(crate) form: Form,
    pub(crate) row_bytes: usize,
    /// The step's row that each row here belongs to.
    pub(crate) rows: &'a [usize],
    pub(crate) found: &'a [u8],
    pub(crate) expected: &'a [u8],
}

impl Tally {
    pub(crate) fn new(shape: &Shape, numerics: Numerics) -> Tally {
        Tally { shape: shape.clone(), numerics, label: String::new(), lines: Vec::new() }
    }

    /// The line of an output.
    pub(crate) fn line(&mut self, stage: Stage, output: &'static str, prefill: bool) -> &mut StageLine {
        let same = |line: &StageLine| (line.stage, line.output, line.prefill) == (stage, output, prefill);
        let at = self.lines.iter().position(same).unwrap_or_else(|| {
            self.lines.push(StageLine::new(stage, output, prefill));
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }

    /// Compares row by row; answers with the rows of numbers that differ.
    pub(crate) fn compare(
        &mut self,
        (stage, output, prefill): (Stage, &'static str, bool),
        seen: &Seen<'_>,
    ) -> Vec<Differing> {
        let (shape, numerics, label) = (self.shape.clone(), self.numerics, self.label.clone());
        let line = self.line(stage, output, prefill);
        line.calls += 1;
        line.rows += seen.rows.len();
        let mut differing = Vec::new();
        let both = seen.found.chunks(seen.row_bytes).zip(seen.expected.chunks(seen.row_bytes));
        for (&row, (found, expected)) in seen.rows.iter().zip(both) {
            let at = || format!("{label}, row {row}");
            match seen.form {
                Form::Floats => line.row(&decode::floats(found), &decode::floats(expected), &at),
                Form::Grid => {
                    let (found, expected) = (decode::floats(found), decode::floats(expected));
                    line.row(&found, &expected, &at);
                    line.grid(&found, &expected);
                }
                Form::Row => {
                    let [found, expected] = [found, expected].map(|bytes| decode::row(numerics, &shape, bytes));
                    line.row(&found, &expected, &at);
                    // The rotated tail is of half precision: it moves with every small error.
                    line.grid(&found[..shape.nope_dim()], &expected[..shape.nope_dim()]);
                }
                Form::IndexRow => {
                    let [found, expected] = [found, expected].map(|bytes| decode::index_row(numerics, &shape, bytes));
                    line.row(&found, &expected, &at);
                    line.grid(&found, &expected);
                }
                Form::Ids if found != expected => {
                    line.ids_differ += 1;
                    line.at = at();
                    differing.push(Differing { row, found: decode::ids(found), expected: decode::ids(expected) });
                }
                Form::Ids => {}
            }
        }
        differing
    }
}

/// Relative distance of two rows and the largest difference of two values. What is not a number is infinitely far.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> (f64, f64) {
    let (mut difference, mut norm, mut absolute) = (0f64, 0f64, 0f64);
    for (found, expected) in found.iter().zip(expected) {
        let d = f64::from(*found) - f64::from(*expected);
        if !d.is_finite() {
            return (f64::INFINITY, f64::INFINITY);
        }
        difference += d * d;
        norm += f64::from(*expected) * f64::from(*expected);
        absolute = absolute.max(d.abs());
    }
    let relative = if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() };
    (relative, absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_infinitely_far() {
        assert_eq!(distance(&[3.0, 5.0], &[3.0, 4.0]), (0.2, 1.0));
        assert_eq!(distance(&[0.0], &[0.0]), (0.0, 0.0));
        assert_eq!(distance(&[1.0], &[0.0]).0, f64::INFINITY);
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(distance(&[bad, 1.0], &[1.0, 1.0]), (f64::INFINITY, f64::INFINITY));
            assert_eq!(distance(&[1.0, bad], &[1.0, bad]), (f64::INFINITY, f64::INFINITY));
        }
    }
}
