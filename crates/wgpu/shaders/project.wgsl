// project: what becomes of the products of the attention input.   grid: (rows, TASKS, 1), 128 invocations
//   task 0: the low-rank query, normed        1: the window's ring row: norm, rotation, rounding
//   task 2: both compressors' values and gates with their position biases, the indexer's head weights, scaled
// Sums of a row stand in the order of the segments: q [Q_LORA], kv [HEAD], and where the layer has them pooled value and gate
// [pooled] each, head weights [N_INDEX_HEAD], index value and gate [index_pooled] each.

struct Args {
    total: u32, pooled: u32, index_pooled: u32, ratio: u32,
    q_norm: u32, kv_norm: u32, ape: u32, index_ape: u32,
    per_slot: u32, rope: u32, pad0: u32, pad1: u32,
}
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> rope: array<f32>;
@group(0) @binding(4) var<storage, read_write> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;
@group(0) @binding(6) var<storage, read_write> pooled: array<f32>;
@group(0) @binding(7) var<storage, read_write> index_pooled: array<f32>;
@group(0) @binding(8) var<storage, read_write> index_weights: array<f32>;

fn finish_q(row: u32, tid: u32) {
    let src = row * args.total;
    var squares = 0.0;
    for (var i = tid; i < Q_LORA; i += 128u) { squares = fma(sums[src + i], sums[src + i], squares); }
    let scale = inverseSqrt(block_sum(squares, tid) / f32(Q_LORA) + RMS_EPS);
    for (var i = tid; i < Q_LORA; i += 128u) { q[row * Q_LORA + i] = sums[src + i] * scale * values[args.q_norm + i]; }
}

fn finish_window(row: u32, tid: u32) {
    let src = row * args.total + Q_LORA + 4u * tid;
    var v = vec4<f32>(sums[src], sums[src + 1u], sums[src + 2u], sums[src + 3u]);
    let scale = inverseSqrt(block_sum(dot(v, v), tid) / f32(HEAD) + RMS_EPS);
    let w = args.kv_norm + 4u * tid;
    v = v * scale * vec4<f32>(values[w], values[w + 1u], values[w + 2u], values[w + 3u]);
    let s = step[row];
    v = rotate4(v, 4u * tid, HEAD, args.rope, s.pos);
    encode_row(v, (s.slot * args.per_slot + s.pos % args.per_slot) * ROW_WORDS, tid);
}

fn finish_pooled(row: u32, tid: u32) {
    let place = step[row].pos % max(args.ratio, 1u);
    var src = row * args.total + Q_LORA + HEAD;
    let w = args.pooled;
    for (var i = tid; i < 2u * w; i += 128u) {
        var v = sums[src + i];
        if (i >= w) { v += values[args.ape + place * w + i - w]; }
        pooled[row * 2u * w + i] = v;
    }
    let wi = args.index_pooled;
    if (wi == 0u) { return; }
    src += 2u * w;
    for (var i = tid; i < N_INDEX_HEAD; i += 128u) {
        index_weights[row * N_INDEX_HEAD + i] = sums[src + i] * (1.0 / sqrt(f32(INDEX * N_INDEX_HEAD)));
    }
    src += N_INDEX_HEAD;
    for (var i = tid; i < 2u * wi; i += 128u) {
        var v = sums[src + i];
        if (i >= wi) { v += values[args.index_ape + place * wi + i - wi]; }
        index_pooled[row * 2u * wi + i] = v;
    }
}

@compute @workgroup_size(128)
fn project(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    if (wg.y == 0u) { finish_q(wg.x, tid); }
    else if (wg.y == 1u) { finish_window(wg.x, tid); }
    else { finish_pooled(wg.x, tid); }
}
