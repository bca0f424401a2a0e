//! Stage `experts`: the routed experts grouped by expert, the shared expert's second half, their sum and the post step.

use bytemuck::{Pod, Zeroable};
use ds4_gguf::DType;
use ds4_model::{ExpertWeights, Result, Routing, Shape, Step};

use crate::backend::{Cuda, SMALL, small};
use crate::dense::{Family, Inputs, Product, tiles};
use crate::device::Buffer;
use crate::hc::MixArgs;
use crate::launch::Grid;
use crate::weight::{Layout, Weight, tile};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GroupArgs {
    ids: u64,
    groups: u64,
    n: u32,
    pad: u32,
}
const _: () = assert!(size_of::<GroupArgs>() == 24);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ExpertsArgs {
    x: u64,
    first: u64,
    second: u64,
    ids: u64,
    weights: u64,
    groups: u64,
    grid: u64,
    out: u64,
    n: u32,
    clamp: f32,
    guest: Guest,
    mix: MixArgs,
}
const _: () = assert!(size_of::<ExpertsArgs>() == 136);

/// The shared expert's second half, made beside the routed ones'; zeros where another kernel makes it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Guest {
    w: u64,
    x: u64,
    out: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SumArgs {
    down: u64,
    shared: u64,
    mix: u64,
    streams: u64,
}
const _: () = assert!(size_of::<SumArgs>() == 32);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TileArgs {
    ids: u64,
    weights: u64,
    head: u64,
    order: u64,
    route: u64,
    tiles: u64,
    n: u32,
    largest: u32,
}
const _: () = assert!(size_of::<TileArgs>() == 56);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct GateUpArgs {
    gate: u64,
    up: u64,
    grid: u64,
    packed: u64,
    mid: u64,
    route: u64,
    head: u64,
    tiles: u64,
    tpad: u32,
    weight_slots: u32,
    token_slots: u32,
    clamp: f32,
}
const _: () = assert!(size_of::<GateUpArgs>() == 80);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DownArgs {
    down: u64,
    grid: u64,
    packed: u64,
    out: u64,
    order: u64,
    head: u64,
    tiles: u64,
    tpad: u32,
    weight_slots: u32,
    token_slots: u32,
    pad: u32,
}
const _: () = assert!(size_of::<DownArgs>() == 72);

/// Tokens of an expert up to which tiles of at most 64 rows win over those of at most 112.
const NARROW: usize = 60;

/// Packed rows of `n` tokens: every expert's are padded to whole tiles of 16, and a tile may be read past its end.
pub(crate) fn packed_rows(s: &Shape, n: usize) -> usize {
    let pairs = n * s.n_expert_used;
    (pairs + 15 * s.n_expert.min(pairs) + 48).next_multiple_of(16)
}

/// Bytes of the list of groups of a short step.
pub(crate) fn groups_bytes(s: &Shape) -> usize {
    32 + SMALL * s.n_expert_used * 32
}

/// Most tiles of a long step.
pub(crate) fn tile_count(s: &Shape, n: usize) -> usize {
    s.n_expert + packed_rows(s, n) / 64 + 1
}

fn format(w: &Weight) -> DType {
    match w.layout {
        Layout::Experts { dtype, .. } => dtype,
        other => unreachable!("experts as {other:?}: the class decides the layout"),
    }
}

fn suffix(dtype: DType) -> &'static str {
    match dtype {
        DType::Iq2Xxs => "iq2",
        DType::Q2K => "q2k",
        DType::Q4K => "q4k",
        _ => "mxfp4",
    }
}

pub(crate) fn experts(
    cuda: &mut Cuda,
    step: &Step<Buffer>,
    w: &ExpertWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
    mix: &Buffer,
    streams: &Buffer,
) -> Result<()> {
    let (n, ff, n_embd) = (step.n, cuda.shape.ff_dim, cuda.shape.n_embd);
    let shared = cuda.scratch.y.ptr();
    let hosted = cuda.recording && n == 1 && tiles(&w.shared_down).0 == DType::Q8_0;
    let guest = Guest { w: w.shared_down.ptr(), x: routing.shared.ptr(), out: shared };
    if !hosted {
        let inputs = Inputs { x: routing.shared.ptr(), width: ff };
        cuda.dense(Family::Ff, inputs, &[Product::new(&w.shared_down, shared)], n, small(n))?;
    }
    if small(n) {
        few(cuda, n, w, x, routing, if hosted { guest } else { Guest::zeroed() })?;
    } else {
        many(cuda, n, w, x, routing)?;
    }
    let args = SumArgs { down: cuda.scratch.down.ptr(), shared, mix: mix.ptr(), streams: streams.ptr() };
    cuda.launch("experts_sum", Grid::new((n_embd / 256) as u32, n as u32, 64), &args)
}

/// Every expert's tokens in groups of up to four; weights are multiplied as integers. With a guest the shared expert's, too.
fn few(
    cuda: &mut Cuda,
    n: usize,
    w: &ExpertWeights<Weight>,
    x: &Buffer,
    routing: &Routing<Buffer>,
    guest: Guest,
) -> Result<()> {
    let scratch = &cuda.scratch;
    let (groups, mid, down) = (scratch.groups.ptr(), scratch.mid.ptr(), scratch.down.ptr());
    if n > 1 {
        let args = GroupArgs { ids: routing.ids.ptr(), groups, n: n as u32, pad: 0 };
        cuda.launch("experts_group", Grid::new(1, 1, cuda.shape.n_expert.next_multiple_of(32) as u32), &args)?;
    }
    let mix = cuda.mix.take();
    let args = ExpertsArgs {
        x: x.ptr(),
        first: w.gate.ptr(),
        second: w.up.ptr(),
        ids: routing.ids.ptr(),
        weights: routing.weights.ptr(),
        groups,
        grid: cuda.iq2_grid.ptr(),
        out: mid,
        n: n as u32,
        clamp: w.clamp,
        guest: Guest::zeroed(),
        mix: mix.unwrap_or(MixArgs::zeroed()),
    };
    let sms = cuda.device.sms;
    let (gate_up, second) = (format(&w.gate), format(&w.down));
    let blocks = if gate_up == DType::Iq2Xxs { 3 * sms } else { 2 * sms };
    cuda.launch(&format!("experts_gate_up_{}", suffix(gate_up)), Grid::new(blocks, 1, 256), &args)?;
    let blocks = if matches!(second, DType::Iq2Xxs | DType::Q2K) { 3 * sms } else { 2 * sms };
    let args = ExpertsArgs { x: mid, first: w.down.ptr(), second: 0, out: down, guest, mix: MixArgs::zeroed(), ..args };
    cuda.launch(&format!("experts_down_{}", suffix(second)), Grid::new(blocks, 1, 256), &args)
}

/// Slots of the rings of the matrix kernels, weights and tokens, and their bytes of shared memory.
fn rings(dtype: DType, gated: bool, largest: usize) -> (usize, usize, usize) {
    let two_bit = matches!(dtype, DType::Iq2Xxs | DType::Q2K);
    let (weights, tokens) = match (largest, gated, two_bit) {
        (64, true, two_bit) => (if two_bit { 3 } else { 2 }, 6),
        (64, false, two_bit) => (if two_bit { 3 } else { 2 }, 7),
        (_, true, two_bit) => (2, if two_bit { 4 } else { 3 }),
        (_, false, two_bit) => (if two_bit { 3 } else { 2 }, 4),
    };
    let (_, tile) = tile(dtype).expect("a type of tiles");
    let epilogue = if gated { largest * 256 } else { 0 };
    (weights, tokens, 1024 + epilogue + weights * 16 * tile + tokens * largest * 256)
}

/// Tokens sorted by expert, products of whole tiles of them on the tensor cores.
fn many(cuda: &mut Cuda, n: usize, w: &ExpertWeights<Weight>, x: &Buffer, routing: &Routing<Buffer>) -> Result<()> {
    let s = &cuda.shape;
    let largest = if n * s.n_expert_used / s.n_expert <= NARROW { 64 } else { 112 };
    let (rows, n_embd) = (packed_rows(s, n), s.n_embd);
    let scratch = &cuda.scratch;
    let (head, order, route, tiles) =
        (scratch.tile_head.ptr(), scratch.order.ptr(), scratch.route.ptr(), scratch.tiles.ptr());
    let (packed, mid, down, grid) =
        (scratch.packed_rows.ptr(), scratch.mid.ptr(), scratch.down.ptr(), cuda.iq2_grid.ptr());
    let threads = if s.n_expert > 256 { 512 } else { 1024 };
    let args = TileArgs {
        ids: routing.ids.ptr(),
        weights: routing.weights.ptr(),
        head,
        order,
        route,
        tiles,
        n: n as u32,
        largest: largest as u32,
    };
    cuda.launch("gemm_group", Grid::new(1, 1, threads), &args)?;
    cuda.pack_gathered(x.ptr(), n_embd, packed, order, head, rows)?;
    let (weight_slots, token_slots, shared) = rings(format(&w.gate), true, largest);
    let args = GateUpArgs {
        gate: w.gate.ptr(),
        up: w.up.ptr(),
        grid,
        packed,
        mid,
        route,
        head,
        tiles,
        tpad: rows as u32,
        weight_slots: weight_slots as u32,
        token_slots: token_slots as u32,
        clamp: w.clamp,
    };
    let blocks = Grid::new(cuda.device.sms, 1, 384);
    cuda.launch(&format!("gemm_gate_up_{}_{largest}", suffix(format(&w.gate))), blocks.shared(shared), &args)?;
    let (weight_slots, token_slots, shared) = rings(format(&w.down), false, largest);
    let args = DownArgs {
        down: w.down.ptr(),
        grid,
        packed: mid,
        out: down,
        order,
        head,
        tiles,
        tpad: rows as u32,
        weight_slots: weight_slots as u32,
        token_slots: token_slots as u32,
        pad: 0,
    };
    cuda.launch(&format!("gemm_down_{}_{largest}", suffix(format(&w.down))), blocks.shared(shared), &args)
}
