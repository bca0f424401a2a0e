//! Stage `project`: every product of the attention input in one dispatch, then what becomes of them.

use bytemuck::{Pod, Zeroable};
use ds4_model::{LowRank, ProjectWeights, Result, Rows, Shape, Step};

use crate::backend::Wgpu;
use crate::dense::{Finish, Matrix, Out, Product};
use crate::device::Buffer;
use crate::program::{BATCH, Kernel};
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Own {
    pooled: u32,
    index_pooled: u32,
    ratio: u32,
    per_slot: u32,
    q_norm: u32,
    kv_norm: u32,
    ape: u32,
    index_ape: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    stride: u32,
    pad: [u32; 3],
    own: Own,
}

pub(crate) const PROJECT: Kernel = Kernel::new("project", &["CACHE"]);
pub(crate) const FUSED: [Kernel; 2] = [
    Kernel::new("dense", &["PROJECT", "CACHE", "FUSED"]),
    Kernel::new("dense", &["PROJECT", "CACHE", "FUSED", "MANY"]).variant(BATCH),
];

pub(crate) fn project(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &ProjectWeights<Weight>,
    x: &Buffer,
    low: &LowRank<Buffer>,
    window: &Rows<Buffer>,
) -> Result<()> {
    let n_embd = gpu.shape.n_embd;
    let pooled = Shape::pooled_dim(w.ratio, gpu.shape.head_dim);
    let index_pooled = Shape::pooled_dim(w.ratio, gpu.shape.index_dim);
    let mut products = Vec::new();
    let mut total = 0;
    let mut add = |w| {
        products.push(Product::new(w, total));
        total += w.m;
    };
    add(&w.q_a);
    add(&w.kv);
    if let Some(pooled) = &w.pooled {
        add(&pooled.kv);
        add(&pooled.gate);
    }
    if let Some(index) = &w.index {
        add(&index.proj);
        add(&index.pooled.kv);
        add(&index.pooled.gate);
    }
    let own = Own {
        pooled: if w.pooled.is_some() { pooled as u32 } else { 0 },
        index_pooled: if w.index.is_some() { index_pooled as u32 } else { 0 },
        ratio: w.ratio,
        per_slot: window.per_slot as u32,
        q_norm: w.q_a_norm.at(),
        kv_norm: w.kv_a_norm.at(),
        ape: w.pooled.as_ref().map_or(0, |pooled| pooled.ape.at()),
        index_ape: w.index.as_ref().map_or(0, |index| index.pooled.ape.at()),
    };
    let (sums, values, rope) = (gpu.scratch.sums.clone(), gpu.values.clone(), gpu.rope(w.ratio));
    let tickets = gpu.scratch.tickets.clone();
    let buffers =
        [&step.rows, &sums, &values, &rope, &low.q, &window.data, &low.pooled, &low.index_pooled, &low.index_weights];
    let input = Matrix { data: x, stride: n_embd };
    if gpu.finishes(step.n, &products) {
        let buffers = &[&buffers[..], &[&tickets]].concat();
        let finish = Finish { kernels: FUSED, own: bytemuck::cast(own), stride: total, waits: false, buffers };
        return gpu.products(step.n, &products, input, Out::Finished(finish));
    }
    gpu.products(step.n, &products, input, Out::Rows(Matrix { data: &sums, stride: total }))?;
    let tasks = if w.pooled.is_some() { 3 } else { 2 };
    gpu.dispatch(PROJECT, [step.n as u32, tasks, 1], &Args { stride: total as u32, pad: [0; 3], own }, &buffers)
}
