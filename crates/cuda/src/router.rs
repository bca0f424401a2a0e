//! Stage `route`: which experts a token goes to and how much each counts, and the shared expert's gated middle.

use bytemuck::{Pod, Zeroable};
use ds4_model::{Result, RouteChoice, RouteWeights, Routing, Step};

use crate::backend::{Cuda, small};
use crate::dense::{Family, Inputs, Product, splits};
use crate::device::Buffer;
use crate::launch::Grid;
use crate::weight::{Layout, TILE_ROWS, Weight};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RouteArgs {
    step: u64,
    logits: u64,
    gate: u64,
    up: u64,
    bias: u64,
    hash: u64,
    ids: u64,
    weights: u64,
    shared: u64,
    splits: u32,
    stride: u32,
    halves: u32,
    half_stride: u32,
    clamp: f32,
    scale: f32,
}
const _: () = assert!(size_of::<RouteArgs>() == 96);

pub(crate) fn route(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &RouteWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
) -> Result<()> {
    let (n, n_embd, n_expert, ff) = (step.n, cuda.shape.n_embd, cuda.shape.n_expert, cuda.shape.ff_dim);
    let (router_splits, halves) = if small(n) { (splits(n_embd, 4), splits(n_embd, 2)) } else { (1, 1) };
    let twin = matches!(w.gate.layout, Layout::Tiles { twin: true, .. });
    let sums = router_splits * (1 + usize::from(twin));
    let logits = cuda.scratch.sums.ptr();
    let gate = logits + (4 * sums * n * n_expert).next_multiple_of(16) as u64;
    let up = gate + (4 * halves * n * ff) as u64;
    let product = |w, out, splits, stride| Product { splits, split_stride: stride, ..Product::new(w, out) };
    let mut products = vec![
        product(&w.gate, logits, router_splits, n * n_expert),
        product(&w.shared_gate, gate, halves, n * ff),
        product(&w.shared_up, up, halves, n * ff),
    ];
    if twin {
        // What float16 leaves of the router's weights: more sums of the same logits.
        let low = Product { rows: (n_expert.div_ceil(TILE_ROWS), n_expert), ..products[0] };
        products.push(Product { out: logits + (4 * router_splits * n * n_expert) as u64, ..low });
    }
    cuda.dense(Family::Embd, Inputs { x: x.ptr(), width: n_embd }, &products, n, small(n))?;
    let (bias, hash) = match &w.choice {
        RouteChoice::Biased(bias) => (bias.ptr(), 0),
        RouteChoice::Hashed(table) => (0, table.ptr()),
    };
    let args = RouteArgs {
        step: step.rows.ptr(),
        logits,
        gate,
        up,
        bias,
        hash,
        ids: routing.ids.ptr(),
        weights: routing.weights.ptr(),
        shared: routing.shared.ptr(),
        splits: sums as u32,
        stride: (n * n_expert) as u32,
        halves: halves as u32,
        half_stride: (n * ff) as u32,
        clamp: w.clamp,
        scale: cuda.shape.expert_scale,
    };
    cuda.launch("route_finish", Grid::new(n as u32, 1 + ff.div_ceil(1024) as u32, 256), &args)
}
