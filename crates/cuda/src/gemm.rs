//! Products of many rows on the tensor cores: activations packed once as f16, weights decoded in registers.

use bytemuck::{Pod, Zeroable};
use ds4_gguf::DType;
use ds4_model::Result;

use crate::backend::Cuda;
use crate::dense::{Inputs, Product, tiles};
use crate::launch::Grid;
use crate::weight::tile;

/// Products of one launch.
const MAX_SEGMENTS: usize = 8;
/// Rows that packed activations are padded to.
pub(crate) const PADDING: usize = 128;
const THREADS: u32 = 384;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PackArgs {
    x: u64,
    packed: u64,
    order: u64,
    head: u64,
    rows: u32,
    ld: u32,
    offset: u32,
    k: u32,
    tpad: u32,
    pad: u32,
}
const _: () = assert!(size_of::<PackArgs>() == 56);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Segment {
    weights: u64,
    out: u64,
    m: u32,
    ldo: u32,
    block0: u32,
    pad: u32,
}
const _: () = assert!(size_of::<Segment>() == 32);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GemmArgs {
    packed: u64,
    n: u32,
    tpad: u32,
    k: u32,
    count: u32,
    weight_slots: u32,
    token_slots: u32,
    segments: [Segment; MAX_SEGMENTS],
}
const _: () = assert!(size_of::<GemmArgs>() == 288);

/// A kernel of `gemm.cu`: outputs and tokens of a unit, slots of both rings, and its speed on whole units beside the best.
struct Entry {
    name: &'static str,
    outputs: usize,
    tokens: usize,
    slots: (usize, usize),
    speed: f64,
}

const Q8: [Entry; 3] = [
    Entry { name: "gemm_q8_256", outputs: 256, tokens: 128, slots: (3, 3), speed: 1.0 },
    Entry { name: "gemm_q8_128", outputs: 128, tokens: 128, slots: (4, 4), speed: 0.9 },
    Entry { name: "gemm_q8_64", outputs: 128, tokens: 64, slots: (6, 6), speed: 0.55 },
];
const F16: [Entry; 2] = [
    Entry { name: "gemm_f16_128", outputs: 128, tokens: 128, slots: (3, 3), speed: 1.0 },
    Entry { name: "gemm_f16_64", outputs: 128, tokens: 64, slots: (4, 4), speed: 0.65 },
];

impl Entry {
    fn units(&self, products: &[Product<'_>], n: usize) -> usize {
        products.iter().map(|p| p.rows.1.div_ceil(self.outputs)).sum::<usize>() * n.div_ceil(self.tokens)
    }

    /// Time of all units in arbitrary measure: whole waves over the multiprocessors.
    fn time(&self, products: &[Product<'_>], n: usize, sms: usize) -> f64 {
        (self.units(products, n).div_ceil(sms) * self.outputs * self.tokens) as f64 / self.speed
    }

    /// Bytes of shared memory.
    fn shared(&self, dtype: DType) -> usize {
        let (_, tile) = tile(dtype).expect("a type of tiles");
        1024 + self.slots.0 * (self.outputs / 16 * 2 * tile) + self.slots.1 * (self.tokens * 256)
    }
}

impl Cuda {
    /// Products of the same inputs for many rows; nothing is split.
    pub(crate) fn gemm(&mut self, inputs: Inputs, products: &[Product<'_>], n: usize) -> Result<()> {
        let tpad = n.next_multiple_of(PADDING);
        let packed = self.scratch.packed_rows.ptr();
        let args = PackArgs {
            x: inputs.x,
            packed,
            rows: n as u32,
            ld: inputs.width as u32,
            k: inputs.width as u32,
            tpad: tpad as u32,
            ..PackArgs::zeroed()
        };
        self.launch("pack", Grid::new((tpad / 8) as u32, inputs.width.div_ceil(256) as u32, 256), &args)?;
        for dtype in [DType::Q8_0, DType::F16] {
            let products: Vec<Product<'_>> = products.iter().filter(|p| tiles(p.w).0 == dtype).copied().collect();
            for products in products.chunks(MAX_SEGMENTS) {
                self.gemm_launch(dtype, packed, products, n)?;
            }
        }
        Ok(())
    }

    fn gemm_launch(&mut self, dtype: DType, packed: u64, products: &[Product<'_>], n: usize) -> Result<()> {
        let sms = self.device.sms as usize;
        let entries = if dtype == DType::F16 { &F16[..] } else { &Q8[usize::from(!self.device.has_wgmma())..] };
        let entry = entries
            .iter()
            .min_by(|a, b| a.time(products, n, sms).total_cmp(&b.time(products, n, sms)))
            .expect("every type has kernels");
        let (width, bytes) = tile(dtype).expect("a type of tiles");
        let (_, _, k) = tiles(products[0].w);
        let mut args = GemmArgs {
            packed,
            n: n as u32,
            tpad: n.next_multiple_of(PADDING) as u32,
            k: k as u32,
            count: products.len() as u32,
            weight_slots: entry.slots.0 as u32,
            token_slots: entry.slots.1 as u32,
            segments: [Segment::zeroed(); MAX_SEGMENTS],
        };
        for (segment, p) in args.segments.iter_mut().zip(products) {
            *segment = Segment {
                weights: p.w.ptr() + (p.rows.0 * (k / width) * bytes) as u64,
                out: p.out,
                m: p.rows.1 as u32,
                ldo: p.out_stride as u32,
                block0: (p.x_at / 64) as u32,
                pad: 0,
            };
        }
        let grid = Grid::new(entry.units(products, n).min(sms) as u32, 1, THREADS).shared(entry.shared(dtype));
        self.launch(entry.name, grid, &args)
    }

    /// Rows of `x` in the order that `gemm_group` wrote, packed.
    pub(crate) fn pack_gathered(
        &mut self,
        x: u64,
        width: usize,
        packed: u64,
        order: u64,
        head: u64,
        rows: usize,
    ) -> Result<()> {
        let args = PackArgs {
            x,
            packed,
            order,
            head,
            ld: width as u32,
            k: width as u32,
            tpad: rows as u32,
            ..PackArgs::zeroed()
        };
        self.launch("pack_gather", Grid::new((rows / 8) as u32, width.div_ceil(256) as u32, 256), &args)
    }
}
