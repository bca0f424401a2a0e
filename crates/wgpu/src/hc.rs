//! Stage `hc_pre`: products, then the collapse. The head's collapse is the same with fewer outputs.

use bytemuck::{Pod, Zeroable};
use ds4_model::{HC, HyperConnection, Result, Step};

use crate::backend::{Wgpu, small};
use crate::device::Buffer;
use crate::program::Kernel;
use crate::weight::Weight;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    fn_at: u32,
    format: u32,
    scale: u32,
    base: u32,
    norm: u32,
    rows: u32,
    pad: [u32; 2],
}

pub(crate) const PRODUCTS: Kernel = Kernel::new("hc_products", &["PRODUCTS"]).variant(MIXES);
pub(crate) const PRODUCTS_MANY: Kernel = Kernel::new("hc_products", &["PRODUCTS", "MANY"]).variant(MIXES);
pub(crate) const COLLAPSE: Kernel = Kernel::new("hc_collapse", &["COLLAPSE"]).variant(MIXES);
pub(crate) const HEAD_PRODUCTS: Kernel = Kernel::new("hc_products", &["PRODUCTS"]).variant(HC as u32);
pub(crate) const HEAD_COLLAPSE: Kernel = Kernel::new("hc_collapse", &["COLLAPSE"]).variant(HC as u32);

pub(crate) const FUSED: Kernel = Kernel::new("hc_products", &["PRODUCTS", "COLLAPSE", "FUSED"]).variant(MIXES);
pub(crate) const HEAD_FUSED: Kernel = Kernel::new("hc_products", &["PRODUCTS", "COLLAPSE", "FUSED"]).variant(HC as u32);

/// Outputs of a site.
const MIXES: u32 = (2 * HC + HC * HC) as u32;

/// The small tensors of a site.
pub(crate) struct Site<'a> {
    pub(crate) mix: &'a Weight,
    pub(crate) scale: &'a Weight,
    pub(crate) base: &'a Weight,
    pub(crate) norm: &'a Weight,
}

pub(crate) fn pre(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    w: &HyperConnection<Weight>,
    streams: &Buffer,
    x: &Buffer,
    mix: &Buffer,
) -> Result<()> {
    let site = Site { mix: &w.mix, scale: &w.scale, base: &w.base, norm: &w.norm };
    collapse(gpu, step, &site, streams, (x, mix), [PRODUCTS, COLLAPSE, FUSED])
}

/// Both kernels, or the one that is both; `out` is the collapsed row and, but for the head, the mix.
pub(crate) fn collapse(
    gpu: &mut Wgpu,
    step: &Step<Buffer>,
    site: &Site<'_>,
    streams: &Buffer,
    out: (&Buffer, &Buffer),
    kernels: [Kernel; 3],
) -> Result<()> {
    let args = Args {
        fn_at: site.mix.at(),
        format: site.mix.format as u32,
        scale: site.scale.at(),
        base: site.base.at(),
        norm: site.norm.at(),
        rows: step.n as u32,
        pad: [0; 2],
    };
    let (n, parts) = (step.n as u32, (HC * gpu.shape.n_embd / 1024) as u32);
    let (partial, values) = (gpu.scratch.partial.clone(), gpu.values.clone());
    let long = !small(step.n) && kernels[1].variant == MIXES;
    if gpu.device.abilities.coherent && !long {
        let tickets = gpu.scratch.tickets.clone();
        let weights = site.mix.buffer();
        let buffers = [&step.rows, streams, weights, &partial, &values, out.0, out.1, &tickets];
        return gpu.dispatch(kernels[2], [parts, n, 1], &args, &buffers);
    }
    if long {
        gpu.dispatch(PRODUCTS_MANY, [parts, n.div_ceil(4), 1], &args, &[streams, site.mix.buffer(), &partial])?;
    } else {
        gpu.dispatch(kernels[0], [parts, n, 1], &args, &[&step.rows, streams, site.mix.buffer(), &partial])?;
    }
    let across = if kernels[1].variant == MIXES { 2 } else { 1 };
    gpu.dispatch(kernels[1], [across, n, 1], &args, &[&step.rows, streams, &values, &partial, out.0, out.1])
}
