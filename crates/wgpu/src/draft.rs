//! Stages `keep_streams` and `draft_embed`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{DraftEmbedWeights, HC, Result, Rows, Step};

use crate::backend::Wgpu;
use crate::dense::{Matrix, Out, Product};
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    per_slot: u32,
    table: u32,
    first: u32,
    count: u32,
    format: u32,
    enorm: u32,
    hnorm: u32,
    pad: u32,
}

pub(crate) const KEEP: Kernel = Kernel::new("keep_streams", &["KEEP"]);
pub(crate) const NORM: Kernel = Kernel::new("draft_norm", &["NORM"]);
pub(crate) const ADD: Kernel = Kernel::new("draft_add", &["ADD"]);

const NOTHING: Args = Args { per_slot: 0, table: 0, first: 0, count: 0, format: 0, enorm: 0, hnorm: 0, pad: 0 };

pub(crate) fn keep_streams(gpu: &mut Wgpu, step: &Step<Buffer>, streams: &Buffer, hidden: &Rows<Buffer>) -> Result<()> {
    let args = Args { per_slot: hidden.per_slot as u32, ..NOTHING };
    gpu.dispatch(KEEP, [step.n as u32, 1, 1], &args, &[&step.rows, streams, &hidden.data])
}

pub(crate) fn draft_embed(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &DraftEmbedWeights<Weight>,
    table: &Weight,
    hidden: &Rows<Buffer>,
    streams: &Buffer,
) -> Result<()> {
    let n_embd = gpu.shape.n_embd;
    let n = step.n as u32;
    let (tokens, states, e) = (gpu.scratch.low.clone(), gpu.scratch.states.clone(), gpu.scratch.y.clone());
    let values = gpu.values.clone();
    for part in &table.parts {
        let args = Args {
            per_slot: hidden.per_slot as u32,
            table: part.codes,
            first: part.first as u32,
            count: part.rows as u32,
            format: table.format as u32,
            enorm: w.enorm.at(),
            hnorm: w.hnorm.at(),
            pad: 0,
        };
        let buffers = [&step.rows, &part.data, &values, &hidden.data, &tokens, &states];
        gpu.dispatch(NORM, [n, 1 + HC as u32, 1], &args, &buffers)?;
    }
    let rows = |data| Matrix { data, stride: n_embd };
    gpu.products(step.n, &[Product::new(&w.e_proj, 0)], rows(&tokens), Out::Rows(rows(&e)))?;
    gpu.products_of_each((step.n, HC), &[Product::new(&w.h_proj, 0)], rows(&states), Out::Rows(rows(streams)))?;
    gpu.dispatch(ADD, [n, 1, 1], &NOTHING, &[&e, streams])
}
