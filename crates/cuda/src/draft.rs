//! Stages `keep_streams` and `draft_embed`: the states a draft block starts from, and its input.

use bytemuck::{Pod, Zeroable};
use ds4_model::{DraftEmbedWeights, HC, Result, Step};

use crate::backend::{Cuda, small};
use crate::dense::{Family, Inputs, Product};
use crate::device::Buffer;
use crate::launch::{Grid, Rows};
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct KeepArgs {
    step: u64,
    streams: u64,
    hidden: Rows,
}
const _: () = assert!(size_of::<KeepArgs>() == 32);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DraftNormArgs {
    step: u64,
    table: u64,
    enorm: u64,
    hnorm: u64,
    token: u64,
    state: u64,
    hidden: Rows,
    rms_eps: f32,
    pad: u32,
}
const _: () = assert!(size_of::<DraftNormArgs>() == 72);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DraftAddArgs {
    e: u64,
    streams: u64,
}
const _: () = assert!(size_of::<DraftAddArgs>() == 16);

pub(crate) fn keep_streams(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    streams: &Buffer,
    hidden: &ds4_model::Rows<Buffer>,
) -> Result<()> {
    let args = KeepArgs { step: step.rows.ptr(), streams: streams.ptr(), hidden: hidden.into() };
    cuda.launch("keep_streams", Grid::new(step.n as u32, 1, 512), &args)
}

pub(crate) fn draft_embed(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &DraftEmbedWeights<Weight>,
    table: &Weight,
    hidden: &ds4_model::Rows<Buffer>,
    streams: &Buffer,
) -> Result<()> {
    let (n, n_embd) = (step.n, cuda.shape.n_embd);
    // Scratch of stages that do not run here: the token's row, its product, the normed states.
    let (token, e, state) = (cuda.scratch.y.ptr(), cuda.scratch.low.ptr(), cuda.scratch.sums.ptr());
    let args = DraftNormArgs {
        step: step.rows.ptr(),
        table: table.ptr(),
        enorm: w.enorm.ptr(),
        hnorm: w.hnorm.ptr(),
        token,
        state,
        hidden: hidden.into(),
        rms_eps: cuda.shape.rms_eps,
        pad: 0,
    };
    cuda.launch("draft_norm", Grid::new(n as u32, 1 + HC as u32, 256), &args)?;
    cuda.dense(Family::Embd, Inputs { x: token, width: n_embd }, &[Product::new(&w.e_proj, e)], n, small(n))?;
    // Every stream of the state is a row of its own.
    let states = Inputs { x: state, width: n_embd };
    cuda.dense(Family::Embd, states, &[Product::new(&w.h_proj, streams.ptr())], HC * n, small(n))?;
    cuda.launch("draft_add", Grid::new(n as u32, 1, 512), &DraftAddArgs { e, streams: streams.ptr() })
}
