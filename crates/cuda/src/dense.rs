//! Products with tiled weights: few rows by the streaming kernels of `dense.cu`, many by the matrix kernels of `gemm.cu`.

use bytemuck::{Pod, Zeroable};
use ds4_gguf::DType;
use ds4_model::Result;

use crate::backend::Cuda;
use crate::launch::Grid;
use crate::weight::{Layout, TILE_ROWS, Weight};

/// Rows of one launch of `dense.cu`.
const LAUNCH_ROWS: usize = 32;
const MAX_SEGMENTS: usize = 16;
/// Consumer warps, and the warp that fills the ring.
const WARPS: usize = 16;
const THREADS: u32 = 32 * (WARPS as u32 + 1);
/// Bytes of a slot of the ring.
const SLOT: usize = WARPS * 1088;
/// One row: units of a block whose sums wait for each other.
const KEPT: usize = 16;
/// Rows that every block converts by itself; more are packed once.
const UNPACKED_ROWS: usize = 4;

/// The inputs that `dense.cu` is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Products of a sublayer's input, and the vocabulary.
    Embd,
    /// Products of the low-rank query.
    Lora,
    /// The first half of attention's output, group by group.
    Group,
    /// The second half.
    Low,
    /// Products of an expert's middle.
    Ff,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Family::Embd => "dense_embd",
            Family::Lora => "dense_lora",
            Family::Group => "dense_group",
            Family::Low => "dense_low",
            Family::Ff => "dense_ff",
        }
    }
}

/// Activations `[rows][width]`, float32.
#[derive(Clone, Copy)]
pub(crate) struct Inputs {
    pub(crate) x: u64,
    pub(crate) width: usize,
}

/// One product of a launch: `out[split][row][..] = w x[row]`. Widths are floats.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) w: &'a Weight,
    /// First row block of `w`, and outputs from there on.
    pub(crate) rows: (usize, usize),
    /// First input of a row.
    pub(crate) x_at: usize,
    pub(crate) out: u64,
    pub(crate) out_stride: usize,
    /// Parts of the inputs whose sums are left for the reader to add; see [`splits`].
    pub(crate) splits: usize,
    /// Floats between the sums of two splits.
    pub(crate) split_stride: usize,
}

impl<'a> Product<'a> {
    /// All outputs of `w`, unsplit, densely packed.
    pub(crate) fn new(w: &'a Weight, out: u64) -> Product<'a> {
        let (_, m, _) = tiles(w);
        Product { w, rows: (0, m), x_at: 0, out, out_stride: m, splits: 1, split_stride: 0 }
    }
}

/// Type, outputs and inputs of a tiled weight.
pub(crate) fn tiles(w: &Weight) -> (DType, usize, usize) {
    match w.layout {
        Layout::Tiles { dtype, k, m, .. } => (dtype, m, k),
        other => unreachable!("a product with {other:?}: the class decides the layout"),
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Segment {
    w: u64,
    x: u64,
    out: u64,
    x_stride: u32,
    out_stride: u32,
    m: u32,
    groups: u32,
    splits: u32,
    split_stride: u32,
    f16: u32,
    cost: u32,
    first_cost: u32,
    pad: u32,
}
const _: () = assert!(size_of::<Segment>() == 64);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DenseArgs {
    n_segments: u32,
    n: u32,
    units: u32,
    share: u32,
    rest: u32,
    pad: u32,
    first_unit: [u32; MAX_SEGMENTS],
    mix: u64,
    streams: u64,
    segments: [Segment; MAX_SEGMENTS],
}
const _: () = assert!(size_of::<DenseArgs>() == 104 + 64 * MAX_SEGMENTS);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PackArgs {
    x: u64,
    to: u64,
    stride: u32,
    width: u32,
    n: u32,
    tiles: u32,
}
const _: () = assert!(size_of::<PackArgs>() == 32);

/// The kernel's rows for a launch of `n`.
fn variant(n: usize) -> usize {
    [1, 4, 8, 16, 32].into_iter().find(|v| n <= *v).expect("at most LAUNCH_ROWS")
}

/// Bytes of packed rows of a launch, of `width` inputs.
pub(crate) fn packed_bytes(width: usize) -> usize {
    LAUNCH_ROWS * width * 4
}

/// Sizes of a variant: the mirror of `Plan` in `dense.cu`.
struct Plan {
    rows_side_by_side: usize,
    blocks: usize,
    shared: usize,
}

impl Plan {
    fn new(k: usize, variant: usize) -> Plan {
        let tiles = variant.div_ceil(4);
        let lanes = if variant == 1 { 8 } else { 32 };
        let along_k = if k <= 1024 { 4 } else { 16 };
        let block = block_of(k);
        let slots = match variant {
            1 if along_k < WARPS => 2 * WARPS / along_k,
            1 => 7,
            _ => 4,
        };
        let (groups, sums) = match variant {
            1 => (WARPS * (k / 64).div_ceil(along_k) * 2, KEPT * 16 * WARPS * 4),
            2..=4 => (k / 32, 4 * (16 * WARPS + 8) * 4),
            _ => (block / 32 * tiles, tiles.min(4) * 4 * (16 * WARPS + 8) * 4),
        };
        Plan {
            rows_side_by_side: WARPS / along_k,
            blocks: k / block,
            shared: slots * SLOT + groups * lanes * 16 + sums + 8 * (2 * slots + 1),
        }
    }
}

/// Inputs that long variants hold in shared memory at once.
fn block_of(k: usize) -> usize {
    match k {
        0..1024 => k,
        _ if k.is_multiple_of(1024) => 1024,
        _ => 512,
    }
}

/// How many parts a product of `k` inputs is cut in for a launch of mixed sizes: at most `wanted`, each of whole
/// rounds of all warps.
pub(crate) fn splits(k: usize, wanted: usize) -> usize {
    let blocks = if k.is_multiple_of(1024) { k / 1024 } else { 1 };
    (1..=wanted.min(blocks)).rev().find(|s| blocks.is_multiple_of(*s)).unwrap_or(1)
}

/// Where the second half of a sublayer goes: into the streams, by the rows' mixing weights.
#[derive(Clone, Copy)]
pub(crate) struct Post {
    pub(crate) mix: u64,
    pub(crate) streams: u64,
}

impl Cuda {
    /// Products of the same inputs; `small` rows take the kernels whose rows do not depend on each other's company.
    pub(crate) fn dense(
        &mut self,
        family: Family,
        inputs: Inputs,
        products: &[Product<'_>],
        n: usize,
        small: bool,
    ) -> Result<()> {
        // The matrix kernels take inputs by the 128.
        if small || !tiles(products[0].w).2.is_multiple_of(128) {
            self.dense_small(family, inputs, products, n, None)
        } else {
            self.gemm(inputs, products, n)
        }
    }

    /// The same on the streaming kernels; with `post` the one product goes into the streams.
    pub(crate) fn dense_small(
        &mut self,
        family: Family,
        inputs: Inputs,
        products: &[Product<'_>],
        n: usize,
        post: Option<Post>,
    ) -> Result<()> {
        for first in (0..n).step_by(LAUNCH_ROWS) {
            let rows = LAUNCH_ROWS.min(n - first);
            let x = Inputs { x: inputs.x + (4 * first * inputs.width) as u64, ..inputs };
            let packed = if rows > UNPACKED_ROWS { Some(self.pack(x, rows)?) } else { None };
            for products in products.chunks(MAX_SEGMENTS) {
                self.dense_launch(family, x, packed, products, first, rows, post)?;
            }
        }
        Ok(())
    }

    /// Rows as `dense.cu` wants them if they are more than a few; where they stand.
    fn pack(&mut self, inputs: Inputs, n: usize) -> Result<u64> {
        let tiles = variant(n).div_ceil(4);
        let to = self.scratch.packed.ptr();
        let args = PackArgs {
            x: inputs.x,
            to,
            stride: inputs.width as u32,
            width: inputs.width as u32,
            n: n as u32,
            tiles: tiles as u32,
        };
        self.launch("dense_pack", Grid::new((4 * tiles * inputs.width / 8).div_ceil(256) as u32, 1, 256), &args)?;
        Ok(to)
    }

    #[expect(clippy::too_many_arguments, reason = "one launch: what, on what, which rows, where to")]
    fn dense_launch(
        &mut self,
        family: Family,
        inputs: Inputs,
        packed: Option<u64>,
        products: &[Product<'_>],
        first: usize,
        n: usize,
        post: Option<Post>,
    ) -> Result<()> {
        let variant = variant(n);
        let (_, _, k) = tiles(products[0].w);
        let plan = Plan::new(k, variant);
        let (mut args, mut units, mut cost) = (DenseArgs::zeroed(), 0, 0);
        for ((segment, first_unit), p) in args.segments.iter_mut().zip(&mut args.first_unit).zip(products) {
            let (dtype, _, k) = tiles(p.w);
            let (width, bytes) = crate::weight::tile(dtype).expect("a type of tiles");
            debug_assert!(p.splits == 1 || plan.blocks.is_multiple_of(p.splits), "splits are whole blocks");
            let groups = p.rows.1.div_ceil(TILE_ROWS).div_ceil(plan.rows_side_by_side);
            // Bytes, in cache lines.
            let unit_cost = (plan.rows_side_by_side * k / width * bytes / p.splits).div_ceil(128);
            *segment = Segment {
                w: p.w.ptr() + (p.rows.0 * (k / width) * bytes) as u64,
                x: packed.map_or(inputs.x + (4 * p.x_at) as u64, |packed| {
                    packed + (p.x_at / 32 * variant.div_ceil(4) * 512) as u64
                }),
                out: p.out + (4 * first * p.out_stride) as u64,
                x_stride: inputs.width as u32,
                out_stride: p.out_stride as u32,
                m: p.rows.1 as u32,
                groups: groups as u32,
                splits: p.splits as u32,
                split_stride: p.split_stride as u32,
                f16: u32::from(dtype == DType::F16),
                cost: unit_cost as u32,
                first_cost: cost as u32,
                pad: 0,
            };
            *first_unit = units as u32;
            units += groups * p.splits;
            cost += groups * p.splits * unit_cost;
        }
        if let Some(post) = post {
            args.mix = post.mix + (4 * first * crate::hc::MIX) as u64;
            args.streams = post.streams + (4 * first * ds4_model::HC * self.shape.n_embd) as u64;
        }
        (args.n_segments, args.n, args.units) = (products.len() as u32, n as u32, units as u32);
        let blocks = self.device.sms.min(units as u32);
        (args.share, args.rest) = (cost as u32 / blocks, cost as u32 % blocks);
        let grid = Grid::new(blocks, 1, THREADS).shared(plan.shared);
        self.launch(&format!("{}_{variant}", family.name()), grid, &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_fits_the_shared_memory_of_a_large_card() {
        for k in [128, 256, 1024, 1536, 2048, 3072, 4096, 7168, 8192] {
            for variant in [1, 4, 8, 16, 32] {
                let plan = Plan::new(k, variant);
                assert!(plan.shared <= 227 << 10, "{k} inputs, {variant} rows: {} bytes", plan.shared);
            }
        }
    }

    #[test]
    fn one_row_shares_a_multiprocessor_with_small_kernels_but_not_with_its_like() {
        for k in [1024, 2048, 4096, 8192] {
            let shared = Plan::new(k, 1).shared;
            assert!(2 * shared > 227 << 10 && shared + (55 << 10) <= 227 << 10, "{k}");
        }
    }

    #[test]
    fn splits_are_whole_blocks() {
        assert_eq!(splits(4096, 4), 4);
        assert_eq!(splits(4096, 2), 2);
        assert_eq!(splits(7168, 4), 1);
        assert_eq!(splits(256, 4), 1);
    }
}
