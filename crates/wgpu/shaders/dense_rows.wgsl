// Products of many rows with dense matrices; see `dense.wgsl` for segments and `gemm.wgsl` for tiles.
//   grid: (tiles of 64 weight rows of all segments, ceil(n / 64), 1), 64 invocations

struct Segment {
    codes: u32, scales: u32, rows: u32, first: u32, to: u32, format: u32, group_rows: u32, group_first: u32,
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

// The tile's weight rows and rows of x, set once.
var<private> segment: Segment;
var<private> m_first: u32;
var<private> x_at: u32;

fn fill_w(tid: u32, k0: u32) {
    let m = min(m_first + tid, segment.rows - 1u);
    if (segment.format == FORMAT_Q8) {
        let at = segment.codes + m * (args.k / 16u) + k0 / 16u;
        let d = half_of(words[segment.scales + m * (args.k / 64u) + k0 / 64u], (k0 / 32u) & 1u);
        let a = codes[at];
        let b = codes[at + 1u];
        set_w(tid, 0u, d * signed_bytes(a.x)); set_w(tid, 4u, d * signed_bytes(a.y));
        set_w(tid, 8u, d * signed_bytes(a.z)); set_w(tid, 12u, d * signed_bytes(a.w));
        set_w(tid, 16u, d * signed_bytes(b.x)); set_w(tid, 20u, d * signed_bytes(b.y));
        set_w(tid, 24u, d * signed_bytes(b.z)); set_w(tid, 28u, d * signed_bytes(b.w));
    } else if (segment.format == FORMAT_F16) {
        let at = segment.codes + m * (args.k / 8u) + k0 / 8u;
        for (var i = 0u; i < 4u; i += 1u) {
            let w = codes[at + i];
            set_w(tid, 8u * i, vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)));
            set_w(tid, 8u * i + 4u, vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)));
        }
    } else {
        let at = segment.codes + m * (args.k / 4u) + k0 / 4u;
        for (var i = 0u; i < 8u; i += 1u) { set_w(tid, 4u * i, bitcast<vec4<f32>>(codes[at + i])); }
    }
}

fn fill_x(tid: u32, k0: u32) {
    let at = x_at + k0 / 4u;
    for (var i = 0u; i < 8u; i += 1u) { set_x(tid, 4u * i, x[at + i]); }
}

fn put(row: u32, m: u32, y: f32) {
    if (row >= args.n || m >= segment.rows) { return; }
    let d = segment.to + m;
//if POST
    let old = vec4<f32>(streams[row * HC * N_EMBD + d], streams[(row * HC + 1u) * N_EMBD + d],
        streams[(row * HC + 2u) * N_EMBD + d], streams[(row * HC + 3u) * N_EMBD + d]);
    for (var b = 0u; b < HC; b += 1u) {
        let at = row * MIX + HC + b;
        streams[(row * HC + b) * N_EMBD + d] = fma(mix[at + 12u], old.w,
            fma(mix[at + 8u], old.z, fma(mix[at + 4u], old.y, fma(mix[at], old.x, mix[row * MIX + b] * y))));
    }
//else
    out[row * args.out_stride + d] = y;
//end
}

fn put4(row: u32, m: u32, y: vec4<f32>) {
    put(row, m, y.x); put(row + 1u, m, y.y); put(row + 2u, m, y.z); put(row + 3u, m, y.w);
}

@compute @workgroup_size(64)
fn dense_rows(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    var s = 0u;
    while (s + 1u < args.segments && wg.x >= segments[s + 1u].first) { s += 1u; }
    segment = segments[s];
    m_first = (wg.x - segment.first) * 64u;
    // Whole tiles share their part of x: groups are multiples of 64 rows, or there is one.
    let part = (m_first + segment.group_first) / segment.group_rows * (args.k / 4u);
    x_at = min(64u * wg.y + tid, args.n - 1u) * args.x_stride + part;
    let t = multiply(args.k, tid);
    let row = 64u * wg.y + 4u * (tid & 7u);
    let m = m_first + 4u * (tid / 8u);
//each i 4
    put4(row, m + $iu, t.a[$i]);
    put4(row + 32u, m + $iu, t.b[$i]);
    put4(row, m + 32u + $iu, t.a[$i + 4]);
    put4(row + 32u, m + 32u + $iu, t.b[$i + 4]);
//end
}
