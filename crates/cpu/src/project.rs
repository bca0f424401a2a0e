//! Stage `project`: every product of the attention input, and the window's ring rows (model.md 5.1, 6.1, 7).

use ds4_model::{LowRank, PooledProjection, ProjectWeights, Rows, Shape, Step, StepRow};
use rayon::prelude::*;

use crate::dot::{Isa, Out, Product, run};
use crate::norm::rms_weighted;
use crate::{Buffer, Cpu, Weight, rope, rows};

pub(crate) fn project(
    cpu: &Cpu,
    step: &Step<Buffer>,
    w: &ProjectWeights<Weight>,
    x: &Buffer,
    low: &mut LowRank<Buffer>,
    window: &mut Rows<Buffer>,
) {
    let (s, n, isa) = (&cpu.shape, step.n, cpu.isa);
    let step_rows = Cpu::rows(step);
    let xs: Vec<&[f32]> = x.floats(n * s.n_embd).chunks(s.n_embd).collect();
    let mut kv = vec![0f32; n * s.head_dim];
    let pooled_dim = Shape::pooled_dim(w.ratio, s.head_dim);
    let index_dim = Shape::pooled_dim(w.ratio, s.index_dim);
    let mut products = vec![
        Product::new(w.q_a.matrix(), &xs, Out::new(low.q.floats_mut(n * s.q_lora_dim), s.q_lora_dim)),
        Product::new(w.kv.matrix(), &xs, Out::new(&mut kv, s.head_dim)),
    ];
    if let Some(pooled) = &w.pooled {
        products.extend(pooled_products(pooled, &xs, low.pooled.floats_mut(2 * n * pooled_dim), pooled_dim));
    }
    if let Some(index) = &w.index {
        let weights = low.index_weights.floats_mut(n * s.n_index_head);
        products.push(Product::new(index.proj.matrix(), &xs, Out::new(weights, s.n_index_head)));
        let out = low.index_pooled.floats_mut(2 * n * index_dim);
        products.extend(pooled_products(&index.pooled, &xs, out, index_dim));
    }
    run(isa, &products);
    drop(products);
    let norm = w.q_a_norm.values(isa);
    let q = low.q.floats_mut(n * s.q_lora_dim);
    q.par_chunks_mut(s.q_lora_dim).for_each(|q| rms_weighted(isa, q, norm, s.rms_eps));
    if let Some(pooled) = &w.pooled {
        add_position_bias(isa, pooled, low.pooled.floats_mut(2 * n * pooled_dim), step_rows, w.ratio);
    }
    if let Some(index) = &w.index {
        add_position_bias(isa, &index.pooled, low.index_pooled.floats_mut(2 * n * index_dim), step_rows, w.ratio);
        let scale = 1.0 / ((s.index_dim * s.n_index_head) as f32).sqrt();
        low.index_weights.floats_mut(n * s.n_index_head).iter_mut().for_each(|weight| *weight *= scale);
    }
    write_window(cpu, w, step_rows, &mut kv, window);
}

/// Value and gate of every row, side by side.
fn pooled_products<'a>(
    w: &'a PooledProjection<Weight>,
    xs: &'a [&'a [f32]],
    out: &'a mut [f32],
    width: usize,
) -> [Product<'a>; 2] {
    let [kv, gate] = Out::columns(out, [width, width]);
    [Product::new(w.kv.matrix(), xs, kv), Product::new(w.gate.matrix(), xs, gate)]
}

fn add_position_bias(isa: Isa, w: &PooledProjection<Weight>, pooled: &mut [f32], rows: &[StepRow], ratio: u32) {
    let ape = w.ape.values(isa);
    let width = ape.len() / ratio as usize;
    for (pooled, row) in pooled.chunks_mut(2 * width).zip(rows) {
        let bias = &ape[(row.pos % ratio) as usize * width..][..width];
        pooled[width..].iter_mut().zip(bias).for_each(|(gate, bias)| *gate += bias);
    }
}

/// Norm, rotation, rounding, and the row's place in the ring.
fn write_window(
    cpu: &Cpu,
    w: &ProjectWeights<Weight>,
    step_rows: &[StepRow],
    kv: &mut [f32],
    window: &mut Rows<Buffer>,
) {
    let s = &cpu.shape;
    let norm = w.kv_a_norm.values(cpu.isa);
    kv.par_chunks_mut(s.head_dim).zip(step_rows).for_each(|(kv, row)| {
        rms_weighted(cpu.isa, kv, norm, s.rms_eps);
        rope::rotate(kv, &rope::angles(cpu.rope.of(w.ratio), row.pos));
    });
    for (kv, row) in kv.chunks_mut(s.head_dim).zip(step_rows) {
        let at = window.ring_at(row.slot, row.pos);
        rows::encode(cpu.numerics, s, kv, &mut window.data.bytes_mut()[at..at + window.row_bytes]);
    }
}
