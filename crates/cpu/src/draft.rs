//! Stages `keep_streams` and `draft_embed`: the states a draft block starts from, and its input (model.md 12.1).

use ds4_model::{DraftEmbedWeights, HC, Rows, Step};
use rayon::prelude::*;

use crate::dot::{Out, Product, run};
use crate::norm::rms_weighted;
use crate::{Buffer, Cpu, Weight};

pub(crate) fn keep_streams(cpu: &Cpu, step: &Step<Buffer>, streams: &Buffer, hidden: &mut Rows<Buffer>) {
    let width = HC * cpu.shape.n_embd;
    for (streams, row) in streams.floats(step.n * width).chunks(width).zip(Cpu::rows(step)) {
        if (row.end - row.pos) as usize <= hidden.per_slot {
            let at = hidden.ring_at(row.slot, row.state);
            hidden.data.bytes_mut()[at..at + hidden.row_bytes].copy_from_slice(bytemuck::cast_slice(streams));
        }
    }
}

pub(crate) fn draft_embed(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &DraftEmbedWeights<Weight>,
    table: &Weight,
    hidden: &Rows<Buffer>,
    streams: &mut Buffer,
) {
    let (s, n, isa) = (&cpu.shape, step.n, cpu.isa);
    let (width, rows) = (HC * s.n_embd, Cpu::rows(step));
    let (enorm, hnorm) = (w.enorm.values(isa), w.hnorm.values(isa));
    let mut tokens = vec![0f32; n * s.n_embd];
    tokens.par_chunks_mut(s.n_embd).zip(rows).for_each(|(x, row)| {
        table.matrix().decode_row(isa, row.token as usize, x);
        rms_weighted(isa, x, enorm, s.rms_eps);
    });
    let mut states = vec![0f32; n * width];
    states.par_chunks_mut(width).zip(rows).for_each(|(xs, row)| {
        let at = hidden.ring_at(row.slot, row.pos);
        xs.copy_from_slice(bytemuck::cast_slice(&hidden.data.bytes()[at..at + hidden.row_bytes]));
        xs.chunks_mut(s.n_embd).for_each(|x| rms_weighted(isa, x, hnorm, s.rms_eps));
    });
    let token_rows: Vec<&[f32]> = tokens.chunks(s.n_embd).collect();
    let state_rows: Vec<&[f32]> = states.chunks(s.n_embd).collect();
    let mut e = vec![0f32; n * s.n_embd];
    let streams = streams.floats_mut(n * width);
    run(
        isa,
        &[
            Product::new(w.e_proj.matrix(), &token_rows, Out::new(&mut e, s.n_embd)),
            Product::new(w.h_proj.matrix(), &state_rows, Out::new(streams, s.n_embd)),
        ],
    );
    streams.par_chunks_mut(width).zip(e.par_chunks(s.n_embd)).for_each(|(streams, e)| {
        for stream in streams.chunks_mut(s.n_embd) {
            stream.iter_mut().zip(e).for_each(|(x, e)| *x += e);
        }
    });
}
