// Products of few rows: out[row][m] = sum_k w[m][k] x[row][k]. Bound by the bytes of weights: a group of 32 lanes reads WIDE
// weight rows side by side, sixteen bytes a lane, and multiplies them with BATCH rows of x. A row's sum is made the same way
// whatever the number of rows.
//   grid: (blocks of 8 * WIDE weight rows of all segments, ceil(n / BATCH), 1), 256 invocations
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

@compute @workgroup_size(256)
fn dense(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    var s = 0u;
    while (s + 1u < args.segments && wg.x >= segments[s + 1u].first) { s += 1u; }
    let segment = segments[s];
    let lane = tid & 31u;
    let m0 = ((wg.x - segment.first) * 8u + tid / 32u) * WIDE;
    let pieces = select(select(args.k / 4u, args.k / 8u, segment.format == FORMAT_F16), args.k / 16u, segment.format == FORMAT_Q8);
    let group = min(m0 + segment.group_first, segment.group_first + segment.rows - 1u) / segment.group_rows;
    var src: array<u32, WIDE>;  // codes of the lane's weight rows
    var scale: array<u32, WIDE>; // and their scales
    for (var r = 0u; r < WIDE; r += 1u) {
        let m = min(m0 + r, segment.rows - 1u);
        src[r] = segment.codes + m * pieces;
        scale[r] = segment.scales + m * (args.k / 64u);
    }
    var at: array<u32, BATCH>;   // rows of x
    for (var b = 0u; b < BATCH; b += 1u) {
        at[b] = (args.x_first + min(wg.y * BATCH + b, args.n - 1u)) * args.x_stride + group * (args.k / 4u);
    }
    var sum: array<array<f32, BATCH>, WIDE>;
    for (var r = 0u; r < WIDE; r += 1u) { for (var b = 0u; b < BATCH; b += 1u) { sum[r][b] = 0.0; } }
    if (segment.format == FORMAT_Q8) {
        for (var p = lane; p < pieces; p += 32u) {
            var w: array<vec4<u32>, WIDE>;
            var d: array<f32, WIDE>;
            for (var r = 0u; r < WIDE; r += 1u) {
                w[r] = codes[src[r] + p];
                d[r] = half_of(words[scale[r] + p / 4u], p & 2u);
            }
            for (var b = 0u; b < BATCH; b += 1u) {
                let i = at[b] + 4u * p;
                let v0 = x[i]; let v1 = x[i + 1u]; let v2 = x[i + 2u]; let v3 = x[i + 3u];
                for (var r = 0u; r < WIDE; r += 1u) { sum[r][b] = fma(d[r], q8_dot(w[r], v0, v1, v2, v3), sum[r][b]); }
            }
        }
    } else if (segment.format == FORMAT_F16) {
        for (var p = lane; p < pieces; p += 32u) {
            var w: array<vec4<u32>, WIDE>;
            for (var r = 0u; r < WIDE; r += 1u) { w[r] = codes[src[r] + p]; }
            for (var b = 0u; b < BATCH; b += 1u) {
                let i = at[b] + 2u * p;
                let v0 = x[i]; let v1 = x[i + 1u];
                for (var r = 0u; r < WIDE; r += 1u) { sum[r][b] += f16_dot(w[r], v0, v1); }
            }
        }
    } else {
        for (var p = lane; p < pieces; p += 32u) {
            for (var b = 0u; b < BATCH; b += 1u) {
                let v0 = x[at[b] + p];
                for (var r = 0u; r < WIDE; r += 1u) { sum[r][b] = chain(bitcast<vec4<f32>>(codes[src[r] + p]), v0, sum[r][b]); }
            }
        }
    }
    for (var b = 0u; b < BATCH; b += 1u) {
        for (var r = 0u; r < WIDE; r += 1u) {
            let total = lane_sum(sum[r][b], tid);
            let row = wg.y * BATCH + b;
            if (lane == 0u && m0 + r < segment.rows && row < args.n) { store(row, segment.to + m0 + r, total); }
        }
    }
}
