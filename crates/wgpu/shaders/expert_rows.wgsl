// Routed experts of many rows; see `gemm.wgsl` for tiles. Pairs of row and choice are gathered by expert first: a tile is up to
// 64 pairs of one expert.
//   experts_group: grid (1, 1, 1), 256 invocations      experts_rows: grid (tiles of outputs, most tiles, 1)
//   experts_halves: grid (pieces of 1024 inputs, rows, 1), 256 invocations
// Of gate and up the tile has a half each, so that an invocation has both of its outputs. Cooperative matrices multiply float16: their
// inputs and the middles are kept so, for every tile of outputs reads them.

struct Args {
    first: u32, count: u32, codes: u32, scales: u32, other_codes: u32, other_scales: u32, clamp_at: f32, pairs: u32,
}
var<immediate> args: Args;

//if GROUP
@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> order: array<u32>; // pairs by expert
@group(0) @binding(2) var<storage, read_write> tiles: array<vec4<u32>>; // [0].x: their number; then expert, first place, pairs

var<workgroup> counts: array<atomic<u32>, N_EXPERT>;
var<workgroup> begins: array<u32, N_EXPERT>;

@compute @workgroup_size(256)
fn experts_group(@builtin(local_invocation_index) tid: u32) {
    for (var e = tid; e < N_EXPERT; e += 256u) { atomicStore(&counts[e], 0u); }
    workgroupBarrier();
    for (var p = tid; p < args.pairs; p += 256u) { atomicAdd(&counts[ids[p]], 1u); }
    workgroupBarrier();
    if (tid == 0u) {
        var place = 0u;
        var n = 0u;
        for (var e = 0u; e < N_EXPERT; e += 1u) {
            let count = atomicLoad(&counts[e]);
            begins[e] = place;
            for (var i = 0u; i < count; i += 64u) {
                n += 1u;
                tiles[n] = vec4<u32>(e, place + i, min(count - i, 64u), 0u);
            }
            place += count;
        }
        tiles[0] = vec4<u32>(n, 0u, 0u, 0u);
    }
    workgroupBarrier();
    for (var e = tid; e < N_EXPERT; e += 256u) { atomicStore(&counts[e], begins[e]); }
    workgroupBarrier();
    // Which place a pair gets among those of its expert makes no difference to its sums.
    for (var p = tid; p < args.pairs; p += 256u) { order[atomicAdd(&counts[ids[p]], 1u)] = p; }
}
//else
//if HALVES
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f16>>;

@compute @workgroup_size(256)
fn experts_halves(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let four = wg.x * 256u + tid;
    if (four < N_EMBD / 4u) { out[wg.y * (N_EMBD / 4u) + four] = vec4<f16>(x[wg.y * (N_EMBD / 4u) + four]); }
}
//else
//if MATRICES
alias Four = vec4<f16>;
//else
alias Four = vec4<f32>;
//end
@group(0) @binding(0) var<storage, read> order: array<u32>;
@group(0) @binding(1) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<Four>;
@group(0) @binding(3) var<storage, read> words: array<u32>;
//if GATED
@group(0) @binding(4) var<storage, read_write> out: array<Four>;
//else
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
//end
//if GATED
@group(0) @binding(5) var<storage, read> other_words: array<u32>;
@group(0) @binding(6) var<storage, read> weights: array<f32>;
//if IQ2
@group(0) @binding(7) var<storage, read> iq2_grid: array<vec2<u32>>;
//end
const K = N_EMBD;
const M = FF;
const ROWS = TILE_M / 2u;
//else
//if IQ2
@group(0) @binding(5) var<storage, read> iq2_grid: array<vec2<u32>>;
//end
const K = FF;
const M = N_EMBD;
const ROWS = TILE_M;
//end

var<private> tile: vec4<u32>;
var<private> m_first: u32; // of the part's rows
var<private> to_first: u32; // of the outputs

// Sixteen weights as they lie in memory: codes first, what scales them behind.
//if F32
struct Raw { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }
//else
struct Raw { a: vec4<u32>, b: vec4<u32> }
//end

//tile fetch_words words
//if GATED
//tile fetch_other other_words
//end

fn fetch_w(first: u32, row: u32, k: u32) -> Raw {
//if GATED
    // Where few rows are fetched at a time, `first` alone tells, and no load waits for a branch.
    if (select(row >= ROWS, first >= ROWS, W_ROWS <= ROWS)) {
        return fetch_other(args.other_codes, args.other_scales, m_first + first + row - ROWS, k);
    }
//end
    return fetch_words(args.codes, args.scales, m_first + first + row, k);
}

// Four bytes, from 1 to 127, with the signs that bits 0 to 3 of `minus` turn round.
fn negated(bytes: u32, minus: u32) -> u32 {
    let ones = (minus * 0x00204081u) & 0x01010101u;
    return (bytes ^ (ones * 255u)) + ones;
}

// Weights k .. + 15 as the tile's row `m`.
fn decode_w(raw: Raw, m: u32, k: u32) {
    let to = k % DEPTH;
//if IQ2
    let scale = GAIN * half_of(raw.a.z, raw.a.w & 1u) * (0.5 + f32(raw.a.y >> 28u)) * 0.25;
    let first = (k / 8u) & 2u;
    for (var i = 0u; i < 2u; i += 1u) {
        let magnitudes = grid[(raw.a.x >> (8u * (first + i))) & 255u];
        let seven = (raw.a.y >> (7u * (first + i))) & 127u;
        let minus = seven | ((countOneBits(seven) & 1u) << 7u);
        set_w(m, to + 8u * i, scale * signed_bytes(negated(magnitudes.x, minus & 15u)));
        set_w(m, to + 8u * i + 4u, scale * signed_bytes(negated(magnitudes.y, minus >> 4u)));
    }
//end
//if Q2K
    let d = GAIN * unpack2x16float(raw.b.x);
    let sc = raw.b.y >> (16u * ((k / 32u) & 1u) + 8u * ((k / 16u) & 1u));
    let scale = d.x * f32(sc & 15u);
    let least = d.y * f32((sc >> 4u) & 15u);
//each i 4
    set_w(m, to + 4u * $iu, scale * unsigned_bytes((raw.a[$i] >> (2u * ((k / 32u) & 3u))) & 0x03030303u) - least);
//end
//end
//if Q4K
    let s = q4k_scale(raw.b.yzw, (k / 32u) & 7u) * unpack2x16float(raw.b.x) * GAIN;
//each i 4
    set_w(m, to + 4u * $iu, s.x * unsigned_bytes((raw.a[$i] >> (4u * ((k / 32u) & 1u))) & 0x0f0f0f0fu) - s.y);
//end
//end
//if MXFP4
    let scale = GAIN * exp2_byte((raw.b.x >> (8u * raw.b.y)) & 255u);
//each i 4
    set_w(m, to + 4u * $iu, scale * fp4(raw.a[$i] >> (4u * ((k / 16u) & 1u))));
//end
//end
//if Q8
    let d = GAIN * half_of(raw.b.x, raw.b.y);
//each i 4
    set_w(m, to + 4u * $iu, d * signed_bytes(raw.a[$i]));
//end
//end
//if F16
    set_w(m, to, vec4<f32>(unpack2x16float(raw.a.x), unpack2x16float(raw.a.y)));
    set_w(m, to + 4u, vec4<f32>(unpack2x16float(raw.a.z), unpack2x16float(raw.a.w)));
    set_w(m, to + 8u, vec4<f32>(unpack2x16float(raw.b.x), unpack2x16float(raw.b.y)));
    set_w(m, to + 12u, vec4<f32>(unpack2x16float(raw.b.z), unpack2x16float(raw.b.w)));
//end
//if F32
    set_w(m, to, bitcast<vec4<f32>>(raw.a));
    set_w(m, to + 4u, bitcast<vec4<f32>>(raw.b));
    set_w(m, to + 8u, bitcast<vec4<f32>>(raw.c));
    set_w(m, to + 12u, bitcast<vec4<f32>>(raw.d));
//end
}

//if F16
fn gain() -> f32 { return 1.0; }
//else
//if F32
fn gain() -> f32 { return 1.0; }
//else
fn gain() -> f32 { return GAIN; }
//end
//end

fn row_of_x(row: u32) -> u32 {
//if GATED
    return order[tile.y + row] / N_USED * (K / 4u);
//else
    return order[tile.y + row] * (K / 4u);
//end
}

//if GATED
fn put_gated(row: u32, m: u32, gate: vec4<f32>, up: vec4<f32>) {
    let pair = order[tile.y + row];
    let weight = weights[pair];
    var y: vec4<f32>;
    for (var i = 0u; i < 4u; i += 1u) { y[i] = swiglu(gate[i], up[i], args.clamp_at) * weight; }
    out[(pair * M + to_first + m) / 4u] = Four(y);
}
//else
fn put(row: u32, m: u32, y: vec4<f32>) {
    let at = order[tile.y + row] * M + to_first + m;
    for (var i = 0u; i < 4u; i += 1u) { out[at + i] = y[i]; }
}
//end

@compute @workgroup_size(THREADS)
fn experts_rows(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    if (wg.y >= tiles[0].x) { return; }
    tile = tiles[wg.y + 1u];
    if (tile.x < args.first || tile.x >= args.first + args.count) { return; }
//if IQ2
    for (var i = tid; i < 256u; i += THREADS) { grid[i] = iq2_grid[i]; }
    workgroupBarrier();
//end
    to_first = wg.x * ROWS;
    m_first = (tile.x - args.first) * M + to_first;
    multiply(K, tile.z, tid);
}
//end
//end
