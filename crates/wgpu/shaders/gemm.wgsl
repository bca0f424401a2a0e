// Products of many rows: tiles of 64 weight rows by 64 rows of x, 32 of k at a time through workgroup memory. 64 invocations; each
// has eight weight rows (4 ty .. and 32 + 4 ty ..) by eight rows of x (4 tx .. and 32 + 4 tx ..).
// The stage's text says where sixteen weights of row `first + row` come from (`fetch_w`, `decode_w`), where a row of x stands (`row_of_x`), and what
// becomes of four neighbouring sums of a row: `put`, or `put_gated` of gate and up, whose weight rows are the tile's two halves.

const TILE_M = 64u;
const TILE_N = 64u;
const DEPTH = 32u;
const W_ROWS = 64u;
const GAIN = 1.0;

var<workgroup> wt: array<vec4<f32>, 512>; // [k][weight row / 4]
var<workgroup> xt: array<vec4<f32>, 512>; // [k][row / 4]

// Four neighbouring k of weight row `m` of the tile.
fn set_w(m: u32, k: u32, v: vec4<f32>) {
    let at = 16u * k + m / 4u;
    wt[at][m & 3u] = v.x;
    wt[at + 16u][m & 3u] = v.y;
    wt[at + 32u][m & 3u] = v.z;
    wt[at + 48u][m & 3u] = v.w;
}

fn set_x(row: u32, k: u32, v: vec4<f32>) {
    let at = 16u * k + row / 4u;
    xt[at][row & 3u] = v.x;
    xt[at + 16u][row & 3u] = v.y;
    xt[at + 32u][row & 3u] = v.z;
    xt[at + 48u][row & 3u] = v.w;
}

// `rows` of the tile's rows of x are there.
fn multiply(k_end: u32, rows: u32, tid: u32) {
    let tx = tid & 7u;
    let ty = tid / 8u;
    let x_at = row_of_x(min(tid, rows - 1u));
//each i 8
    var a$i = vec4<f32>();
    var b$i = vec4<f32>();
//end
    for (var k0 = 0u; k0 < k_end; k0 += 32u) {
        decode_w(fetch_w(0u, tid, k0), tid, k0);
        decode_w(fetch_w(0u, tid, k0 + 16u), tid, k0 + 16u);
        for (var i = 0u; i < 8u; i += 1u) { set_x(tid, 4u * i, x[x_at + k0 / 4u + i]); }
        workgroupBarrier();
        for (var k = 0u; k < 512u; k += 16u) {
            let wa = wt[k + ty];
            let wb = wt[k + 8u + ty];
            let xa = xt[k + tx];
            let xb = xt[k + 8u + tx];
//each i 4
            a$i = fma(vec4<f32>(wa[$i]), xa, a$i);
            b$i = fma(vec4<f32>(wa[$i]), xb, b$i);
//end
            a4 = fma(vec4<f32>(wb.x), xa, a4); b4 = fma(vec4<f32>(wb.x), xb, b4);
            a5 = fma(vec4<f32>(wb.y), xa, a5); b5 = fma(vec4<f32>(wb.y), xb, b5);
            a6 = fma(vec4<f32>(wb.z), xa, a6); b6 = fma(vec4<f32>(wb.z), xb, b6);
            a7 = fma(vec4<f32>(wb.w), xa, a7); b7 = fma(vec4<f32>(wb.w), xb, b7);
        }
        workgroupBarrier();
    }
//each c 4
    if (4u * tx + $cu < rows) {
//if GATED
        put_gated(4u * tx + $cu, 4u * ty, vec4<f32>(a0[$c], a1[$c], a2[$c], a3[$c]), vec4<f32>(a4[$c], a5[$c], a6[$c], a7[$c]));
//else
        put(4u * tx + $cu, 4u * ty, vec4<f32>(a0[$c], a1[$c], a2[$c], a3[$c]));
        put(4u * tx + $cu, 32u + 4u * ty, vec4<f32>(a4[$c], a5[$c], a6[$c], a7[$c]));
//end
    }
    if (32u + 4u * tx + $cu < rows) {
//if GATED
        put_gated(32u + 4u * tx + $cu, 4u * ty, vec4<f32>(b0[$c], b1[$c], b2[$c], b3[$c]), vec4<f32>(b4[$c], b5[$c], b6[$c], b7[$c]));
//else
        put(32u + 4u * tx + $cu, 4u * ty, vec4<f32>(b0[$c], b1[$c], b2[$c], b3[$c]));
        put(32u + 4u * tx + $cu, 32u + 4u * ty, vec4<f32>(b4[$c], b5[$c], b6[$c], b7[$c]));
//end
    }
//end
}
