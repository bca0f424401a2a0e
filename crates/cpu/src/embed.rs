//! Stage `embed`: the token's row in every stream (model.md 3).

use ds4_model::{HC, Step};
use rayon::prelude::*;

use crate::{Buffer, Cpu, Weight};

pub(crate) fn embed(cpu: &Cpu, step: &Step<Buffer>, table: &Weight, streams: &mut Buffer) {
    let n_embd = cpu.shape.n_embd;
    let rows = Cpu::rows(step);
    streams.floats_mut(step.n * HC * n_embd).par_chunks_mut(HC * n_embd).zip(rows).for_each(|(streams, row)| {
        let (first, rest) = streams.split_at_mut(n_embd);
        table.matrix().decode_row(cpu.isa, row.token as usize, first);
        rest.chunks_mut(n_embd).for_each(|stream| stream.copy_from_slice(first));
    });
}
