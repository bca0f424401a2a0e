// keep_streams and draft_embed: the states a draft block starts from, and its input (model.md 12.1).
//   keep_streams: grid (rows, 1, 1): streams of each row to the ring row of its `state`; of a long span only the last rows
//   draft_norm: grid (rows, 1 + HC, 1): the token's row (of one part of the table) and the kept streams, each normed
//   draft_add: grid (rows, 1, 1): streams[row][h] += e[row]
// 256 invocations.

struct Args { per_slot: u32, table: u32, first: u32, count: u32, format: u32, enorm: u32, hnorm: u32, pad: u32 }
var<immediate> args: Args;

//if KEEP
@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> streams: array<f32>;
@group(0) @binding(2) var<storage, read_write> hidden: array<f32>;

@compute @workgroup_size(256)
fn keep_streams(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let s = step[wg.x];
    if (s.end - s.pos > args.per_slot) { return; }
    let to = (s.slot * args.per_slot + s.state % args.per_slot) * HC * N_EMBD;
    for (var i = tid; i < HC * N_EMBD; i += 256u) { hidden[to + i] = streams[wg.x * HC * N_EMBD + i]; }
}
//end
//if NORM
@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> words: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> hidden: array<f32>;
@group(0) @binding(4) var<storage, read_write> token_rows: array<f32>;
@group(0) @binding(5) var<storage, read_write> states: array<f32>;

fn embedded(token: u32, d: u32) -> f32 {
    let at = (token - args.first) * N_EMBD + d;
    if (args.format == FORMAT_F16) { return half_of(words[args.table + at / 2u], d & 1u); }
    return bitcast<f32>(words[args.table + at]);
}

@compute @workgroup_size(256)
fn draft_norm(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let s = step[wg.x];
    var squares = 0.0;
    if (wg.y == 0u) {
        if (s.token < args.first || s.token >= args.first + args.count) { return; }
        for (var d = tid; d < N_EMBD; d += 256u) { let v = embedded(s.token, d); squares = fma(v, v, squares); }
        let scale = inverseSqrt(block_sum(squares, tid) / f32(N_EMBD) + RMS_EPS);
        for (var d = tid; d < N_EMBD; d += 256u) {
            token_rows[wg.x * N_EMBD + d] = embedded(s.token, d) * scale * values[args.enorm + d];
        }
        return;
    }
    let src = ((s.slot * args.per_slot + s.pos % args.per_slot) * HC + wg.y - 1u) * N_EMBD;
    for (var d = tid; d < N_EMBD; d += 256u) { let v = hidden[src + d]; squares = fma(v, v, squares); }
    let scale = inverseSqrt(block_sum(squares, tid) / f32(N_EMBD) + RMS_EPS);
    let to = (wg.x * HC + wg.y - 1u) * N_EMBD;
    for (var d = tid; d < N_EMBD; d += 256u) { states[to + d] = hidden[src + d] * scale * values[args.hnorm + d]; }
}
//end
//if ADD
@group(0) @binding(0) var<storage, read> e: array<f32>;
@group(0) @binding(1) var<storage, read_write> streams: array<f32>;

@compute @workgroup_size(256)
fn draft_add(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    for (var i = tid; i < HC * N_EMBD; i += 256u) { streams[wg.x * HC * N_EMBD + i] += e[wg.x * N_EMBD + i % N_EMBD]; }
}
//end
