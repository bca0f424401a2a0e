// attend: one online softmax over the window and the visible compressed rows, with a sink per head (model.md 5.2, 5.3). 128
// invocations: a group of 32 lanes has a head, a lane sixteen of its columns.
//   attend: grid (parts, groups of 4 heads, rows). Four rows at a time are decoded, one by each group, and shared through workgroup
//           memory. What a part has summed is left in [row][part][N_HEAD][PART].
//   attend_combine: grid (groups of 4 heads, rows, 1): parts in their order, the sink, the inverse rotation.
// With FUSED the last part of a row's group of heads to be there combines them too.

const PART = HEAD / 4u + 1u;              // fours of a head's sums, column 16 lane + 4 i in place 32 i + lane; then maximum and weight
const GROUPS = (N_HEAD + 3u) / 4u;

// Rows of a part: those of the step, or what a row of the step asks for by itself: at most 32 parts, of no less than 16 rows.
fn part_rows(total: u32) -> u32 {
    if (args.per_part != 0u) { return args.per_part; }
    var rows = 16u;
    while (32u * rows < total) { rows *= 2u; }
    return rows;
}

fn mixed(sum: vec4<f32>, p: vec4<f32>, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return fma(d, vec4<f32>(p.w), fma(c, vec4<f32>(p.z), fma(b, vec4<f32>(p.y), fma(a, vec4<f32>(p.x), sum))));
}

//if SPLIT
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> window: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> selected: array<u32>;
//if FUSED
@coherent @group(0) @binding(5) var<storage, read_write> parts: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> values: array<f32>;
@group(0) @binding(7) var<storage, read> rope: array<f32>;
@group(0) @binding(8) var<storage, read_write> heads: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> tickets: array<atomic<u32>>;
//else
@group(0) @binding(5) var<storage, read_write> parts: array<vec4<f32>>;
//end

// Two sets of four rows, so that one is filled while the other may still be read.
var<workgroup> tile: array<vec4<f32>, 2u * 4u * (HEAD / 4u)>;

// Words of a cache row that a lane decodes: its codes and all exponents, or sixteen halves of the tail.
struct Piece { a: vec4<u32>, b: vec4<u32> }

const PAIRS = ROW_WORDS / 2u;
const TAIL = NOPE / 8u + 1u;

// First of its two pairs of words, and of the other two.
fn places(lane: u32) -> vec2<u32> {
    return select(vec2<u32>(2u * lane, NOPE / 8u), vec2<u32>(TAIL + 4u * lane - 112u, TAIL + 4u * lane - 110u), lane >= 28u);
}

// Visible row `j`, of which there are more.
fn fetch(row: u32, s: StepRow, j: u32, lane: u32) -> Piece {
    let raw = raw_rows(s.pos);
    if (j < raw) {
        let at = (s.slot * args.window_per_slot + (s.pos + 1u - raw + j) % args.window_per_slot) * PAIRS + places(lane);
        return Piece(vec4<u32>(window[at.x], window[at.x + 1u]), vec4<u32>(window[at.y], window[at.y + 1u]));
    }
    var c = j - raw;
    if (chooses(s.pos)) { c = selected[row * TOP_K + c]; }
    let at = (s.slot * args.rows_per_slot + c) * PAIRS + places(lane);
    return Piece(vec4<u32>(rows[at.x], rows[at.x + 1u]), vec4<u32>(rows[at.y], rows[at.y + 1u]));
}

// Columns 16 lane .. + 15.
fn decoded(p: Piece, lane: u32) -> mat4x4<f32> {
    if (lane >= 28u) {
        return mat4x4<f32>(vec4<f32>(unpack2x16float(p.a.x), unpack2x16float(p.a.y)), vec4<f32>(unpack2x16float(p.a.z), unpack2x16float(p.a.w)),
            vec4<f32>(unpack2x16float(p.b.x), unpack2x16float(p.b.y)), vec4<f32>(unpack2x16float(p.b.z), unpack2x16float(p.b.w)));
    }
    let e = select(p.b.x, p.b.y, lane >= 16u) >> (8u * ((lane / 4u) & 3u));
    let scale = exp2_of(i32(e & 0xffu) - 127) * E4M3_UNIT;
    return mat4x4<f32>(scale * e4m3_units(p.a.x), scale * e4m3_units(p.a.y), scale * e4m3_units(p.a.z), scale * e4m3_units(p.a.w));
}

fn product(a: mat4x4<f32>, b: mat4x4<f32>) -> f32 {
    return chain(a[3], b[3], chain(a[2], b[2], chain(a[1], b[1], chain(a[0], b[0], 0.0))));
}

fn shared_row(at: u32) -> mat4x4<f32> { return mat4x4<f32>(tile[at], tile[at + 32u], tile[at + 64u], tile[at + 96u]); }

@compute @workgroup_size(128)
fn attend(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = args.first_row + wg.z;
    let s = step[row];
    let total = visible(s.pos);
    let per_part = part_rows(total);
    let first = wg.x * per_part;
    if (first >= total) { return; }
    let last = min(total, first + per_part);
    let lane = tid & 31u;
    let group = tid / 32u;
    let head = 4u * wg.y + group;
    let at = (row * N_HEAD + min(head, N_HEAD - 1u)) * (HEAD / 4u) + 4u * lane;
    let mine = mat4x4<f32>(q[at], q[at + 1u], q[at + 2u], q[at + 3u]);
    var sum = mat4x4<f32>();
    var top = -3.4e38;
    var weight = 0.0;
    var next = fetch(row, s, min(first + group, last - 1u), lane);
    for (var j = first; j < last; j += 4u) {
        let held = ((j - first) & 4u) * 128u + lane;
        let own = decoded(next, lane);
        tile[held + 128u * group] = own[0];
        tile[held + 128u * group + 32u] = own[1];
        tile[held + 128u * group + 64u] = own[2];
        tile[held + 128u * group + 96u] = own[3];
        next = fetch(row, s, min(j + 4u + group, last - 1u), lane); // on its way while these are worked on
        workgroupBarrier();
        let v0 = shared_row(held);
        let v1 = shared_row(held + 128u);
        let v2 = shared_row(held + 256u);
        let v3 = shared_row(held + 384u);
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
    if (head < N_HEAD) {
        let to = ((wg.z * args.parts + wg.x) * N_HEAD + head) * PART;
        parts[to + lane] = sum[0];
        parts[to + lane + 32u] = sum[1];
        parts[to + lane + 64u] = sum[2];
        parts[to + lane + 96u] = sum[3];
        if (lane == 0u) { parts[to + HEAD / 4u] = vec4<f32>(top, weight, 0.0, 0.0); }
    }
//if FUSED
    let count = (total + per_part - 1u) / per_part;
    if (is_last(row * GROUPS + wg.y, 1u, count, tid)) { combine(wg.z, row, head, tid); }
//end
}
//else
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> rope: array<f32>;
@group(0) @binding(4) var<storage, read_write> heads: array<vec4<f32>>;

//end
//if COMBINE
fn unrotated(v: vec4<f32>, pair: u32, pos: u32) -> vec4<f32> {
    return vec4<f32>(rotated_back(v.xy, rope[pair], pos), rotated_back(v.zw, rope[pair + 1u], pos));
}

// Of each part of a group's head: its maximum and weight, then its share and what that makes of the weight.
var<workgroup> stats: array<vec2<f32>, 128>;

// A lane's sixteen columns of a head, and its part's share in them; `place` is the row's among those of the dispatch. There are at
// most 32 parts, read four at a time.
fn combine(place: u32, row: u32, head: u32, tid: u32) {
    let lane = tid & 31u;
    let pos = step[row].pos;
    let total = visible(pos);
    let per_part = part_rows(total);
    let count = (total + per_part - 1u) / per_part;
    let base = (place * args.parts * N_HEAD + min(head, N_HEAD - 1u)) * PART;
    const STRIDE = N_HEAD * PART;
    let sink = values[args.sinks + min(head, N_HEAD - 1u)];
    let own = select(vec2<f32>(-3.4e38, 0.0), parts[base + min(lane, count - 1u) * STRIDE + HEAD / 4u].xy, lane < count);
    stats[tid] = own;
    workgroupBarrier();
    let first_stats = tid & ~31u;
    var top = sink;
    for (var p = 0u; p < count; p += 4u) {
        let at = first_stats + p;
        top = max(max(max(top, stats[at].x), max(stats[at + 1u].x, stats[at + 2u].x)), stats[at + 3u].x);
    }
    let share = exp(own.x - top);
    workgroupBarrier();
    stats[tid] = vec2<f32>(share, own.y * share);
    workgroupBarrier();
    var sum = mat4x4<f32>();
    var weight = exp(sink - top);
    for (var first = 0u; first < count; first += 4u) {
//each i 4
        let at$i = base + min(first + $iu, count - 1u) * STRIDE + lane;
        let v$i = mat4x4<f32>(parts[at$i], parts[at$i + 32u], parts[at$i + 64u], parts[at$i + 96u]);
        let p$i = stats[first_stats + first + $iu];
//end
        let p = vec4<f32>(p0.x, p1.x, p2.x, p3.x);
        weight += p0.y + p1.y + p2.y + p3.y;
        sum = mat4x4<f32>(mixed(sum[0], p, v0[0], v1[0], v2[0], v3[0]), mixed(sum[1], p, v0[1], v1[1], v2[1], v3[1]),
            mixed(sum[2], p, v0[2], v1[2], v2[2], v3[2]), mixed(sum[3], p, v0[3], v1[3], v2[3], v3[3]));
    }
    sum = sum * (1.0 / weight);
    if (16u * lane >= NOPE) {
        let pair = args.rope + (16u * lane - NOPE) / 2u;
        sum = mat4x4<f32>(unrotated(sum[0], pair, pos), unrotated(sum[1], pair + 2u, pos),
            unrotated(sum[2], pair + 4u, pos), unrotated(sum[3], pair + 6u, pos));
    }
    if (head >= N_HEAD) { return; }
    let to = (row * N_HEAD + head) * (HEAD / 4u) + 4u * lane;
    heads[to] = sum[0];
    heads[to + 1u] = sum[1];
    heads[to + 2u] = sum[2];
    heads[to + 3u] = sum[3];
}
//if SPLIT
//else
@compute @workgroup_size(128)
fn attend_combine(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let head = 4u * wg.x + tid / 32u;
    combine(wg.y, args.first_row + wg.y, head, tid);
}
//end
//end
