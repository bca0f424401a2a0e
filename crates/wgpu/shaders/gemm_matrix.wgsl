// Products of many rows on cooperative matrices, in the place of `gemm.wgsl`: tiles of 128 weight rows by 128 rows of x, or 64
// (NARROW), DEPTH of k at a time as float16 through workgroup memory, sums in float32. Of eight subgroups number s has weight rows
// 16 (s & 3) .. + 15 of both halves of the tile, and of the rows of x the half s / 4.

const SUMS = SQUARE;
const TILE_M = 128u;
//if NARROW
const TILE_N = 64u;
//else
const TILE_N = 128u;
//end
// Small scales would make subnormal float16 weights: those are taken so many times as large, and the sums as small.
const GAIN = 256.0;

const STRIDE = DEPTH / 4u + 2u; // fours of a row, padded so that eight rows lie in different banks
// Neighbouring invocations bring neighbouring pieces of a row: sixteen weights or four of x of so many rows at a time.
const W_ROWS = THREADS / (DEPTH / 16u);
const X_ROWS = THREADS / (DEPTH / 4u);

//if SCALARS
var<workgroup> wt: array<f16, 4u * TILE_M * STRIDE>; // [weight row][k]
var<workgroup> xt: array<f16, 4u * TILE_N * STRIDE>; // [row][k]

fn set_w(m: u32, k: u32, v: vec4<f32>) {
    let at = 4u * m * STRIDE + k;
    wt[at] = f16(v.x); wt[at + 1u] = f16(v.y); wt[at + 2u] = f16(v.z); wt[at + 3u] = f16(v.w);
}
fn set_x(at_four: u32, v: Four) {
    let at = 4u * at_four;
    xt[at] = f16(v.x); xt[at + 1u] = f16(v.y); xt[at + 2u] = f16(v.z); xt[at + 3u] = f16(v.w);
}
//else
var<workgroup> wt: array<vec4<f16>, TILE_M * STRIDE>; // [weight row][k / 4]
var<workgroup> xt: array<vec4<f16>, TILE_N * STRIDE>; // [row][k / 4]

fn set_w(m: u32, k: u32, v: vec4<f32>) { wt[m * STRIDE + k / 4u] = vec4<f16>(v); }
fn set_x(at: u32, v: Four) { xt[at] = vec4<f16>(v); }
//end

// `rows` of the tile's rows of x are there.
fn multiply(k_end: u32, rows: u32, tid: u32) {
    let subgroup = tid / LANES;
    let lane = tid % LANES;
    let m = 16u * (subgroup & 3u);
    let n = TILE_N / 2u * (subgroup / 4u);
    let w_row = tid / (DEPTH / 16u);
    let w_k = 16u * (tid % (DEPTH / 16u));
    let x_row = tid / (DEPTH / 4u);
    let x_four = tid % (DEPTH / 4u);
//each i W_EACH
    var w$i = fetch_w(W_ROWS * $iu, w_row, w_k);
//end
//each i X_EACH
    let x_at$i = row_of_x(min(x_row + X_ROWS * $iu, rows - 1u)) + x_four;
    var x$i = x[x_at$i];
//end
//each h 2
//each i SIXTEEN
//each j HALF_TILE
    var c$h$i$j = Sums();
//end
//end
//end
    for (var k0 = 0u; k0 < k_end; k0 += DEPTH) {
//each i W_EACH
        decode_w(w$i, w_row + W_ROWS * $iu, k0 + w_k);
//end
//each i X_EACH
        set_x((x_row + X_ROWS * $iu) * STRIDE + x_four, x$i);
//end
        workgroupBarrier();
        // The next piece is on its way while this one is multiplied; without a branch, for which it would have to arrive. Behind
        // the last one it is the first again.
        let next = select(0u, k0 + DEPTH, k0 + DEPTH < k_end);
//each i W_EACH
        w$i = fetch_w(W_ROWS * $iu, w_row, next + w_k);
//end
//each i X_EACH
        x$i = x[x_at$i + next / 4u];
//end
//each k STEPS
        {
//each h 2
//each i SIXTEEN
            let a$h$i = coopLoadT<Left>(&wt[FOUR * ((m + 64u * $hu + SIDE * $iu) * STRIDE + SIDE / 4u * $ku)], FOUR * STRIDE);
//end
//end
//each j HALF_TILE
            let b$j = coopLoad<Right>(&xt[FOUR * ((n + SIDE * $ju) * STRIDE + SIDE / 4u * $ku)], FOUR * STRIDE);
//each h 2
//each i SIXTEEN
            c$h$i$j = coopMultiplyAdd(a$h$i, b$j, c$h$i$j);
//end
//end
//end
        }
//end
        workgroupBarrier();
    }
//each i SIXTEEN
//each j HALF_TILE
    hand_out(c0$i$j, c1$i$j, SQUARE * subgroup, lane, m + SIDE * $iu, n + SIDE * $ju, rows);
//end
//end
}

// Sums of weight rows m .. and m + 64 .. of rows n ..: by way of workgroup memory, for no lane knows which of them it holds. There
// they stand as [row][weight row].
fn hand_out(low: Sums, high: Sums, at: u32, lane: u32, m: u32, n: u32, rows: u32) {
    const FOURS = (SQUARE / 4u + LANES - 1u) / LANES;
    var lows: array<vec4<f32>, FOURS>;
    coopStore(low, &sums[at], SIDE);
    workgroupBarrier();
    for (var i = 0u; i < FOURS; i += 1u) { lows[i] = sums_at(at + (4u * (LANES * i + lane)) % SQUARE) / gain(); }
    workgroupBarrier();
    coopStore(high, &sums[at], SIDE);
    workgroupBarrier();
    for (var i = 0u; i < FOURS; i += 1u) {
        let four = 4u * (LANES * i + lane);
        let row = n + four / SIDE;
        if (four < SQUARE && row < rows) {
            let high_four = sums_at(at + four) / gain();
//if GATED
            put_gated(row, m + four % SIDE, lows[i], high_four);
//else
            put(row, m + four % SIDE, lows[i]);
            put(row, m + 64u + four % SIDE, high_four);
//end
        }
    }
    workgroupBarrier();
}
