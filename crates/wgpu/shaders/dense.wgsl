// Products of few rows: out[row][m] = sum_k w[m][k] x[row][k]. Bound by the bytes of weights: a group of 32 lanes reads its half of
// four weight rows side by side, sixteen bytes a lane, and multiplies them with BATCH rows of x. A row's sum is made the same way
// whatever the number of rows.
//   grid: (blocks of eight weight rows of all segments, ceil(n / BATCH), 1), 128 invocations
// POST ends a sublayer: its one segment's outputs go into the streams, X'[b] = post_b y + sum_a C[a][b] X[a].
// With FUSED the stage whose text follows makes use of the outputs in this dispatch: it stores them (`keep`), says which of them
// belong together (`unit`: a ticket of a batch of rows and the number of outputs), and the last workgroup of a unit finishes it.
// With JOINED the first `sides` workgroups of a batch of rows do something else.

struct Segment {
    codes: u32,      // first sixteen bytes of the codes
    scales: u32,     // first word of the scales
    rows: u32,       // weight rows
    first: u32,      // block of the grid that the segment begins with
    to: u32,         // its first output
    format: u32,
    group_rows: u32, // weight rows that share a part of x; of the whole matrix if there is but one
    group_first: u32, // weight row, of the whole matrix, that the segment begins with
}
struct Args {
    n: u32, k: u32, x_stride: u32, out_stride: u32, segments: u32, sides: u32, pad0: u32, pad1: u32,
//if FUSED
    own: Finish,
//end
}
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> segments: array<Segment>;
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> words: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
//if POST
@group(0) @binding(4) var<storage, read_write> streams: array<f32>;
@group(0) @binding(5) var<storage, read> mix: array<f32>;

fn old_streams(row: u32, m: u32) -> vec4<f32> {
    let at = row * HC * N_EMBD + m;
    return vec4<f32>(streams[at], streams[at + N_EMBD], streams[at + 2u * N_EMBD], streams[at + 3u * N_EMBD]);
}

fn post(row: u32, m: u32, y: f32, old: vec4<f32>) {
    for (var b = 0u; b < HC; b += 1u) {
        var v = mix[row * MIX + b] * y;
        for (var h = 0u; h < HC; h += 1u) { v = fma(mix[row * MIX + HC + h * HC + b], old[h], v); }
        streams[(row * HC + b) * N_EMBD + m] = v;
    }
}
//else
//if FUSED
//else
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn keep(row: u32, m: u32, y: f32) { out[row * args.out_stride + m] = y; }
//end
//end

fn q8_step(s: vec4<f32>, a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, e: vec4<u32>, d: vec4<f32>, i: u32) -> vec4<f32> {
    let v0 = x[i]; let v1 = x[i + 1u]; let v2 = x[i + 2u]; let v3 = x[i + 3u];
    return fma(d, vec4<f32>(q8_dot(a, v0, v1, v2, v3), q8_dot(b, v0, v1, v2, v3), q8_dot(c, v0, v1, v2, v3), q8_dot(e, v0, v1, v2, v3)), s);
}

fn f16_step(s: vec4<f32>, a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, e: vec4<u32>, i: u32) -> vec4<f32> {
    let v0 = x[i]; let v1 = x[i + 1u];
    return s + vec4<f32>(f16_dot(a, v0, v1), f16_dot(b, v0, v1), f16_dot(c, v0, v1), f16_dot(e, v0, v1));
}

fn f32_step(s: vec4<f32>, a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, e: vec4<u32>, i: u32) -> vec4<f32> {
    let v = x[i];
    return vec4<f32>(chain(bitcast<vec4<f32>>(a), v, s.x), chain(bitcast<vec4<f32>>(b), v, s.y),
        chain(bitcast<vec4<f32>>(c), v, s.z), chain(bitcast<vec4<f32>>(e), v, s.w));
}

var<workgroup> halves: array<f32, 64>; // what the second half of the groups has summed

// Four scales of Q8.
fn scales_of(a: u32, b: u32, c: u32, e: u32, odd: u32) -> vec4<f32> {
    return vec4<f32>(half_of(a, odd), half_of(b, odd), half_of(c, odd), half_of(e, odd));
}

@compute @workgroup_size(128)
fn dense(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
//if JOINED
    if (wg.x < args.sides) {
        for (var r = wg.y * BATCH; r < min(wg.y * BATCH + BATCH, args.n); r += 1u) { beside(r, wg.x, tid); }
        return;
    }
    let place = wg.x - args.sides;
//else
    let place = wg.x;
//end
    var which = 0u;
    for (var i = 1u; i < args.segments; i += 1u) { which += u32(place >= segments[i].first); }
    let segment = segments[which];
    let lane = tid & 31u;
    let half = (tid / 32u) & 1u;
    let begin = lane + 32u * half; // the group's pieces: every other 32
    let block = 8u * (place - segment.first);
    let own0 = block + 4u * (tid / 64u);
    let pieces = select(select(args.k / 4u, args.k / 8u, segment.format == FORMAT_F16), args.k / 16u, segment.format == FORMAT_Q8);
    // A group of weight rows shares its part of x; the four rows of a lane are of one group.
    let part = (min(own0, segment.rows - 1u) + segment.group_first) / segment.group_rows * (args.k / 4u);
    let row = wg.y * BATCH;
//each i 4
    let m$i = min(own0 + $iu, segment.rows - 1u);
    let c$i = segment.codes + m$i * pieces;
//end
    let x0 = min(row, args.n - 1u) * args.x_stride + part;
    var s0 = vec4<f32>();
//if MANY
//each r 3
    let x1_$r = min(row + $ru + 1u, args.n - 1u) * args.x_stride + part;
    var s1_$r = vec4<f32>();
//end
//end
    // What a lane will store: of one batch row one of the group's outputs.
    let own_row = row + lane / 4u;
    let own_m = own0 + (lane & 3u);
    let stores = half == 0u && lane < 4u * BATCH && own_row < args.n && own_m < segment.rows;
//if POST
    var old = vec4<f32>();
    if (stores) { old = old_streams(own_row, segment.to + own_m); }
//end
    if (segment.format == FORMAT_Q8) {
//each i 4
        let e$i = segment.scales + m$i * (args.k / 64u);
//end
        // Two pieces of each row are under way at a time.
        for (var p = begin; p < pieces; p += 128u) {
            let more = p + 64u < pieces;
            let p2 = select(p, p + 64u, more);
//each i 4
            let a$i = codes[c$i + p];
            let d$i = words[e$i + p / 4u];
//end
//each i 4
            let b$i = codes[c$i + p2];
            let g$i = words[e$i + p2 / 4u];
//end
            let d = scales_of(d0, d1, d2, d3, p & 2u);
            s0 = q8_step(s0, a0, a1, a2, a3, d, x0 + 4u * p);
//if MANY
//each r 3
            s1_$r = q8_step(s1_$r, a0, a1, a2, a3, d, x1_$r + 4u * p);
//end
//end
            if (more) {
                let g = scales_of(g0, g1, g2, g3, p & 2u);
                s0 = q8_step(s0, b0, b1, b2, b3, g, x0 + 4u * p2);
//if MANY
//each r 3
                s1_$r = q8_step(s1_$r, b0, b1, b2, b3, g, x1_$r + 4u * p2);
//end
//end
            }
        }
    } else if (segment.format == FORMAT_F16) {
        for (var p = begin; p < pieces; p += 128u) {
            let more = p + 64u < pieces;
            let p2 = select(p, p + 64u, more);
//each i 4
            let a$i = codes[c$i + p];
//end
//each i 4
            let b$i = codes[c$i + p2];
//end
            s0 = f16_step(s0, a0, a1, a2, a3, x0 + 2u * p);
//if MANY
//each r 3
            s1_$r = f16_step(s1_$r, a0, a1, a2, a3, x1_$r + 2u * p);
//end
//end
            if (more) {
                s0 = f16_step(s0, b0, b1, b2, b3, x0 + 2u * p2);
//if MANY
//each r 3
                s1_$r = f16_step(s1_$r, b0, b1, b2, b3, x1_$r + 2u * p2);
//end
//end
            }
        }
    } else {
        for (var p = begin; p < pieces; p += 64u) {
//each i 4
            let a$i = codes[c$i + p];
//end
            s0 = f32_step(s0, a0, a1, a2, a3, x0 + p);
//if MANY
//each r 3
            s1_$r = f32_step(s1_$r, a0, a1, a2, a3, x1_$r + p);
//end
//end
        }
    }
    var y = lane_sum4(s0, tid);
//if MANY
//each r 3
    let t1_$r = lane_sum4(s1_$r, tid);
    if (lane / 4u == $ru + 1u) { y = t1_$r; }
//end
//end
    let own = y[lane & 3u];
    if (half == 1u) { halves[(tid / 64u) * 32u + lane] = own; }
    workgroupBarrier();
    if (stores) {
        let whole = own + halves[(tid / 64u) * 32u + lane];
//if POST
        post(own_row, segment.to + own_m, whole, old);
//else
        keep(own_row, segment.to + own_m, whole);
//end
    }
//if FUSED
    let together = unit(segment.to + block);
    if (together.y == 0u || !is_last(wg.y * UNITS + together.x, min(8u, segment.rows - block), together.y, tid)) { return; }
    for (var r = row; r < min(row + BATCH, args.n); r += 1u) { finish(r, together.x, tid); }
//end
}
