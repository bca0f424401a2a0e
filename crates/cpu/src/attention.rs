//! Stage `attend`: one online softmax over the window and the visible compressed rows, with a sink per head (model.md 5.2).

use ds4_model::{LayerKv, Queries, Step, StepRow, visible_rows};
use rayon::prelude::*;

use crate::{Buffer, Cpu, Weight, rope, rows};

/// Rows decoded and scored together. The blocks of a query start at its first visible row, so they do not depend on how
/// the batch was cut.
const BLOCK: usize = 32;

pub(crate) fn attend(
    cpu: &Cpu,
    step: &Step<Buffer>,
    sinks: &Weight,
    q: &Queries<Buffer>,
    kv: &LayerKv<Buffer>,
    selected: &Buffer,
    heads: &mut Buffer,
) {
    let (s, n) = (&cpu.shape, step.n);
    let width = s.n_head * s.head_dim;
    let step_rows = Cpu::rows(step);
    let (sinks, queries) = (sinks.values(cpu.isa), q.heads.floats(n * width));
    let selected = selected.view::<u32>(n * s.index_top_k);
    // A row is one task; where rows are fewer than threads its heads are shared out.
    let parts = rayon::current_num_threads().div_ceil(n).min(s.n_head);
    let per_task = s.n_head.div_ceil(parts);
    heads.floats_mut(n * width).par_chunks_mut(width).zip(queries.par_chunks(width)).enumerate().for_each(
        |(i, (out, query))| {
            let row = &step_rows[i];
            let view = View { cpu, kv, row, chosen: &selected[i * s.index_top_k..][..s.index_top_k] };
            out.par_chunks_mut(per_task * s.head_dim)
                .zip(query.par_chunks(per_task * s.head_dim))
                .zip(sinks.par_chunks(per_task))
                .for_each(|((out, query), sinks)| attend_heads(&view, query, sinks, out));
        },
    );
}

/// The cache as one query sees it.
struct View<'a> {
    cpu: &'a Cpu,
    kv: &'a LayerKv<Buffer>,
    row: &'a StepRow,
    chosen: &'a [u32],
}

impl View<'_> {
    fn ratio(&self) -> u32 {
        self.kv.compressed.as_ref().map_or(0, |c| c.ratio)
    }

    fn first_raw(&self) -> u32 {
        (self.row.pos + 1).saturating_sub(self.cpu.shape.window as u32)
    }

    fn raw(&self) -> usize {
        (self.row.pos + 1 - self.first_raw()) as usize
    }

    fn selects(&self) -> bool {
        self.ratio() == 4 && self.cpu.selects(self.row.pos)
    }

    /// Visible rows: window, then compressed.
    fn len(&self) -> usize {
        let compressed =
            if self.selects() { self.chosen.len() } else { visible_rows(self.row.pos, self.ratio()) as usize };
        self.raw() + compressed
    }

    /// Bytes of visible row `j`.
    fn bytes(&self, j: usize) -> &[u8] {
        let slot = self.row.slot;
        let (rows, at) = if j < self.raw() {
            let window = &self.kv.window;
            (window, window.ring_at(slot, self.first_raw() + j as u32))
        } else {
            let c = j - self.raw();
            let c = if self.selects() { self.chosen[c] } else { c as u32 };
            let rows = &self.kv.compressed.as_ref().expect("only compressing layers see more than the window").rows;
            (rows, rows.at(slot, c))
        };
        &rows.data.bytes()[at..at + rows.row_bytes]
    }
}

/// Attention of consecutive heads of one query. The sink is the softmax's first entry; it has no value.
fn attend_heads(view: &View<'_>, query: &[f32], sinks: &[f32], out: &mut [f32]) {
    let (s, isa) = (&view.cpu.shape, view.cpu.isa);
    let scale = 1.0 / (s.head_dim as f32).sqrt();
    let query: Vec<&[f32]> = query.chunks(s.head_dim).collect();
    let (mut max, mut total) = (sinks.to_vec(), vec![1f32; sinks.len()]);
    let (mut values, mut scores) = (vec![0f32; BLOCK * s.head_dim], vec![0f32; sinks.len() * BLOCK]);
    out.fill(0.0);
    for start in (0..view.len()).step_by(BLOCK) {
        let count = BLOCK.min(view.len() - start);
        let values = &mut values[..count * s.head_dim];
        for (j, value) in values.chunks_mut(s.head_dim).enumerate() {
            rows::decode(isa, view.cpu.numerics, s, view.bytes(start + j), value);
        }
        let scores = &mut scores[..sinks.len() * count];
        isa.products(values, s.head_dim, &query, scores);
        for (h, scores) in scores.chunks_mut(count).enumerate() {
            let highest = scores.iter().fold(max[h], |max, score| max.max(score * scale));
            let shrink = (max[h] - highest).exp();
            scores.iter_mut().for_each(|score| *score = (*score * scale - highest).exp());
            total[h] = total[h] * shrink + scores.iter().sum::<f32>();
            max[h] = highest;
            if shrink != 1.0 {
                out[h * s.head_dim..][..s.head_dim].iter_mut().for_each(|o| *o *= shrink);
            }
        }
        isa.mix(scores, values, s.head_dim, out);
    }
    let angles = rope::angles(view.cpu.rope.of(view.ratio()), view.row.pos);
    for (out, total) in out.chunks_mut(s.head_dim).zip(total) {
        out.iter_mut().for_each(|o| *o /= total);
        rope::rotate_back(out, &angles);
    }
}
