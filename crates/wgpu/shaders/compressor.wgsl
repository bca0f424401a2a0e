// compress: rows of the windows that close in this step, and the open windows' inputs. With INDEX_CACHE for the indexer as well.
//   compress_append: grid (rows, 1 or 2, 1): the attention row, the index row
//   compress_keep: grid (rows, 1 or 2, 1): this step's inputs to their rings; 128 invocations
// In a step of one row for each sequence nothing that is kept is still needed: one dispatch does both (`keeps`).
// Inputs of a position: [value w][gate w], of this step or, before `first`, of the ring. Softmax over the entries of a channel: of
// ratio 128 the window's; of ratio 4 the previous window's first halves, where there is one, and this window's second halves.

// With JOINED this stands beside the products of `query`.

// A compressor's norm, its cache rows and its ring.
struct Site { norm: u32, rows_per_slot: u32, frontier_per_slot: u32 }
struct Finish { ratio: u32, keeps: u32, attention: Site, indexer: Site }
//if JOINED
@group(0) @binding(9) var<storage, read> inputs: array<f32>;
@group(0) @binding(10) var<storage, read_write> ring: array<f32>;
@group(0) @binding(11) var<storage, read> values: array<f32>;
@group(0) @binding(12) var<storage, read_write> cache: array<u32>;
//if INDEX_CACHE
@group(0) @binding(13) var<storage, read> index_inputs: array<f32>;
@group(0) @binding(14) var<storage, read_write> index_ring: array<f32>;
@group(0) @binding(15) var<storage, read_write> index_cache: array<u32>;
//end
//else
struct Args { own: Finish }
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
//if APPEND
@group(0) @binding(1) var<storage, read> rope: array<f32>;
@group(0) @binding(2) var<storage, read> inputs: array<f32>;
@group(0) @binding(3) var<storage, read_write> ring: array<f32>;
@group(0) @binding(4) var<storage, read> values: array<f32>;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;
//if INDEX_CACHE
@group(0) @binding(6) var<storage, read> index_inputs: array<f32>;
@group(0) @binding(7) var<storage, read_write> index_ring: array<f32>;
@group(0) @binding(8) var<storage, read_write> index_cache: array<u32>;
//end
//else
@group(0) @binding(1) var<storage, read> inputs: array<f32>;
@group(0) @binding(2) var<storage, read_write> ring: array<f32>;
//if INDEX_CACHE
@group(0) @binding(3) var<storage, read> index_inputs: array<f32>;
@group(0) @binding(4) var<storage, read_write> index_ring: array<f32>;
//end
//end
//end

fn width_of(dim: u32) -> u32 { return select(dim, 2u * dim, args.own.ratio == 4u); }

// Word `i` of a row's inputs.
fn input(indexed: bool, i: u32) -> f32 {
//if INDEX_CACHE
    if (indexed) { return index_inputs[i]; }
//end
    return inputs[i];
}

// This step's inputs to their ring.
fn keep_inputs(indexed: bool, i: u32, s: StepRow, width: u32, per_slot: u32, tid: u32) {
    if (s.end - s.pos > per_slot) { return; }
    let to = (s.slot * per_slot + s.pos % per_slot) * 2u * width;
    for (var c = tid; c < 2u * width; c += 128u) {
        let v = input(indexed, i * 2u * width + c);
//if INDEX_CACHE
        if (indexed) { index_ring[to + c] = v; continue; }
//end
        ring[to + c] = v;
    }
}

//if APPEND
// Word `c` of the inputs of position `p`: of this step, or before it of the ring. Both are read, so that nothing waits for a choice.
fn input_at(indexed: bool, i: u32, s: StepRow, p: u32, c: u32, width: u32, per_slot: u32) -> f32 {
    let here = p >= s.first;
    let at = select(i, i - (s.pos - p), here) * 2u * width + c;
    let before = (s.slot * per_slot + p % per_slot) * 2u * width + c;
//if INDEX_CACHE
    if (indexed) { return select(index_ring[before], index_inputs[at], here); }
//end
    return select(ring[before], inputs[at], here);
}

// The pooled channel `j` of the window that closes at row `i`, four positions at a time.
fn pool(indexed: bool, i: u32, s: StepRow, j: u32, width: u32, per_slot: u32) -> f32 {
    let overlaps = args.own.ratio == 4u;
    let half = select(0u, width / 2u, overlaps);
    let start = s.pos + 1u - args.own.ratio;
    let begin = select(start, start - min(start, args.own.ratio), overlaps);
    var top = -3.4e38;
    var total = 0.0;
    var sum = 0.0;
    for (var p = begin; p <= s.pos; p += 4u) {
        let c = j + select(0u, half, p >= start);
        var gates: vec4<f32>;
        var v: vec4<f32>;
        for (var k = 0u; k < 4u; k += 1u) {
            gates[k] = input_at(indexed, i, s, p + k, width + c, width, per_slot);
            v[k] = input_at(indexed, i, s, p + k, c, width, per_slot);
        }
        let highest = max(max(top, max(gates.x, gates.y)), max(gates.z, gates.w));
        let shrink = exp(top - highest);
        let weights = exp(gates - highest);
        total = fma(total, shrink, (weights.x + weights.y) + (weights.z + weights.w));
        sum = fma(sum, shrink, dot(weights, v));
        top = highest;
    }
    return sum / total;
}

fn append_row(i: u32, s: StepRow, tid: u32) {
    let site = args.own.attention;
    for (var c = tid; c < HEAD; c += 128u) { row_values[c] = pool(false, i, s, c, width_of(HEAD), site.frontier_per_slot); }
    workgroupBarrier();
    let c = 4u * tid;
    var v = vec4<f32>(row_values[c], row_values[c + 1u], row_values[c + 2u], row_values[c + 3u]);
    let scale = inverseSqrt(block_sum(dot(v, v), tid) / f32(HEAD) + RMS_EPS);
    let w = site.norm + c;
    v = v * scale * vec4<f32>(values[w], values[w + 1u], values[w + 2u], values[w + 3u]);
    let to = s.slot * site.rows_per_slot + s.pos / args.own.ratio;
    encode_row(rotate4(v, c, HEAD, s.pos + 1u - args.own.ratio), to * ROW_WORDS, tid);
}

//if INDEX_CACHE
fn append_index_row(i: u32, s: StepRow, tid: u32) {
    let site = args.own.indexer;
    var v = pool(true, i, s, tid, width_of(INDEX), site.frontier_per_slot);
    let scale = inverseSqrt(block_sum(v * v, tid) / f32(INDEX) + RMS_EPS);
    v = v * scale * values[site.norm + tid];
    row_values[tid] = v;
    workgroupBarrier();
    if (tid >= INDEX - ROT) {
        let other = row_values[tid ^ 1u];
        let pair = (tid - (INDEX - ROT)) / 2u;
        let start = s.pos + 1u - args.own.ratio;
        if ((tid & 1u) == 0u) { v = rotated(vec2<f32>(v, other), rope[pair], start).x; }
        else { v = rotated(vec2<f32>(other, v), rope[pair], start).y; }
    }
    workgroupBarrier();
    let to = s.slot * site.rows_per_slot + s.pos / args.own.ratio;
    encode_index_row(hadamard(v, tid), to * INDEX_WORDS, tid);
}

//end
// What becomes of row `i`: of the attention's compressor, or with `which` of the indexer's.
fn beside(i: u32, which: u32, tid: u32) {
    let s = step[i];
    let closes = (s.pos + 1u) % args.own.ratio == 0u;
//if INDEX_CACHE
    if (which == 1u) {
        if (closes) { append_index_row(i, s, tid); }
        if (args.own.keeps != 0u) { keep_inputs(true, i, s, width_of(INDEX), args.own.indexer.frontier_per_slot, tid); }
        return;
    }
//end
    if (closes) { append_row(i, s, tid); }
    if (args.own.keeps != 0u) { keep_inputs(false, i, s, width_of(HEAD), args.own.attention.frontier_per_slot, tid); }
}

//if JOINED
//else
@compute @workgroup_size(128)
fn compress_append(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) { beside(wg.x, wg.y, tid); }
//end
//else
@compute @workgroup_size(128)
fn compress_keep(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let s = step[wg.x];
//if INDEX_CACHE
    if (wg.y == 1u) {
        keep_inputs(true, wg.x, s, width_of(INDEX), args.own.indexer.frontier_per_slot, tid);
        return;
    }
//end
    keep_inputs(false, wg.x, s, width_of(HEAD), args.own.attention.frontier_per_slot, tid);
}
//end
