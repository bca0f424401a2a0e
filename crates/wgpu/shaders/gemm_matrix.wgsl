// Products of many rows on cooperative matrices, in the place of `gemm.wgsl`: tiles of 128 weight rows by 128 rows of x, or 64
// (NARROW), 32 of k at a time as float16 through workgroup memory, sums in float32. 256 invocations: of eight subgroups number s has
// weight rows 16 (s & 3) .. + 15 of both halves of the tile, and of the rows of x the half s / 4.

const TILE_M = 128u;
//if NARROW
const TILE_N = 64u;
//else
const TILE_N = 128u;
//end
// Small scales would make subnormal float16 weights: those are taken so many times as large, and the sums as small.
const GAIN = 256.0;

const STRIDE = 10u; // fours of a row of 32, padded so that eight rows lie in different banks
const X_EACH = TILE_N / 32u; // fours of x that an invocation brings

var<workgroup> wt: array<vec4<f16>, TILE_M * STRIDE>; // [weight row][k / 4]
var<workgroup> xt: array<vec4<f16>, TILE_N * STRIDE>; // [row][k / 4]
//if GATED
var<workgroup> sums: array<f32, 4096>; // [subgroup][gate, up][row][weight row] of 16 x 16
//else
var<workgroup> sums: array<f32, 2048>; // [subgroup][row][weight row] of 16 x 16
//end

fn set_w(m: u32, k: u32, v: vec4<f32>) { wt[m * STRIDE + k / 4u] = vec4<f16>(v); }

// `rows` of the tile's rows of x are there.
fn multiply(k_end: u32, rows: u32, tid: u32) {
    let subgroup = tid / 32u;
    let m = 16u * (subgroup & 3u);
    let n = TILE_N / 2u * (subgroup / 4u);
    let x_row = tid * X_EACH / 8u;
    let x_four = tid * X_EACH % 8u;
    let x_at = row_of_x(min(x_row, rows - 1u)) + x_four;
    let to = x_row * STRIDE + x_four;
    let half_k = 16u * (tid & 1u);
//each j 2
    var low$j = coop_mat16x16<f32, C>();
    var high$j = coop_mat16x16<f32, C>();
//end
//if NARROW
//else
    var low2 = coop_mat16x16<f32, C>(); var low3 = coop_mat16x16<f32, C>();
    var high2 = coop_mat16x16<f32, C>(); var high3 = coop_mat16x16<f32, C>();
//end
    var w = fetch_w(tid / 2u, half_k);
    var xs: array<vec4<f32>, X_EACH>;
    for (var i = 0u; i < X_EACH; i += 1u) { xs[i] = x[x_at + i]; }
    for (var k0 = 0u; k0 < k_end; k0 += 32u) {
        decode_w(w, tid / 2u, k0 + half_k);
        for (var i = 0u; i < X_EACH; i += 1u) { xt[to + i] = vec4<f16>(xs[i]); }
        workgroupBarrier();
        // The next piece is on its way while this one is multiplied.
        if (k0 + 32u < k_end) {
            w = fetch_w(tid / 2u, k0 + 32u + half_k);
            for (var i = 0u; i < X_EACH; i += 1u) { xs[i] = x[x_at + k0 / 4u + 8u + i]; }
        }
//each k 2
        {
            let a = coopLoadT<coop_mat16x16<f16, A>>(&wt[m * STRIDE + 4u * $ku], STRIDE);
            let b = coopLoadT<coop_mat16x16<f16, A>>(&wt[(m + 64u) * STRIDE + 4u * $ku], STRIDE);
//each j 2
            let x$j = coopLoad<coop_mat16x16<f16, B>>(&xt[(n + 16u * $ju) * STRIDE + 4u * $ku], STRIDE);
            low$j = coopMultiplyAdd(a, x$j, low$j);
            high$j = coopMultiplyAdd(b, x$j, high$j);
//end
//if NARROW
//else
            let x2 = coopLoad<coop_mat16x16<f16, B>>(&xt[(n + 32u) * STRIDE + 4u * $ku], STRIDE);
            low2 = coopMultiplyAdd(a, x2, low2);
            high2 = coopMultiplyAdd(b, x2, high2);
            let x3 = coopLoad<coop_mat16x16<f16, B>>(&xt[(n + 48u) * STRIDE + 4u * $ku], STRIDE);
            low3 = coopMultiplyAdd(a, x3, low3);
            high3 = coopMultiplyAdd(b, x3, high3);
//end
        }
//end
        workgroupBarrier();
    }
    let lane = tid & 31u;
//each j 2
    hand_out(low$j, high$j, subgroup, lane, m, n + 16u * $ju, rows);
//end
//if NARROW
//else
    hand_out(low2, high2, subgroup, lane, m, n + 32u, rows);
    hand_out(low3, high3, subgroup, lane, m, n + 48u, rows);
//end
}

// Four sums of weight rows 4 (at & 3) .. of row at / 4 of a square.
fn four(square: u32, at: u32) -> vec4<f32> {
    let src = square * 256u + 4u * at;
    return vec4<f32>(sums[src], sums[src + 1u], sums[src + 2u], sums[src + 3u]) / gain();
}

// Sums of weight rows m .. and m + 64 .. of rows n ..: by way of workgroup memory, for no lane knows which of them it holds.
fn hand_out(
    low: coop_mat16x16<f32, C>, high: coop_mat16x16<f32, C>, subgroup: u32, lane: u32, m: u32, n: u32, rows: u32
) {
//if GATED
    coopStore(low, &sums[512u * subgroup], 16u);
    coopStore(high, &sums[512u * subgroup + 256u], 16u);
    workgroupBarrier();
    for (var at = lane; at < 64u; at += 32u) {
        if (n + at / 4u < rows) {
            put_gated(n + at / 4u, m + 4u * (at & 3u), four(2u * subgroup, at), four(2u * subgroup + 1u, at));
        }
    }
    workgroupBarrier();
//else
    coopStore(low, &sums[256u * subgroup], 16u);
    workgroupBarrier();
    for (var at = lane; at < 64u; at += 32u) {
        if (n + at / 4u < rows) { put(n + at / 4u, m + 4u * (at & 3u), four(subgroup, at)); }
    }
    workgroupBarrier();
    coopStore(high, &sums[256u * subgroup], 16u);
    workgroupBarrier();
    for (var at = lane; at < 64u; at += 32u) {
        if (n + at / 4u < rows) { put(n + at / 4u, m + 64u + 4u * (at & 3u), four(subgroup, at)); }
    }
    workgroupBarrier();
//end
}
