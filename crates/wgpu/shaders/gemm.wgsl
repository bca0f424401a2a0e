// Products of many rows: tiles of 64 weight rows by 64 rows of x, 32 of k at a time through workgroup memory. 64 invocations; each
// has eight weight rows (4 ty .. and 32 + 4 ty ..) by eight rows of x (4 tx .. and 32 + 4 tx ..).
// What fills the tiles and takes the sums stands in front of this text: `fill_w`, `fill_x` and `put`.

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

struct Tile { a: array<vec4<f32>, 8>, b: array<vec4<f32>, 8> }

fn multiply(k_end: u32, tid: u32) -> Tile {
    let tx = tid & 7u;
    let ty = tid / 8u;
//each i 8
    var a$i = vec4<f32>();
    var b$i = vec4<f32>();
//end
    for (var k0 = 0u; k0 < k_end; k0 += 32u) {
        fill_w(tid, k0);
        fill_x(tid, k0);
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
    return Tile(array<vec4<f32>, 8>(a0, a1, a2, a3, a4, a5, a6, a7), array<vec4<f32>, 8>(b0, b1, b2, b3, b4, b5, b6, b7));
}
