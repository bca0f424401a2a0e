// attend: one online softmax over the window and the visible compressed rows, with a sink per head (model.md 5.2, 5.3). Visible
// rows are numbered: first the window, oldest first, then compressed rows, ascending.
//   attend: grid (parts, groups of 8 heads, rows), 256 invocations: a group of 32 lanes has a head, a lane sixteen of its columns.
//           A part is PART rows, whatever the step; sums of a part are left in [row][part][N_HEAD][HEAD + 2].
//   attend_combine: grid (N_HEAD, rows, 1), 128 invocations: parts in their order, the sink, the inverse rotation.
// With FUSED the last part of a row's group of heads to be there combines them too.

struct Args {
    ratio: u32, parts: u32, first_row: u32, per_part: u32,
    window_per_slot: u32, rows_per_slot: u32, sinks: u32, rope: u32,
}
var<immediate> args: Args;

const PART_FLOATS = HEAD + 2u;
const SCORE_SCALE = 0.044194173824159216; // 1 / sqrt(512)

@group(0) @binding(0) var<storage, read> step: array<StepRow>;

fn compressed_rows(pos: u32) -> u32 { return select(0u, (pos + 1u) / max(args.ratio, 1u), args.ratio != 0u); }
fn chooses(pos: u32) -> bool { return args.ratio == 4u && compressed_rows(pos) > TOP_K; }
fn first_raw(pos: u32) -> u32 { return pos + 1u - min(pos + 1u, WINDOW); }
fn visible(pos: u32) -> u32 {
    return pos + 1u - first_raw(pos) + select(compressed_rows(pos), TOP_K, chooses(pos));
}

//if SPLIT
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> window: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<u32>;
@group(0) @binding(4) var<storage, read> selected: array<u32>;
//if FUSED
@coherent @group(0) @binding(5) var<storage, read_write> parts: array<f32>;
@group(0) @binding(6) var<storage, read> values: array<f32>;
@group(0) @binding(7) var<storage, read> rope: array<f32>;
@group(0) @binding(8) var<storage, read_write> heads: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> tickets: array<atomic<u32>>;
//else
@group(0) @binding(5) var<storage, read_write> parts: array<f32>;
//end

// Columns 16 lane .. + 15 of a row that begins at a word of its table.
fn load_window(src: u32, lane: u32) -> mat4x4<f32> {
    if (lane >= 28u) {
        let at = src + NOPE / 4u + 2u + 8u * (lane - 28u);
        return halves(window[at], window[at + 1u], window[at + 2u], window[at + 3u],
            window[at + 4u], window[at + 5u], window[at + 6u], window[at + 7u]);
    }
    let at = src + 4u * lane;
    let block = lane / 4u;
    let scale = exp2_of(i32((window[src + NOPE / 4u + block / 4u] >> (8u * (block & 3u))) & 0xffu) - 127);
    return mat4x4<f32>(scale * e4m3_values(window[at]), scale * e4m3_values(window[at + 1u]),
        scale * e4m3_values(window[at + 2u]), scale * e4m3_values(window[at + 3u]));
}

fn load_row(src: u32, lane: u32) -> mat4x4<f32> {
    if (lane >= 28u) {
        let at = src + NOPE / 4u + 2u + 8u * (lane - 28u);
        return halves(rows[at], rows[at + 1u], rows[at + 2u], rows[at + 3u],
            rows[at + 4u], rows[at + 5u], rows[at + 6u], rows[at + 7u]);
    }
    let at = src + 4u * lane;
    let block = lane / 4u;
    let scale = exp2_of(i32((rows[src + NOPE / 4u + block / 4u] >> (8u * (block & 3u))) & 0xffu) - 127);
    return mat4x4<f32>(scale * e4m3_values(rows[at]), scale * e4m3_values(rows[at + 1u]),
        scale * e4m3_values(rows[at + 2u]), scale * e4m3_values(rows[at + 3u]));
}

fn halves(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32) -> mat4x4<f32> {
    return mat4x4<f32>(vec4<f32>(unpack2x16float(a), unpack2x16float(b)), vec4<f32>(unpack2x16float(c), unpack2x16float(d)),
        vec4<f32>(unpack2x16float(e), unpack2x16float(f)), vec4<f32>(unpack2x16float(g), unpack2x16float(h)));
}

fn product(a: mat4x4<f32>, b: mat4x4<f32>) -> f32 {
    return chain(a[3], b[3], chain(a[2], b[2], chain(a[1], b[1], chain(a[0], b[0], 0.0))));
}

// Visible row `j`; past the last, the last.
fn load(row: u32, s: StepRow, j: u32, lane: u32) -> mat4x4<f32> {
    let first = first_raw(s.pos);
    let raw = s.pos + 1u - first;
    if (j < raw) {
        return load_window((s.slot * args.window_per_slot + (first + j) % args.window_per_slot) * ROW_WORDS, lane);
    }
    var c = j - raw;
    if (chooses(s.pos)) { c = selected[row * TOP_K + c]; }
    return load_row((s.slot * args.rows_per_slot + c) * ROW_WORDS, lane);
}

fn mixed(sum: vec4<f32>, p: vec4<f32>, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return fma(d, vec4<f32>(p.w), fma(c, vec4<f32>(p.z), fma(b, vec4<f32>(p.y), fma(a, vec4<f32>(p.x), sum))));
}

fn store4(at: u32, v: vec4<f32>) {
    parts[at] = v.x; parts[at + 1u] = v.y; parts[at + 2u] = v.z; parts[at + 3u] = v.w;
}

@compute @workgroup_size(256)
fn attend(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = args.first_row + wg.z;
    let s = step[row];
    let total = visible(s.pos);
    let first = wg.x * args.per_part;
    if (first >= total) { return; }
    let last = min(total, first + args.per_part);
    let lane = tid & 31u;
    let head = 8u * wg.y + tid / 32u;
    let at = (row * N_HEAD + min(head, N_HEAD - 1u)) * (HEAD / 4u) + 4u * lane;
    let mine = mat4x4<f32>(q[at], q[at + 1u], q[at + 2u], q[at + 3u]);
    var sum = mat4x4<f32>();
    var top = -3.4e38;
    var weight = 0.0;
    for (var j = first; j < last; j += 4u) {
        let v0 = load(row, s, j, lane);
        let v1 = load(row, s, min(j + 1u, last - 1u), lane);
        let v2 = load(row, s, min(j + 2u, last - 1u), lane);
        let v3 = load(row, s, min(j + 3u, last - 1u), lane);
        var scores = SCORE_SCALE * lane_sum4(vec4<f32>(product(mine, v0), product(mine, v1), product(mine, v2), product(mine, v3)), tid);
        if (j + 1u >= last) { scores.y = -3.4e38; }
        if (j + 2u >= last) { scores.z = -3.4e38; }
        if (j + 3u >= last) { scores.w = -3.4e38; }
        let highest = max(top, max(max(scores.x, scores.y), max(scores.z, scores.w)));
        let shrink = exp(top - highest);
        let p = exp(scores - highest);
        weight = fma(weight, shrink, p.x + p.y + p.z + p.w);
        top = highest;
        sum = mat4x4<f32>(mixed(sum[0] * shrink, p, v0[0], v1[0], v2[0], v3[0]), mixed(sum[1] * shrink, p, v0[1], v1[1], v2[1], v3[1]),
            mixed(sum[2] * shrink, p, v0[2], v1[2], v2[2], v3[2]), mixed(sum[3] * shrink, p, v0[3], v1[3], v2[3], v3[3]));
    }
    if (head < N_HEAD) { store_part(wg, head, lane, sum, vec2<f32>(top, weight)); }
//if FUSED
    let count = (total + args.per_part - 1u) / args.per_part;
    if (!is_last(row * ((N_HEAD + 7u) / 8u) + wg.y, count, tid)) { return; }
    // 256 invocations have two heads at a time.
    for (var h = 8u * wg.y + tid / 128u; h < min(8u * wg.y + 8u, N_HEAD); h += 2u) { combine(wg.z, row, h, tid & 127u); }
//end
}

fn store_part(wg: vec3<u32>, head: u32, lane: u32, sum: mat4x4<f32>, stats: vec2<f32>) {
    let to = ((wg.z * args.parts + wg.x) * N_HEAD + head) * PART_FLOATS;
    store4(to + 16u * lane, sum[0]);
    store4(to + 16u * lane + 4u, sum[1]);
    store4(to + 16u * lane + 8u, sum[2]);
    store4(to + 16u * lane + 12u, sum[3]);
    if (lane == 0u) {
        parts[to + HEAD] = stats.x;
        parts[to + HEAD + 1u] = stats.y;
    }
}
//else
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> rope: array<f32>;
@group(0) @binding(4) var<storage, read_write> heads: array<vec4<f32>>;

//end
//if COMBINE
// Four columns of a head; `place` is the row's among those of the dispatch.
fn combine(place: u32, row: u32, head: u32, tid: u32) {
    let pos = step[row].pos;
    let count = (visible(pos) + args.per_part - 1u) / args.per_part;
    let sink = values[args.sinks + head];
    var top = sink;
    for (var p = 0u; p < count; p += 1u) {
        top = max(top, parts[((place * args.parts + p) * N_HEAD + head) * PART_FLOATS + HEAD]);
    }
    var sum = vec4<f32>();
    var weight = exp(sink - top);
    for (var p = 0u; p < count; p += 1u) {
        let at = ((place * args.parts + p) * N_HEAD + head) * PART_FLOATS;
        let share = exp(parts[at + HEAD] - top);
        let src = at + 4u * tid;
        sum = fma(vec4<f32>(parts[src], parts[src + 1u], parts[src + 2u], parts[src + 3u]), vec4<f32>(share), sum);
        weight = fma(parts[at + HEAD + 1u], share, weight);
    }
    sum = sum / weight;
    let column = 4u * tid;
    if (column >= NOPE) {
        let pair = args.rope + (column - NOPE) / 2u;
        sum = vec4<f32>(rotated_back(sum.xy, rope[pair], pos), rotated_back(sum.zw, rope[pair + 1u], pos));
    }
    heads[(row * N_HEAD + head) * (HEAD / 4u) + tid] = sum;
}
//if SPLIT
//else
@compute @workgroup_size(128)
fn attend_combine(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    combine(wg.y, args.first_row + wg.y, wg.x, tid);
}
//end
//end
