// Products of few rows: out[row][m] = sum_k w[m][k] x[row][k]. Bound by the bytes of weights: a group of 32 lanes reads two
// weight rows side by side, sixteen bytes a lane, and multiplies them with BATCH rows of x. A row's sum is made the same way
// whatever the number of rows.
//   grid: (blocks of 16 weight rows of all segments, ceil(n / BATCH), 1), 256 invocations
// `dense_post` ends a sublayer: its one segment's outputs go into the streams, X'[b] = post_b y + sum_a C[a][b] X[a].

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
struct Args { n: u32, k: u32, x_stride: u32, out_stride: u32, segments: u32, x_first: u32, pad0: u32, pad1: u32 }
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> segments: array<Segment>;
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> words: array<u32>;
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
//if POST
@group(0) @binding(4) var<storage, read_write> streams: array<f32>;
@group(0) @binding(5) var<storage, read> mix: array<f32>;
//else
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
//end

fn store(row: u32, m: u32, y: f32) {
//if POST
    var old: array<f32, HC>;
    for (var h = 0u; h < HC; h += 1u) { old[h] = streams[(row * HC + h) * N_EMBD + m]; }
    for (var b = 0u; b < HC; b += 1u) {
        var v = mix[row * MIX + b] * y;
        for (var h = 0u; h < HC; h += 1u) { v = fma(mix[row * MIX + HC + h * HC + b], old[h], v); }
        streams[(row * HC + b) * N_EMBD + m] = v;
    }
//else
    out[row * args.out_stride + m] = y;
//end
}

fn store_pair(segment: Segment, m: u32, row: u32, y: vec2<f32>) {
    if (row >= args.n) { return; }
    if (m < segment.rows) { store(row, segment.to + m, y.x); }
    if (m + 1u < segment.rows) { store(row, segment.to + m + 1u, y.y); }
}

fn q8_step(s: vec2<f32>, a: vec4<u32>, b: vec4<u32>, d: vec2<f32>, i: u32) -> vec2<f32> {
    let v0 = x[i]; let v1 = x[i + 1u]; let v2 = x[i + 2u]; let v3 = x[i + 3u];
    return fma(d, vec2<f32>(q8_dot(a, v0, v1, v2, v3), q8_dot(b, v0, v1, v2, v3)), s);
}

fn f16_step(s: vec2<f32>, a: vec4<u32>, b: vec4<u32>, i: u32) -> vec2<f32> {
    let v0 = x[i]; let v1 = x[i + 1u];
    return s + vec2<f32>(f16_dot(a, v0, v1), f16_dot(b, v0, v1));
}

@compute @workgroup_size(256)
fn dense(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    var s = 0u;
    while (s + 1u < args.segments && wg.x >= segments[s + 1u].first) { s += 1u; }
    let segment = segments[s];
    let lane = tid & 31u;
    let m0 = ((wg.x - segment.first) * 8u + tid / 32u) * 2u;
    let pieces = select(select(args.k / 4u, args.k / 8u, segment.format == FORMAT_F16), args.k / 16u, segment.format == FORMAT_Q8);
    let ma = min(m0, segment.rows - 1u);
    let mb = min(m0 + 1u, segment.rows - 1u);
    let ca = segment.codes + ma * pieces;
    let cb = segment.codes + mb * pieces;
    // A group of weight rows shares its part of x; the two rows of a lane are of one group.
    let part = (ma + segment.group_first) / segment.group_rows * (args.k / 4u);
    let row = wg.y * BATCH;
    let x0 = min(row, args.n - 1u) * args.x_stride + part;
    var s0 = vec2<f32>();
//if MANY
    let x1 = min(row + 1u, args.n - 1u) * args.x_stride + part;
    let x2 = min(row + 2u, args.n - 1u) * args.x_stride + part;
    let x3 = min(row + 3u, args.n - 1u) * args.x_stride + part;
    var s1 = vec2<f32>();
    var s2 = vec2<f32>();
    var s3 = vec2<f32>();
//end
    if (segment.format == FORMAT_Q8) {
        let da = segment.scales + ma * (args.k / 64u);
        let db = segment.scales + mb * (args.k / 64u);
        for (var p = lane; p < pieces; p += 32u) {
            let wa = codes[ca + p];
            let wb = codes[cb + p];
            let d = vec2<f32>(half_of(words[da + p / 4u], p & 2u), half_of(words[db + p / 4u], p & 2u));
            s0 = q8_step(s0, wa, wb, d, x0 + 4u * p);
//if MANY
            s1 = q8_step(s1, wa, wb, d, x1 + 4u * p);
            s2 = q8_step(s2, wa, wb, d, x2 + 4u * p);
            s3 = q8_step(s3, wa, wb, d, x3 + 4u * p);
//end
        }
    } else if (segment.format == FORMAT_F16) {
        for (var p = lane; p < pieces; p += 32u) {
            let wa = codes[ca + p];
            let wb = codes[cb + p];
            s0 = f16_step(s0, wa, wb, x0 + 2u * p);
//if MANY
            s1 = f16_step(s1, wa, wb, x1 + 2u * p);
            s2 = f16_step(s2, wa, wb, x2 + 2u * p);
            s3 = f16_step(s3, wa, wb, x3 + 2u * p);
//end
        }
    } else {
        for (var p = lane; p < pieces; p += 32u) {
            let wa = bitcast<vec4<f32>>(codes[ca + p]);
            let wb = bitcast<vec4<f32>>(codes[cb + p]);
            s0 = vec2<f32>(chain(wa, x[x0 + p], s0.x), chain(wb, x[x0 + p], s0.y));
//if MANY
            s1 = vec2<f32>(chain(wa, x[x1 + p], s1.x), chain(wb, x[x1 + p], s1.y));
            s2 = vec2<f32>(chain(wa, x[x2 + p], s2.x), chain(wb, x[x2 + p], s2.y));
            s3 = vec2<f32>(chain(wa, x[x3 + p], s3.x), chain(wb, x[x3 + p], s3.y));
//end
        }
    }
//if MANY
    let first = first_sum4(vec4<f32>(s0, s1), tid);
    let second = first_sum4(vec4<f32>(s2, s3), tid);
    if (lane == 0u) {
        store_pair(segment, m0, row, first.xy);
        store_pair(segment, m0, row + 1u, first.zw);
        store_pair(segment, m0, row + 2u, second.xy);
        store_pair(segment, m0, row + 3u, second.zw);
    }
//else
    let first = first_sum4(vec4<f32>(s0, 0.0, 0.0), tid);
    if (lane == 0u) { store_pair(segment, m0, row, first.xy); }
//end
}
