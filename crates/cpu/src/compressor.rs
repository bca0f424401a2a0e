//! Stage `compress`: gated pooling of closed windows into rows, and the open windows' inputs (model.md 6).

use ds4_model::{Compressed, CompressorWeights, LowRank, Rows, Shape, Step, StepRow};
use rayon::prelude::*;

use crate::norm::rms_weighted;
use crate::{Buffer, Cpu, Weight, rope, rows};

pub(crate) fn compress(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &CompressorWeights<Weight>,
    low: &LowRank<Buffer>,
    out: &mut Compressed<Buffer>,
) {
    let (s, step_rows) = (&cpu.shape, Cpu::rows(step));
    let width = Shape::pooled_dim(w.ratio, s.head_dim);
    let pooled = low.pooled.floats(2 * step.n * width);
    let inputs = Inputs { ratio: w.ratio, width, step: pooled, ring: &out.frontier };
    append(cpu, &inputs, &w.norm, step_rows, &mut out.rows, |row, bytes| rows::encode(cpu.numerics, s, row, bytes));
    keep(pooled, width, step_rows, &mut out.frontier);
    if let (Some(norm), Some(index)) = (&w.index_norm, &mut out.index) {
        let width = Shape::pooled_dim(w.ratio, s.index_dim);
        let pooled = low.index_pooled.floats(2 * step.n * width);
        let inputs = Inputs { ratio: w.ratio, width, step: pooled, ring: &index.frontier };
        let encode = |row: &mut [f32], bytes: &mut [u8]| rows::encode_index(cpu.numerics, row, bytes);
        append(cpu, &inputs, norm, step_rows, &mut index.rows, encode);
        keep(pooled, width, step_rows, &mut index.frontier);
    }
}

/// A compressor's value and gate rows: this step's, and before them the ring's.
struct Inputs<'a> {
    ratio: u32,
    width: usize,
    step: &'a [f32],
    ring: &'a Rows<Buffer>,
}

impl Inputs<'_> {
    /// Value and gate at position `q` of the sequence of step row `i`.
    fn at(&self, i: usize, row: &StepRow, q: u32) -> (&[f32], &[f32]) {
        let both = if q >= row.first {
            let i = i - (row.pos - q) as usize;
            &self.step[2 * i * self.width..][..2 * self.width]
        } else {
            let at = self.ring.ring_at(row.slot, q);
            bytemuck::cast_slice(&self.ring.data.bytes()[at..at + self.ring.row_bytes])
        };
        both.split_at(self.width)
    }
}

/// Rows of the windows that close in this step.
fn append(
    cpu: &Cpu,
    inputs: &Inputs<'_>,
    norm: &Weight,
    step_rows: &[StepRow],
    out: &mut Rows<Buffer>,
    encode: impl Fn(&mut [f32], &mut [u8]),
) {
    let ratio = inputs.ratio;
    let norm = norm.values(cpu.isa);
    let closing: Vec<usize> = (0..step_rows.len()).filter(|&i| (step_rows[i].pos + 1).is_multiple_of(ratio)).collect();
    let pooled: Vec<Vec<f32>> = closing
        .par_iter()
        .map(|&i| {
            let row = &step_rows[i];
            let mut pooled = if ratio == 4 { pool_overlapping(inputs, i, row) } else { pool(inputs, i, row) };
            rms_weighted(cpu.isa, &mut pooled, norm, cpu.shape.rms_eps);
            rope::rotate(&mut pooled, &rope::angles(cpu.rope.of(ratio), row.pos + 1 - ratio));
            pooled
        })
        .collect();
    for (i, mut pooled) in closing.into_iter().zip(pooled) {
        let at = out.at(step_rows[i].slot, step_rows[i].pos / ratio);
        encode(&mut pooled, &mut out.data.bytes_mut()[at..at + out.row_bytes]);
    }
}

/// Softmax over the window's tokens for every channel.
fn pool(inputs: &Inputs<'_>, i: usize, row: &StepRow) -> Vec<f32> {
    let window = row.pos + 1 - inputs.ratio..=row.pos;
    softmax_pool(inputs.width, || window.clone().map(|q| inputs.at(i, row, q)))
}

/// Softmax over eight entries: the previous window's first halves, where there is one, and this window's second halves.
fn pool_overlapping(inputs: &Inputs<'_>, i: usize, row: &StepRow) -> Vec<f32> {
    let half = inputs.width / 2;
    let start = row.pos + 1 - inputs.ratio;
    softmax_pool(half, || {
        let previous = start.saturating_sub(inputs.ratio)..start;
        let entries = previous.map(move |q| (q, 0)).chain((start..=row.pos).map(move |q| (q, half)));
        entries.map(move |(q, at)| {
            let (kv, gate) = inputs.at(i, row, q);
            (&kv[at..at + half], &gate[at..at + half])
        })
    })
}

fn softmax_pool<'a, I: Iterator<Item = (&'a [f32], &'a [f32])>>(width: usize, entries: impl Fn() -> I) -> Vec<f32> {
    let mut max = vec![f32::NEG_INFINITY; width];
    for (_, gate) in entries() {
        max.iter_mut().zip(gate).for_each(|(max, gate)| *max = max.max(*gate));
    }
    let (mut pooled, mut total) = (vec![0f32; width], vec![0f32; width]);
    for (kv, gate) in entries() {
        for j in 0..width {
            let weight = (gate[j] - max[j]).exp();
            total[j] += weight;
            pooled[j] += weight * kv[j];
        }
    }
    pooled.iter_mut().zip(&total).for_each(|(pooled, total)| *pooled /= total);
    pooled
}

/// Carries the last inputs of every sequence in its ring; earlier ones would be overwritten.
fn keep(inputs: &[f32], width: usize, step_rows: &[StepRow], ring: &mut Rows<Buffer>) {
    for (values, row) in inputs.chunks(2 * width).zip(step_rows) {
        if (row.end - row.pos) as usize <= ring.per_slot {
            let at = ring.ring_at(row.slot, row.pos);
            ring.data.bytes_mut()[at..at + ring.row_bytes].copy_from_slice(bytemuck::cast_slice(values));
        }
    }
}
