// Routed experts of many rows; see `gemm.wgsl` for tiles. Pairs of row and choice are gathered by expert first: a tile is up to
// 64 pairs of one expert.
//   experts_group: grid (1, 1, 1), 256 invocations      experts_rows: grid (tiles of outputs, most tiles, 1), 64 invocations
// Of gate and up the tile has 32 weight rows each, so that an invocation has both of its outputs.

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
@group(0) @binding(0) var<storage, read> order: array<u32>;
@group(0) @binding(1) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> words: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
//if GATED
@group(0) @binding(5) var<storage, read> other_words: array<u32>;
@group(0) @binding(6) var<storage, read> weights: array<f32>;
//if IQ2
@group(0) @binding(7) var<storage, read> iq2_grid: array<vec2<u32>>;
//end
const K = N_EMBD;
const M = FF;
const ROWS = 32u;
//else
//if IQ2
@group(0) @binding(5) var<storage, read> iq2_grid: array<vec2<u32>>;
//end
const K = FF;
const M = N_EMBD;
const ROWS = 64u;
//end

var<private> m_first: u32; // of the part's rows
var<private> x_at: u32;

//tile tile_words words
//if GATED
//tile tile_other other_words
//end

fn fill_w(tid: u32, k0: u32) {
//if GATED
    if (tid >= 32u) {
        tile_other(args.other_codes, args.other_scales, m_first + tid - 32u, tid, k0);
        return;
    }
//end
    tile_words(args.codes, args.scales, m_first + tid, tid, k0);
}

fn fill_x(tid: u32, k0: u32) {
    let at = x_at + k0 / 4u;
    for (var i = 0u; i < 8u; i += 1u) { set_x(tid, 4u * i, x[at + i]); }
}

@compute @workgroup_size(64)
fn experts_rows(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    if (wg.y >= tiles[0].x) { return; }
    let tile = tiles[wg.y + 1u];
    if (tile.x < args.first || tile.x >= args.first + args.count) { return; }
//if IQ2
    for (var i = tid; i < 256u; i += 64u) { grid[i] = iq2_grid[i]; }
    workgroupBarrier();
//end
    m_first = (tile.x - args.first) * M + wg.x * ROWS;
    let own = order[tile.y + min(tid, tile.z - 1u)];
//if GATED
    x_at = own / N_USED * (K / 4u);
//else
    x_at = own * (K / 4u);
//end
    let t = multiply(K, tid);
    let row = 4u * (tid & 7u);
    let m = wg.x * ROWS + 4u * (tid / 8u);
    for (var c = 0u; c < 4u; c += 1u) {
        if (row + c < tile.z) {
            let pair = order[tile.y + row + c];
//each i 4
//if GATED
            out[pair * M + m + $iu] = swiglu(t.a[$i][c], t.a[$i + 4][c], args.clamp_at) * weights[pair];
//else
            out[pair * M + m + $iu] = t.a[$i][c];
            out[pair * M + m + 32u + $iu] = t.a[$i + 4][c];
//end
//end
        }
        if (row + 32u + c < tile.z) {
            let pair = order[tile.y + row + 32u + c];
//each i 4
//if GATED
            out[pair * M + m + $iu] = swiglu(t.b[$i][c], t.b[$i + 4][c], args.clamp_at) * weights[pair];
//else
            out[pair * M + m + $iu] = t.b[$i][c];
            out[pair * M + m + 32u + $iu] = t.b[$i + 4][c];
//end
//end
        }
    }
}
//end
