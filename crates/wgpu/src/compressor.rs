//! Stage `compress`.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Compressed, CompressorWeights, LowRank, Result, Rows, Step};

use crate::backend::Wgpu;
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    ratio: u32,
    norm: u32,
    rope: u32,
    rows_per_slot: u32,
    frontier_per_slot: u32,
    keeps: u32,
    pad: [u32; 2],
}

pub(crate) const APPEND: Kernel = Kernel::new("compress_append", &["APPEND", "CACHE"]).variant(512);
pub(crate) const KEEP: Kernel = Kernel::new("compress_keep", &[]).variant(512);
pub(crate) const INDEX_APPEND: Kernel = Kernel::new("compress_append", &["APPEND", "CACHE", "INDEXED"]).variant(128);
pub(crate) const INDEX_KEEP: Kernel = Kernel::new("compress_keep", &[]).variant(128);

pub(crate) fn compress(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &CompressorWeights<Weight>,
    low: &LowRank<Buffer>,
    out: &Compressed<Buffer>,
) -> Result<()> {
    let site = Site { ratio: w.ratio, norm: &w.norm, inputs: &low.pooled, ring: &out.frontier, rows: &out.rows };
    one(gpu, step, &site, [APPEND, KEEP])?;
    if let (Some(norm), Some(index)) = (&w.index_norm, &out.index) {
        let (ring, rows) = (&index.frontier, &index.rows);
        one(
            gpu,
            step,
            &Site { ratio: w.ratio, norm, inputs: &low.index_pooled, ring, rows },
            [INDEX_APPEND, INDEX_KEEP],
        )?;
    }
    Ok(())
}

struct Site<'a> {
    ratio: u32,
    norm: &'a Weight,
    inputs: &'a Buffer,
    ring: &'a Rows<Buffer>,
    rows: &'a Rows<Buffer>,
}

fn one(gpu: &mut Wgpu, step: &Step<Buffer>, site: &Site<'_>, [append, keep]: [Kernel; 2]) -> Result<()> {
    let args = Args {
        ratio: site.ratio,
        norm: site.norm.at(),
        rope: 0,
        rows_per_slot: site.rows.per_slot as u32,
        frontier_per_slot: site.ring.per_slot as u32,
        keeps: u32::from(gpu.one_row_each),
        pad: [0; 2],
    };
    let (values, rope) = (gpu.values.clone(), gpu.rope(site.ratio));
    let grid = [step.n as u32, 1, 1];
    let buffers = [&step.rows, &values, &rope, site.inputs, &site.ring.data, &site.rows.data];
    gpu.dispatch(append, grid, &args, &buffers)?;
    if !gpu.one_row_each {
        // Rows of a long span take the places of inputs that others of it still need.
        gpu.dispatch(keep, grid, &args, &[&step.rows, site.inputs, &site.ring.data])?;
    }
    Ok(())
}
