// Weights k0 .. + 31 of weight row `row` of TABLE as row `m` of the tile.
fn NAME(codes: u32, scales: u32, row: u32, m: u32, k0: u32) {
//if IQ2
    let group = codes + row * (K / 16u) + k0 / 16u;
    let half_at = row * (K / 256u) + k0 / 256u;
    let d = half_of(TABLE[scales + half_at / 2u], half_at & 1u);
    let rows = TABLE[group];
    let signs = TABLE[group + 1u];
    let scale = d * (0.5 + f32(signs >> 28u)) * 0.25;
    for (var k = 0u; k < 4u; k += 1u) {
        let magnitudes = grid[(rows >> (8u * k)) & 255u];
        let seven = (signs >> (7u * k)) & 127u;
        let minus = seven | ((countOneBits(seven) & 1u) << 7u);
        set_w(m, 8u * k, turned(scale * unsigned_bytes(magnitudes.x), minus));
        set_w(m, 8u * k + 4u, turned(scale * unsigned_bytes(magnitudes.y), minus >> 4u));
    }
//end
//if Q2K
    let block = codes + (row * (K / 256u) + k0 / 256u) * BLOCK_WORDS;
    let n = (k0 / 128u) & 1u;
    let s = (k0 / 32u) & 3u;
    let d = unpack2x16float(TABLE[block + 20u]);
    let both = TABLE[block + 2u * n + s / 2u] >> (16u * (s & 1u));
    for (var i = 0u; i < 8u; i += 1u) {
        let sc = (both >> (8u * (i / 4u))) & 255u;
        let q = unsigned_bytes((TABLE[block + 4u + 8u * n + i] >> (2u * s)) & 0x03030303u);
        set_w(m, 4u * i, d.x * f32(sc & 15u) * q - d.y * f32(sc >> 4u));
    }
//end
//if Q4K
    let block = codes + (row * (K / 256u) + k0 / 256u) * BLOCK_WORDS;
    let g = (k0 / 32u) & 7u;
    let d = unpack2x16float(TABLE[block]);
    let s = q4k_scale(vec3<u32>(TABLE[block + 1u], TABLE[block + 2u], TABLE[block + 3u]), g) * d;
    for (var i = 0u; i < 8u; i += 1u) {
        let q = unsigned_bytes((TABLE[block + 4u + 8u * (g / 2u) + i] >> (4u * (g & 1u))) & 0x0f0f0f0fu);
        set_w(m, 4u * i, s.x * q - s.y);
    }
//end
//if MXFP4
    let block = row * (K / 32u) + k0 / 32u;
    let scale = exp2_byte((TABLE[scales + block / 4u] >> (8u * (block & 3u))) & 255u);
    for (var i = 0u; i < 4u; i += 1u) {
        let w = TABLE[codes + 4u * block + i];
        set_w(m, 4u * i, scale * fp4(w));
        set_w(m, 16u + 4u * i, scale * fp4(w >> 4u));
    }
//end
//if Q8
    let half_at = row * (K / 32u) + k0 / 32u;
    let d = half_of(TABLE[scales + half_at / 2u], half_at & 1u);
    for (var i = 0u; i < 8u; i += 1u) { set_w(m, 4u * i, d * signed_bytes(TABLE[codes + row * (K / 4u) + k0 / 4u + i])); }
//end
//if F16
    let at = codes + row * (K / 2u) + k0 / 2u;
    for (var i = 0u; i < 8u; i += 1u) {
        set_w(m, 4u * i, vec4<f32>(unpack2x16float(TABLE[at + 2u * i]), unpack2x16float(TABLE[at + 2u * i + 1u])));
    }
//end
//if F32
    let at = codes + row * K + k0;
    for (var i = 0u; i < 8u; i += 1u) {
        let v = vec4<u32>(TABLE[at + 4u * i], TABLE[at + 4u * i + 1u], TABLE[at + 4u * i + 2u], TABLE[at + 4u * i + 3u]);
        set_w(m, 4u * i, bitcast<vec4<f32>>(v));
    }
//end
}
