// Products of many rows with dense matrices of one format; see `dense.wgsl` for segments and `gemm.wgsl` for tiles.
//   grid: (tiles of TILE_M weight rows of all segments, ceil(n / TILE_N), 1)

struct Segment {
    codes: u32, scales: u32, rows: u32, first: u32, to: u32, format: u32, group_rows: u32, group_first: u32,
}
struct Args { n: u32, k: u32, x_stride: u32, out_stride: u32, segments: u32, sides: u32, pad0: u32, pad1: u32 }
var<immediate> args: Args;

alias Four = vec4<f32>;
@group(0) @binding(0) var<storage, read> segments: array<Segment>;
//if ORDERED
// Nothing is written to weights and inputs. But what nobody may write NVIDIA's compiler reads only where it is used, and not on the
// way behind multiplications. Metal is told the truth: pages of a file may be among the weights.
@group(0) @binding(1) var<storage, read_write> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> x: array<Four>;
//else
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<Four>;
//end
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//if Q8
//if ORDERED
@group(0) @binding(4) var<storage, read_write> words: array<u32>;
//else
@group(0) @binding(4) var<storage, read> words: array<u32>;
//end
//end

// The tile's weight rows and rows of x, set once.
var<private> segment: Segment;
var<private> m_first: u32;
var<private> n_first: u32;
var<private> part: u32;

// Sixteen weights as they lie in memory.
//if Q8
struct Raw { a: vec4<u32>, scale: u32 }
//end
//if F16
struct Raw { a: vec4<u32>, b: vec4<u32> }
//end
//if F32
struct Raw { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }
//end

fn fetch_w(first: u32, row: u32, k: u32) -> Raw {
    let m = min(m_first + first + row, segment.rows - 1u);
    var raw: Raw;
//if Q8
    raw.a = codes[segment.codes + m * (args.k / 16u) + k / 16u];
    raw.scale = words[segment.scales + m * (args.k / 64u) + k / 64u];
//end
//if F16
    let at = segment.codes + m * (args.k / 8u) + k / 8u;
    raw.a = codes[at];
    raw.b = codes[at + 1u];
//end
//if F32
    let at = segment.codes + m * (args.k / 4u) + k / 4u;
    raw.a = codes[at];
    raw.b = codes[at + 1u];
    raw.c = codes[at + 2u];
    raw.d = codes[at + 3u];
//end
    return raw;
}

fn halves(a: u32, b: u32) -> vec4<f32> { return vec4<f32>(unpack2x16float(a), unpack2x16float(b)); }

// Weights k .. + 15 as the tile's row `m`.
fn decode_w(raw: Raw, m: u32, k: u32) {
    let at = k % DEPTH;
//if Q8
    let d = GAIN * half_of(raw.scale, (k / 32u) & 1u);
    set_w(m, at, d * signed_bytes(raw.a.x));
    set_w(m, at + 4u, d * signed_bytes(raw.a.y));
    set_w(m, at + 8u, d * signed_bytes(raw.a.z));
    set_w(m, at + 12u, d * signed_bytes(raw.a.w));
//end
//if F16
    set_w(m, at, halves(raw.a.x, raw.a.y));
    set_w(m, at + 4u, halves(raw.a.z, raw.a.w));
    set_w(m, at + 8u, halves(raw.b.x, raw.b.y));
    set_w(m, at + 12u, halves(raw.b.z, raw.b.w));
//end
//if F32
    set_w(m, at, bitcast<vec4<f32>>(raw.a));
    set_w(m, at + 4u, bitcast<vec4<f32>>(raw.b));
    set_w(m, at + 8u, bitcast<vec4<f32>>(raw.c));
    set_w(m, at + 12u, bitcast<vec4<f32>>(raw.d));
//end
}

//if Q8
fn gain() -> f32 { return GAIN; }
//else
fn gain() -> f32 { return 1.0; }
//end

fn row_of_x(row: u32) -> u32 { return (n_first + row) * args.x_stride + part; }

fn put(tile_row: u32, tile_m: u32, y: vec4<f32>) {
    let m = m_first + tile_m;
    let at = (n_first + tile_row) * args.out_stride + segment.to + m;
    for (var i = 0u; i < 4u; i += 1u) {
        if (m + i < segment.rows) { out[at + i] = y[i]; }
    }
}

@compute @workgroup_size(THREADS)
fn dense_rows(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    var s = 0u;
    while (s + 1u < args.segments && wg.x >= segments[s + 1u].first) { s += 1u; }
    segment = segments[s];
    m_first = (wg.x - segment.first) * TILE_M;
    n_first = TILE_N * wg.y;
    // Whole tiles share their part of x: groups are multiples of the tile, or there is one.
    part = (m_first + segment.group_first) / segment.group_rows * (args.k / 4u);
    multiply(args.k, min(TILE_N, args.n - n_first), tid);
}
