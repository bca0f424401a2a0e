//! Golden logits of small models: every recorded prompt in both modes, fed whole, token by token and in chunks, against the
//! recorded rows; streams after each layer where they are recorded; and the numerics users get, by their divergence.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use ds4_gguf::Gguf;
use ds4_model::Model;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Options, Report};
use crate::config::ModelSource;
use crate::device::{self, Precision};
use crate::file::read_text;
use crate::logits::{check_ids, for_each_chunk};

const TOLERANCE: f32 = 1e-3;
const NOISE_FACTOR: f32 = 10.0;
/// Streams grow with depth, so their error is judged by the size of the row.
const STREAM_TOLERANCE: f32 = 1e-4;
/// Median divergence allowed to the default numerics: the bound that the goldens' own description gives engines that round
/// more than the reference (`fixtures/tiny/README.md`, `--max-kl 0.02`). A float16 rotary tail moves values of later layers
/// across E4M3 steps, so a model that rounds cannot be held to what a float16 cache does to one that does not.
const MAX_MEDIAN_KL: f64 = 2e-2;

#[derive(Deserialize)]
struct Golden {
    gguf: String,
    gguf_sha256: Option<String>,
    f32: String,
    f32_count: usize,
    vocab: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    n: usize,
    tokens: Vec<u32>,
    positions: Vec<usize>,
    plain: Rows,
    qat: Rows,
}

#[derive(Deserialize)]
struct Rows {
    offset: usize,
    #[serde(rename = "rows")]
    count: usize,
    noise: Vec<f32>,
    argmax_all: Vec<u32>,
    trace: Option<Trace>,
}

#[derive(Deserialize)]
struct Trace {
    offset: usize,
    /// `[layer][position][stream values]`
    shape: [usize; 3],
}

/// A recorded prompt in one mode, to be run.
struct Trial<'a> {
    gguf: &'a Gguf,
    precision: Precision,
    truth: Truth<'a>,
    options: &'a Options,
    label: String,
}

/// What is recorded of a prompt in one mode.
struct Truth<'a> {
    case: &'a Case,
    rows: &'a Rows,
    /// `[rows][vocab]`
    logits: &'a [f32],
    vocab: usize,
}

pub(super) fn check(path: &Path, options: &Options, report: &mut Report<'_>) -> anyhow::Result<()> {
    let golden: Golden = serde_json::from_str(&read_text(path, "golden")?)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let values = read_values(&folder.join(&golden.f32), golden.f32_count)?;
    let model = folder.join(&golden.gguf);
    let gguf = device::open_gguf(&ModelSource::File(model.clone()), true)?;
    if let Some(expected) = &golden.gguf_sha256 {
        check_sha256(&model, expected)?;
    }
    let name = golden.gguf.trim_end_matches(".gguf");
    for (at, case) in golden.cases.iter().enumerate() {
        let modes = [("plain", Precision::Plain, &case.plain), ("qat", Precision::Quality, &case.qat)];
        for (mode, precision, rows) in modes {
            let truth = Truth::new(case, rows, &values, golden.vocab).with_context(|| format!("case {at} {mode}"))?;
            let label = format!("{name} n={} {mode}", case.n);
            let trial = Trial { gguf: &gguf, precision, truth, options, label };
            trial.feedings(report)?;
            if let Some(trace) = &rows.trace {
                trial.streams(trace, &values, report)?;
            }
        }
        let truth = Truth::new(case, &case.qat, &values, golden.vocab)?;
        let label = format!("{name} n={} default", case.n);
        Trial { gguf: &gguf, precision: Precision::Default, truth, options, label }.divergence(report)?;
    }
    Ok(())
}

/// Logits of other weights would only look wrong: the model must be the one they were recorded from.
fn check_sha256(path: &Path, expected: &str) -> anyhow::Result<()> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher).with_context(|| format!("cannot read {name}"))?;
    let found = format!("{:x}", hasher.finalize());
    if !found.eq_ignore_ascii_case(expected) {
        bail!("{name}: sha256 {found}, expected {expected}: the logits were recorded from another model");
    }
    Ok(())
}

/// Little-endian floats, as many as announced.
fn read_values(path: &Path, count: usize) -> anyhow::Result<Vec<f32>> {
    let name = path.display();
    let cannot = || format!("cannot open {name}");
    let len = path.metadata().with_context(cannot)?.len();
    if Some(len) != (count as u64).checked_mul(4) {
        bail!("{name}: {len} bytes, expected {count} floats");
    }
    let bytes = std::fs::read(path).with_context(cannot)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

impl<'a> Truth<'a> {
    fn new(case: &'a Case, rows: &'a Rows, values: &'a [f32], vocab: usize) -> anyhow::Result<Self> {
        let n = case.n;
        if n == 0 || case.tokens.len() != n || rows.argmax_all.len() != n {
            bail!("{} tokens and {} argmax values, expected {n}", case.tokens.len(), rows.argmax_all.len());
        }
        if rows.count == 0 || case.positions.len() != rows.count || rows.noise.len() != rows.count {
            bail!("{} positions and {} noise values, expected {}", case.positions.len(), rows.noise.len(), rows.count);
        }
        if let Some(at) = case.positions.iter().find(|&&at| at >= n) {
            bail!("position {at}, expected less than {n}");
        }
        check_ids(&case.tokens, vocab)?;
        let logits = slice(values, rows.offset, rows.count.checked_mul(vocab))?;
        Ok(Self { case, rows, logits, vocab })
    }

    fn row(&self, at: usize) -> &'a [f32] {
        &self.logits[at * self.vocab..(at + 1) * self.vocab]
    }
}

fn slice(values: &[f32], offset: usize, len: Option<usize>) -> anyhow::Result<&[f32]> {
    let end = len.and_then(|len| offset.checked_add(len));
    end.and_then(|end| values.get(offset..end)).with_context(|| format!("offset {offset} lies outside the values"))
}

impl Trial<'_> {
    /// Fed whole, token by token and in chunks, every recorded row is within its limit.
    fn feedings(&self, report: &mut Report<'_>) -> anyhow::Result<()> {
        let n = self.truth.case.n;
        let mut feedings = vec![("whole".to_owned(), n), ("token by token".to_owned(), 1)];
        feedings.extend(self.options.chunk.map(|chunk| (format!("chunks of {chunk}"), chunk)));
        let mut model = device::load_for_test(self.gguf, n, n, self.precision, self.options.threads)?;
        for (feeding, chunk) in feedings {
            let logits = all_logits(&mut *model, &self.truth, chunk)?;
            let label = format!("{} {feeding}", self.label);
            let (worst, difference) = beyond_limit(&self.truth, &logits);
            let kl = median_kl(&self.truth, &logits);
            let agreement = argmax_agreement(&self.truth, &logits);
            report.note(&format!(
                "{label}: largest error {worst:.2e}, median KL {kl:.2e}, argmax agreement {agreement:.4}"
            ))?;
            report.case(&label, difference)?;
        }
        Ok(())
    }

    /// Compact cache rows: judged by divergence, since single rows may move when a rounding step flips.
    fn divergence(&self, report: &mut Report<'_>) -> anyhow::Result<()> {
        let n = self.truth.case.n;
        let mut model = device::load_for_test(self.gguf, n, n, self.precision, self.options.threads)?;
        let logits = all_logits(&mut *model, &self.truth, n)?;
        let kl = median_kl(&self.truth, &logits);
        let agreement = argmax_agreement(&self.truth, &logits);
        report.note(&format!("{}: median KL {kl:.2e}, argmax agreement {agreement:.4}", self.label))?;
        // Written so that a divergence that is no number fails.
        let within = kl <= MAX_MEDIAN_KL;
        let difference = (!within).then(|| format!("median KL {kl:.2e}, expected at most {MAX_MEDIAN_KL:.0e}"));
        report.case(&self.label, difference)
    }

    /// The residual streams after every layer, to find the first wrong one.
    fn streams(&self, trace: &Trace, values: &[f32], report: &mut Report<'_>) -> anyhow::Result<()> {
        let [layers, positions, width] = trace.shape;
        let per_layer =
            positions.checked_mul(width).filter(|&n| n > 0).context("trace: the shape holds a zero or is too large")?;
        let expected = slice(values, trace.offset, layers.checked_mul(per_layer))?;
        let case = self.truth.case;
        let found = device::trace(self.gguf, &case.tokens, self.precision, self.options.threads)?;
        if found.len() != layers || found.iter().any(|layer| layer.len() != per_layer) || positions != case.n {
            bail!("{}: trace of {:?}, the model has {} layers", self.label, trace.shape, found.len());
        }
        let mut difference = None;
        for (layer, (expected, found)) in expected.chunks_exact(per_layer).zip(&found).enumerate() {
            let size = expected.iter().fold(1.0_f32, |most, v| most.max(v.abs()));
            let error = largest_error(expected, found);
            let within = error <= STREAM_TOLERANCE * size;
            if !within && difference.is_none() {
                difference = Some(format!("first wrong layer {layer}: error {error:.2e} at size {size:.2e}"));
            }
        }
        report.case(&format!("{} streams", self.label), difference)
    }
}

/// `[n][vocab]`
fn all_logits(model: &mut dyn Model, truth: &Truth<'_>, chunk: usize) -> anyhow::Result<Vec<f32>> {
    if model.shape().n_vocab != truth.vocab {
        bail!("model has {} tokens, expected {}", model.shape().n_vocab, truth.vocab);
    }
    let mut all = Vec::with_capacity(truth.case.n * truth.vocab);
    for_each_chunk(model, &truth.case.tokens, chunk.min(truth.case.n), &mut |_, rows| {
        all.extend_from_slice(rows);
        Ok(())
    })?;
    Ok(all)
}

/// Recorded rows with what was computed for them.
fn pairs<'a>(truth: &'a Truth<'_>, logits: &'a [f32]) -> impl Iterator<Item = (usize, &'a [f32], &'a [f32])> {
    let vocab = truth.vocab;
    truth
        .case
        .positions
        .iter()
        .enumerate()
        .map(move |(at, &pos)| (at, truth.row(at), &logits[pos * vocab..(pos + 1) * vocab]))
}

/// The largest error of all rows, and the first row whose error is beyond its limit.
fn beyond_limit(truth: &Truth<'_>, logits: &[f32]) -> (f32, Option<String>) {
    let (mut worst, mut first) = (0.0_f32, None);
    for (at, expected, found) in pairs(truth, logits) {
        let error = largest_error(expected, found);
        let limit = TOLERANCE + NOISE_FACTOR * truth.rows.noise[at];
        worst = worst.max(error);
        let within = error <= limit;
        if !within && first.is_none() {
            first = Some(format!("position {}: error {error:.2e}, limit {limit:.2e}", truth.case.positions[at]));
        }
    }
    (worst, first)
}

/// Infinite if anything is not a number.
fn largest_error(expected: &[f32], found: &[f32]) -> f32 {
    let error = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    expected.iter().zip(found).map(error).fold(0.0, f32::max)
}

fn argmax_agreement(truth: &Truth<'_>, logits: &[f32]) -> f64 {
    let best = |row: &[f32]| (0..row.len()).fold(0, |best, id| if row[id] > row[best] { id } else { best }) as u32;
    let same =
        logits.chunks_exact(truth.vocab).zip(&truth.rows.argmax_all).filter(|(row, id)| best(row) == **id).count();
    same as f64 / truth.case.n as f64
}

fn median_kl(truth: &Truth<'_>, logits: &[f32]) -> f64 {
    let mut all: Vec<f64> = pairs(truth, logits).map(|(_, expected, found)| divergence(expected, found)).collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len() % 2 == 1 { all[middle] } else { f64::midpoint(all[middle - 1], all[middle]) }
}

fn divergence(expected: &[f32], found: &[f32]) -> f64 {
    let (p, q) = (log_softmax(expected), log_softmax(found));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let wide: Vec<f64> = row.iter().map(|&z| f64::from(z)).collect();
    let total = crate::compare::log_sum_exp(&wide);
    wide.iter().map(|z| z - total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_number_is_infinitely_wrong() {
        assert_eq!(largest_error(&[1.0, 2.0], &[1.0, f32::NAN]), f32::INFINITY);
        assert_eq!(largest_error(&[1.0, 2.0], &[1.5, 2.0]), 0.5);
        assert!(divergence(&[0.0, 1.0], &[f32::NAN, 1.0]).is_nan());
    }

    #[test]
    fn equal_rows_have_no_divergence_and_unequal_ones_do() {
        assert!(divergence(&[0.0, 1.0, 2.0], &[5.0, 6.0, 7.0]).abs() < 1e-12);
        assert!(divergence(&[0.0, 1.0], &[1.0, 0.0]) > 0.1);
    }
}
