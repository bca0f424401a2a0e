//! Stages `attn_output` and `head`: from heads back to streams, from streams to logits (model.md 5.4, 9).

use ds4_model::{AttnOutputWeights, HC, HeadWeights, NO_LOGITS, Step};
use rayon::prelude::*;

use crate::dot::{Out, Product, run};
use crate::hc::{MIX, collapse, hc_post, head_weights};
use crate::norm::rms_weighted;
use crate::{Buffer, Cpu, Weight};

pub(crate) fn head(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &HeadWeights<Weight>,
    output: &Weight,
    streams: &Buffer,
    logits: &mut Buffer,
) {
    let (s, isa, width) = (&cpu.shape, cpu.isa, HC * cpu.shape.n_embd);
    let streams = streams.floats(step.n * width);
    // Rows that want logits, in the order of their logits.
    let mut wanted: Vec<(u32, &[f32])> =
        Cpu::rows(step).iter().zip(streams.chunks(width)).map(|(row, streams)| (row.logits, streams)).collect();
    wanted.retain(|(at, _)| *at != NO_LOGITS);
    wanted.sort_by_key(|(at, _)| *at);
    let xs: Vec<&[f32]> = wanted.into_iter().map(|(_, streams)| streams).collect();
    let mut m = vec![0f32; xs.len() * HC];
    run(isa, &[Product::new(w.mix.matrix(), &xs, Out::new(&mut m, HC))]);
    let (scale, base, norm) = (w.scale.values(isa), w.base.values(isa), w.norm.values(isa));
    let mut x = vec![0f32; xs.len() * s.n_embd];
    x.par_chunks_mut(s.n_embd).zip(m.par_chunks(HC)).zip(&xs).for_each(|((x, m), streams)| {
        collapse(streams, &head_weights(isa, m, streams, scale[0], base, (s.rms_eps, s.hc_eps)), x);
        rms_weighted(isa, x, norm, s.rms_eps);
    });
    let xs: Vec<&[f32]> = x.chunks(s.n_embd).collect();
    let out = Out::new(logits.floats_mut(xs.len() * s.n_vocab), s.n_vocab);
    run(isa, &[Product::new(output.matrix(), &xs, out)]);
}

pub(crate) fn attn_output(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &AttnOutputWeights<Weight>,
    heads: &Buffer,
    mix: &Buffer,
    streams: &mut Buffer,
) {
    let (s, n) = (&cpu.shape, step.n);
    let (width, group_width) = (s.n_head * s.head_dim, s.n_head * s.head_dim / s.n_out_group);
    let heads = heads.floats(n * width);
    let groups: Vec<Vec<&[f32]>> = (0..s.n_out_group)
        .map(|g| heads.chunks(width).map(|row| &row[g * group_width..][..group_width]).collect())
        .collect();
    let low_width = s.n_out_group * s.out_lora_dim;
    let mut low = vec![0f32; n * low_width];
    let outs = Out::groups(&mut low, s.n_out_group, s.out_lora_dim);
    let products: Vec<Product<'_>> = groups
        .iter()
        .zip(outs)
        .enumerate()
        .map(|(g, (xs, out))| {
            let rows = g * s.out_lora_dim..(g + 1) * s.out_lora_dim;
            Product { w: w.a.matrix(), rows, xs, out }
        })
        .collect();
    run(cpu.isa, &products);
    drop(products);
    let xs: Vec<&[f32]> = low.chunks(low_width).collect();
    let mut y = vec![0f32; n * s.n_embd];
    run(cpu.isa, &[Product::new(w.b.matrix(), &xs, Out::new(&mut y, s.n_embd))]);
    hc_post(&y, mix.floats(n * MIX), streams.floats_mut(n * HC * s.n_embd), s.n_embd);
}
