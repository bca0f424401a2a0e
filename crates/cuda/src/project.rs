//! Stage `project`: every product of the attention input, and the window's ring rows.

use bytemuck::{Pod, Zeroable};
use ds4_gguf::DType;
use ds4_model::{LowRank, ProjectWeights, Result, Step};

use crate::backend::{Cuda, small};
use crate::dense::{Family, Inputs, Product, splits, tiles};
use crate::device::Buffer;
use crate::launch::{Grid, Rows};
use crate::weight::Weight;

/// Sums of a product's splits, `[splits][rows][outputs]`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Partial {
    sums: u64,
    splits: u32,
    stride: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ProjectArgs {
    step: u64,
    q: Partial,
    kv: Partial,
    value: Partial,
    gate: Partial,
    index_value: Partial,
    index_gate: Partial,
    index_weights: Partial,
    q_norm: u64,
    kv_norm: u64,
    frequencies: u64,
    ape: u64,
    index_ape: u64,
    low_q: u64,
    pooled: u64,
    index_pooled: u64,
    weights: u64,
    window: Rows,
    ratio: u32,
    rms_eps: f32,
}
const _: () = assert!(size_of::<ProjectArgs>() == 216);

/// Products of one launch and where their sums stand in scratch memory.
struct Sums<'a> {
    n: usize,
    next: u64,
    products: Vec<Product<'a>>,
}

impl<'a> Sums<'a> {
    fn add(&mut self, w: &'a Weight) -> Partial {
        let (dtype, m, k) = tiles(w);
        // Cut so that every unit of a launch has about the same bytes; long steps need no cuts.
        let splits = if small(self.n) { splits(k, if dtype == DType::F16 { 4 } else { 2 }) } else { 1 };
        let stride = self.n * m;
        let sums = self.next;
        self.products.push(Product { splits, split_stride: stride, ..Product::new(w, sums) });
        self.next += (4 * splits * stride).next_multiple_of(16) as u64;
        Partial { sums, splits: splits as u32, stride: stride as u32 }
    }
}

pub(crate) fn project(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &ProjectWeights<Weight>,
    x: &Buffer,
    low: &LowRank<Buffer>,
    window: &ds4_model::Rows<Buffer>,
) -> Result<()> {
    let mut sums = Sums { n: step.n, next: cuda.scratch.sums.ptr(), products: Vec::new() };
    let mut args = ProjectArgs {
        step: step.rows.ptr(),
        q: sums.add(&w.q_a),
        kv: sums.add(&w.kv),
        q_norm: w.q_a_norm.ptr(),
        kv_norm: w.kv_a_norm.ptr(),
        frequencies: cuda.frequencies(w.ratio),
        low_q: low.q.ptr(),
        pooled: low.pooled.ptr(),
        index_pooled: low.index_pooled.ptr(),
        weights: low.index_weights.ptr(),
        window: window.into(),
        ratio: w.ratio,
        rms_eps: cuda.shape.rms_eps,
        ..ProjectArgs::zeroed()
    };
    let mut roles = 2;
    if let Some(pooled) = &w.pooled {
        (args.value, args.gate, args.ape) = (sums.add(&pooled.kv), sums.add(&pooled.gate), pooled.ape.ptr());
        roles = 3;
    }
    if let Some(index) = &w.index {
        args.index_weights = sums.add(&index.proj);
        (args.index_value, args.index_gate) = (sums.add(&index.pooled.kv), sums.add(&index.pooled.gate));
        args.index_ape = index.pooled.ape.ptr();
        roles = 4;
    }
    let inputs = Inputs { x: x.ptr(), width: cuda.shape.n_embd };
    cuda.dense(Family::Embd, inputs, &sums.products, step.n, small(step.n))?;
    cuda.launch("project_finish", Grid::new(step.n as u32, roles, 128), &args)
}
