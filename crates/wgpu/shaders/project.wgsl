// project: what becomes of the products of the attention input.
//   unit 0: the low-rank query, normed        1: the window's ring row: norm, rotation, rounding
//   by itself each output of the compressors, gates with their position biases, and of the indexer's head weights, scaled
// Outputs of a row stand in the order of the segments: q [Q_LORA], kv [HEAD], and where the layer has them pooled value and gate
// [pooled] each, head weights [N_INDEX_HEAD], index value and gate [index_pooled] each.
//   grid: (rows, 2 or 3, 1), 128 invocations: the units, then the rest; with FUSED this is a part of `dense`

struct Finish {
    pooled: u32, index_pooled: u32, ratio: u32, per_slot: u32, q_norm: u32, kv_norm: u32, ape: u32, index_ape: u32,
}
//if FUSED
@group(0) @binding(4) var<storage, read> step: array<StepRow>;
@coherent @group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read> values: array<f32>;
@group(0) @binding(7) var<storage, read> rope: array<f32>;
@group(0) @binding(8) var<storage, read_write> q: array<f32>;
@group(0) @binding(9) var<storage, read_write> cache: array<u32>;
@group(0) @binding(10) var<storage, read_write> pooled: array<f32>;
@group(0) @binding(11) var<storage, read_write> index_pooled: array<f32>;
@group(0) @binding(12) var<storage, read_write> index_weights: array<f32>;
@group(0) @binding(13) var<storage, read_write> tickets: array<atomic<u32>>;
//else
struct Args { out_stride: u32, pad0: u32, pad1: u32, pad2: u32, own: Finish }
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> out: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> rope: array<f32>;
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;
@group(0) @binding(6) var<storage, read_write> pooled: array<f32>;
@group(0) @binding(7) var<storage, read_write> index_pooled: array<f32>;
@group(0) @binding(8) var<storage, read_write> index_weights: array<f32>;
//end

fn finish_q(row: u32, tid: u32) {
    let src = row * args.out_stride;
    var squares = 0.0;
    for (var i = tid; i < Q_LORA; i += 128u) { squares = fma(out[src + i], out[src + i], squares); }
    let scale = inverseSqrt(block_sum(squares, tid) / f32(Q_LORA) + RMS_EPS);
    for (var i = tid; i < Q_LORA; i += 128u) { q[row * Q_LORA + i] = out[src + i] * scale * values[args.own.q_norm + i]; }
}

fn finish_window(row: u32, tid: u32) {
    let src = row * args.out_stride + Q_LORA + 4u * tid;
    var v = vec4<f32>(out[src], out[src + 1u], out[src + 2u], out[src + 3u]);
    let scale = inverseSqrt(block_sum(dot(v, v), tid) / f32(HEAD) + RMS_EPS);
    let w = args.own.kv_norm + 4u * tid;
    v = v * scale * vec4<f32>(values[w], values[w + 1u], values[w + 2u], values[w + 3u]);
    let s = step[row];
    v = rotate4(v, 4u * tid, HEAD, s.pos);
    encode_row(v, (s.slot * args.own.per_slot + s.pos % args.own.per_slot) * ROW_WORDS, tid);
}

// Output `i` of those behind the units.
fn put_pooled(row: u32, i: u32, y: f32) {
    let place = step[row].pos % max(args.own.ratio, 1u);
    let w = args.own.pooled;
    if (i < 2u * w) {
        var v = y;
        if (i >= w) { v += values[args.own.ape + place * w + i - w]; }
        pooled[row * 2u * w + i] = v;
        return;
    }
    let h = i - 2u * w;
    if (h < N_INDEX_HEAD) {
        index_weights[row * N_INDEX_HEAD + h] = y * (1.0 / sqrt(f32(INDEX * N_INDEX_HEAD)));
        return;
    }
    let c = h - N_INDEX_HEAD;
    let wi = args.own.index_pooled;
    var v = y;
    if (c >= wi) { v += values[args.own.index_ape + place * wi + c - wi]; }
    index_pooled[row * 2u * wi + c] = v;
}

//if FUSED
const UNITS = 2u;

fn unit(m: u32) -> vec2<u32> {
    if (m < Q_LORA) { return vec2<u32>(0u, Q_LORA); }
    return vec2<u32>(1u, select(0u, HEAD, m < Q_LORA + HEAD));
}

fn keep(row: u32, m: u32, y: f32) {
    if (m < Q_LORA + HEAD) { out[row * args.out_stride + m] = y; } else { put_pooled(row, m - Q_LORA - HEAD, y); }
}

fn finish(row: u32, which: u32, tid: u32) {
    if (which == 0u) { finish_q(row, tid); } else { finish_window(row, tid); }
}
//else
@compute @workgroup_size(128)
fn project(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    if (wg.y == 0u) { finish_q(wg.x, tid); return; }
    if (wg.y == 1u) { finish_window(wg.x, tid); return; }
    for (var i = Q_LORA + HEAD + tid; i < args.out_stride; i += 128u) {
        put_pooled(wg.x, i - Q_LORA - HEAD, out[wg.x * args.out_stride + i]);
    }
}
//end
