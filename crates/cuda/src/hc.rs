//! Stage `hc_pre`, the collapse of the head, and the post step of long steps.

use bytemuck::{Pod, Zeroable};
use ds4_model::{HC, HeadWeights, HyperConnection, Result, Step};

use crate::backend::{Cuda, small};
use crate::device::Buffer;
use crate::launch::Grid;
use crate::weight::{Layout, Weight};

/// Post weights and Sinkhorn matrix of one row.
pub(crate) const MIX: usize = HC + HC * HC;

/// Columns of a part of a row's products.
const COLUMNS: usize = 128;
/// Floats of a part's sums.
const PARTIAL: usize = 32;
/// Rows of a block on the tensor cores.
const ROWS: usize = 8;

/// Floats of sums for the most rows of a step, and of the products they add up to.
pub(crate) fn partial_floats(n_embd: usize, rows: usize) -> usize {
    PARTIAL * rows * (n_embd / COLUMNS + 1)
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HcArgs {
    step: u64,
    mix_fn: u64,
    scale: u64,
    base: u64,
    norm: u64,
    streams: u64,
    partial: u64,
    x: u64,
    m: u64,
    n: u32,
    parts: u32,
    rms_eps: f32,
    hc_eps: f32,
}
const _: () = assert!(size_of::<HcArgs>() == 88);

/// What makes a sublayer's mixing weights of its products; zeros where another kernel does.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct MixArgs {
    m: u64,
    scale: u64,
    base: u64,
    mix: u64,
    sinkhorn_iters: u32,
    hc_eps: f32,
}
const _: () = assert!(size_of::<MixArgs>() == 40);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HcPostArgs {
    y: u64,
    mix: u64,
    streams: u64,
}
const _: () = assert!(size_of::<HcPostArgs>() == 24);

/// `x` and `mix` from `streams`. A recorded step leaves `mix` to the kernel that finishes the next stage.
pub(crate) fn pre(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &HyperConnection<Weight>,
    streams: &Buffer,
    x: &Buffer,
    mix: &Buffer,
) -> Result<()> {
    let mut args = HcArgs {
        mix_fn: w.mix.ptr(),
        scale: w.scale.ptr(),
        base: w.base.ptr(),
        norm: w.norm.ptr(),
        streams: streams.ptr(),
        x: x.ptr(),
        ..common(cuda, step)
    };
    let wide = w.mix.layout == Layout::Values;
    if small(step.n) || wide {
        let name = if wide { "hc_products_f32" } else { "hc_products" };
        cuda.launch(name, Grid::new(args.parts, args.n, 64), &args)?;
    } else {
        args.parts = 1;
        cuda.launch("hc_products_rows", Grid::new(step.n.div_ceil(ROWS) as u32, 1, 512), &args)?;
    }
    cuda.launch("hc_collapse", Grid::new(args.n, 1, 544), &args)?;
    let mix = MixArgs {
        m: args.m,
        scale: args.scale,
        base: args.base,
        mix: mix.ptr(),
        sinkhorn_iters: cuda.shape.sinkhorn_iters as u32,
        hc_eps: args.hc_eps,
    };
    if cuda.recording {
        cuda.mix = Some(mix);
        return Ok(());
    }
    cuda.launch("hc_mix", Grid::new(args.n, 1, 32), &mix)
}

/// Collapsed and normed rows of the logits that are wanted: `x [logits][n_embd]`.
pub(crate) fn head(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &HeadWeights<Weight>,
    streams: &Buffer,
    x: u64,
) -> Result<()> {
    let args = HcArgs {
        mix_fn: w.mix.ptr(),
        scale: w.scale.ptr(),
        base: w.base.ptr(),
        norm: w.norm.ptr(),
        streams: streams.ptr(),
        x,
        ..common(cuda, step)
    };
    let wide = w.mix.layout == Layout::Values;
    let name = if wide { "hc_head_products_f32" } else { "hc_head_products" };
    cuda.launch(name, Grid::new(args.parts, args.n, 64), &args)?;
    cuda.launch("hc_head_collapse", Grid::new(args.n, 1, 544), &args)
}

/// `X'[b] = post_b y + sum_a C[a][b] X[a]` for every row.
pub(crate) fn post(cuda: &mut Cuda, n: usize, y: u64, mix: &Buffer, streams: &Buffer) -> Result<()> {
    let args = HcPostArgs { y, mix: mix.ptr(), streams: streams.ptr() };
    cuda.launch("hc_post", Grid::new(n as u32, 1, 512), &args)
}

fn common(cuda: &Cuda, step: &Step<Buffer>) -> HcArgs {
    let s = &cuda.shape;
    let (partial, parts) = (cuda.scratch.partial.ptr(), s.n_embd / COLUMNS);
    HcArgs {
        step: step.rows.ptr(),
        partial,
        m: partial + (4 * PARTIAL * step.n * parts) as u64,
        n: step.n as u32,
        parts: parts as u32,
        rms_eps: s.rms_eps,
        hc_eps: s.hc_eps,
        ..HcArgs::zeroed()
    }
}
