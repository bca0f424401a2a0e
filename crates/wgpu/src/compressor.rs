//! Stage `compress`: both compressors of a layer side by side, beside the products of `query` if those wait.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Compressed, CompressorWeights, LowRank, Result, Rows, Step};

use crate::backend::Wgpu;
use crate::device::Buffer;
use crate::program::{BATCH, Kernel};
use crate::weight::Weight;

/// As `Site` in `compressor.wgsl`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Site {
    norm: u32,
    rows_per_slot: u32,
    frontier_per_slot: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    ratio: u32,
    keeps: u32,
    attention: Site,
    indexer: Site,
}

pub(crate) const APPEND: Kernel = Kernel::new("compress_append", &["APPEND", "CACHE"]);
pub(crate) const KEEP: Kernel = Kernel::new("compress_keep", &[]);
pub(crate) const BOTH_APPEND: Kernel = Kernel::new("compress_append", &["APPEND", "CACHE", "INDEX_CACHE"]);
pub(crate) const BOTH_KEEP: Kernel = Kernel::new("compress_keep", &["INDEX_CACHE"]);

/// Beside the products of `query`, of one row and of several.
pub(crate) const JOINED: [Kernel; 2] = [
    Kernel::new("dense", &["QUERY", "FUSED", "JOINED", "APPEND", "CACHE"]),
    Kernel::new("dense", &["QUERY", "FUSED", "JOINED", "APPEND", "CACHE", "MANY"]).variant(BATCH),
];
pub(crate) const BOTH_JOINED: [Kernel; 2] = [
    Kernel::new("dense", &["QUERY", "FUSED", "JOINED", "APPEND", "CACHE", "INDEX_CACHE"]),
    Kernel::new("dense", &["QUERY", "FUSED", "JOINED", "APPEND", "CACHE", "INDEX_CACHE", "MANY"]).variant(BATCH),
];

pub(crate) fn compress(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &CompressorWeights<Weight>,
    low: &LowRank<Buffer>,
    out: &Compressed<Buffer>,
) -> Result<()> {
    let index = w.index_norm.as_ref().zip(out.index.as_ref());
    let args = Args {
        ratio: w.ratio,
        keeps: u32::from(gpu.one_row_each),
        attention: site(&w.norm, &out.rows, &out.frontier),
        indexer: index.map_or(Site::zeroed(), |(norm, index)| site(norm, &index.rows, &index.frontier)),
    };
    let (values, rope) = (gpu.values.clone(), gpu.rope(w.ratio));
    let mut append = vec![&step.rows, &rope, &low.pooled, &out.frontier.data, &values, &out.rows.data];
    let mut keep = vec![&step.rows, &low.pooled, &out.frontier.data];
    if let Some((_, index)) = index {
        append.extend([&low.index_pooled, &index.frontier.data, &index.rows.data]);
        keep.extend([&low.index_pooled, &index.frontier.data]);
    }
    let (kernels, joined) =
        if index.is_some() { ([BOTH_APPEND, BOTH_KEEP], BOTH_JOINED) } else { ([APPEND, KEEP], JOINED) };
    let across = 1 + u32::from(index.is_some());
    if gpu.one_row_each && gpu.join(joined, across, bytemuck::cast(args), &append[2..])? {
        return Ok(());
    }
    let grid = [step.n as u32, across, 1];
    gpu.dispatch(kernels[0], grid, &args, &append)?;
    if gpu.one_row_each {
        return Ok(());
    }
    // Rows of a long span take the places of inputs that others of it still need.
    gpu.dispatch(kernels[1], grid, &args, &keep)
}

fn site(norm: &Weight, rows: &Rows<Buffer>, ring: &Rows<Buffer>) -> Site {
    Site { norm: norm.at(), rows_per_slot: rows.per_slot as u32, frontier_per_slot: ring.per_slot as u32 }
}
