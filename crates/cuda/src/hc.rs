//! Stage `hc_pre`, the collapse of the head, and the post step of long steps.

use bytemuck::{Pod, Zeroable};
use ds4_model::{HC, HeadWeights, HyperConnection, Result, Step};

use crate::backend::Cuda;
use crate::device::Buffer;
use crate::launch::Grid;
use crate::weight::{Layout, Weight};

/// Post weights and Sinkhorn matrix of one row.
pub(crate) const MIX: usize = HC + HC * HC;

/// Threads of a block of `hc.cu`.
const THREADS: u32 = 128;
/// Blocks that share a row, on cards with clusters.
const PARTS: u32 = 8;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HcArgs {
    step: u64,
    mix_fn: u64,
    scale: u64,
    base: u64,
    norm: u64,
    streams: u64,
    x: u64,
    mix: u64,
    n: u32,
    groups: u32,
    sinkhorn_iters: u32,
    rms_eps: f32,
    hc_eps: f32,
    pad: u32,
}
const _: () = assert!(size_of::<HcArgs>() == 88);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HcPostArgs {
    y: u64,
    mix: u64,
    streams: u64,
}
const _: () = assert!(size_of::<HcPostArgs>() == 24);

/// `x` and `mix` from `streams`.
pub(crate) fn pre(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &HyperConnection<Weight>,
    streams: &Buffer,
    x: &Buffer,
    mix: &Buffer,
) -> Result<()> {
    let args = HcArgs {
        step: step.rows.ptr(),
        mix_fn: w.mix.ptr(),
        scale: w.scale.ptr(),
        base: w.base.ptr(),
        norm: w.norm.ptr(),
        streams: streams.ptr(),
        x: x.ptr(),
        mix: mix.ptr(),
        ..common(cuda, step)
    };
    collapse(cuda, &w.mix, ["hc_pre", "hc_pre_f32"], HC + MIX, args)
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
        step: step.rows.ptr(),
        mix_fn: w.mix.ptr(),
        scale: w.scale.ptr(),
        base: w.base.ptr(),
        norm: w.norm.ptr(),
        streams: streams.ptr(),
        x,
        ..common(cuda, step)
    };
    collapse(cuda, &w.mix, ["hc_head", "hc_head_f32"], HC, args)
}

/// `X'[b] = post_b y + sum_a C[a][b] X[a]` for every row.
pub(crate) fn post(cuda: &mut Cuda, n: usize, y: u64, mix: &Buffer, streams: &Buffer) -> Result<()> {
    let args = HcPostArgs { y, mix: mix.ptr(), streams: streams.ptr() };
    cuda.launch("hc_post", Grid::new(n as u32, 1, 512), &args)
}

fn common(cuda: &Cuda, step: &Step<Buffer>) -> HcArgs {
    let s = &cuda.shape;
    HcArgs {
        n: step.n as u32,
        sinkhorn_iters: s.sinkhorn_iters as u32,
        rms_eps: s.rms_eps,
        hc_eps: s.hc_eps,
        ..HcArgs::zeroed()
    }
}

/// `names` are the kernels for float16 and float32 mixing weights.
fn collapse(cuda: &mut Cuda, fn_w: &Weight, names: [&str; 2], outputs: usize, args: HcArgs) -> Result<()> {
    let wide = fn_w.layout == Layout::Values;
    let parts = if cuda.device.capability.0 < 9 { 1 } else { PARTS };
    // Two blocks of a multiprocessor at a time; short steps have a group for each row.
    let groups = args.n.min((2 * cuda.device.sms / parts).max(1));
    let weights = if parts == 1 || wide { 2 * HC * 8 } else { 2 * outputs * HC * cuda.shape.n_embd / parts as usize };
    let shared = weights + 4 * (outputs + 1) * (THREADS / 32) as usize + 2 * 4 * 32 + 4 * 32 + 4 * 8 + 64;
    let grid = Grid { cluster: parts, ..Grid::new(parts * groups, 1, THREADS).shared(shared) };
    cuda.launch(names[usize::from(wide)], grid, &HcArgs { groups, ..args })
}
