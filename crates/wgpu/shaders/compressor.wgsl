// compress: rows of the windows that close in this step, and the open windows' inputs.
//   compress_append: grid (rows, 1, 1): the attention row, or the index row (INDEXED)
//   compress_keep: grid (rows, 1, 1): this step's inputs to their ring; 128 invocations
// In a step of one row for each sequence nothing that is kept is still needed: one dispatch does both (`keeps`).
// Inputs of a position: [value w][gate w], of this step or, before `first`, of the ring. Softmax over the entries of a channel: of
// ratio 128 the window's; of ratio 4 the previous window's first halves, where there is one, and this window's second halves.

struct Args { ratio: u32, norm: u32, rope: u32, rows_per_slot: u32, frontier_per_slot: u32, keeps: u32, pad0: u32, pad1: u32 }
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
//if APPEND
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read> rope: array<f32>;
@group(0) @binding(3) var<storage, read> inputs: array<f32>;
@group(0) @binding(4) var<storage, read_write> ring: array<f32>;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;
//else
@group(0) @binding(1) var<storage, read> inputs: array<f32>;
@group(0) @binding(2) var<storage, read_write> ring: array<f32>;
//end

//if APPEND
// Where value and gate of position `p` begin, and in which table: the step's or the ring.
fn place(i: u32, s: StepRow, p: u32, width: u32) -> vec2<u32> {
    if (p >= s.first) { return vec2<u32>((i - (s.pos - p)) * 2u * width, 0u); }
    return vec2<u32>((s.slot * args.frontier_per_slot + p % args.frontier_per_slot) * 2u * width, 1u);
}

fn value_at(at: vec2<u32>, i: u32) -> f32 {
    if (at.y == 0u) { return inputs[at.x + i]; }
    return ring[at.x + i];
}

// The pooled channel `j` of the window that closes at row `i`.
fn pool(i: u32, s: StepRow, j: u32, width: u32) -> f32 {
    let overlaps = args.ratio == 4u;
    let half = select(0u, width / 2u, overlaps);
    let start = s.pos + 1u - args.ratio;
    let begin = select(start, start - min(start, args.ratio), overlaps);
    var top = -3.4e38;
    for (var p = begin; p <= s.pos; p += 1u) {
        let at = place(i, s, p, width);
        top = max(top, value_at(at, width + j + select(0u, half, p >= start)));
    }
    var total = 0.0;
    var sum = 0.0;
    for (var p = begin; p <= s.pos; p += 1u) {
        let at = place(i, s, p, width);
        let channel = j + select(0u, half, p >= start);
        let weight = exp(value_at(at, width + channel) - top);
        total += weight;
        sum = fma(weight, value_at(at, channel), sum);
    }
    return sum / total;
}

//end
fn keep_inputs(i: u32, s: StepRow, width: u32, tid: u32) {
    if (s.end - s.pos > args.frontier_per_slot) { return; }
    let to = (s.slot * args.frontier_per_slot + s.pos % args.frontier_per_slot) * 2u * width;
    for (var c = tid; c < 2u * width; c += 128u) { ring[to + c] = inputs[i * 2u * width + c]; }
}

//if APPEND
@compute @workgroup_size(128)
fn compress_append(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let i = wg.x;
    let s = step[i];
    let width = select(1u, 2u, args.ratio == 4u) * DIM;
    if ((s.pos + 1u) % args.ratio == 0u) {
        let to = s.slot * args.rows_per_slot + s.pos / args.ratio;
        let start = s.pos + 1u - args.ratio;
//if INDEXED
        var v = pool(i, s, tid, width);
        let scale = inverseSqrt(block_sum(v * v, tid) / f32(INDEX) + RMS_EPS);
        v = v * scale * values[args.norm + tid];
        row_values[tid] = v;
        workgroupBarrier();
        if (tid >= INDEX - ROT) {
            let other = row_values[tid ^ 1u];
            let pair = args.rope + (tid - (INDEX - ROT)) / 2u;
            if ((tid & 1u) == 0u) { v = rotated(vec2<f32>(v, other), rope[pair], start).x; }
            else { v = rotated(vec2<f32>(other, v), rope[pair], start).y; }
        }
        workgroupBarrier();
        encode_index_row(hadamard(v, tid), to * INDEX_WORDS, tid);
//else
        for (var c = tid; c < HEAD; c += 128u) { row_values[c] = pool(i, s, c, width); }
        workgroupBarrier();
        let c = 4u * tid;
        var v = vec4<f32>(row_values[c], row_values[c + 1u], row_values[c + 2u], row_values[c + 3u]);
        let scale = inverseSqrt(block_sum(dot(v, v), tid) / f32(HEAD) + RMS_EPS);
        let w = args.norm + 4u * tid;
        v = v * scale * vec4<f32>(values[w], values[w + 1u], values[w + 2u], values[w + 3u]);
        encode_row(rotate4(v, 4u * tid, HEAD, args.rope, start), to * ROW_WORDS, tid);
//end
    }
    if (args.keeps != 0u) { keep_inputs(i, s, width, tid); }
}

//else
@compute @workgroup_size(128)
fn compress_keep(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    keep_inputs(wg.x, step[wg.x], select(1u, 2u, args.ratio == 4u) * DIM, tid);
}
//end
