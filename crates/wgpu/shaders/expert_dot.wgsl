// The product of piece `p` of weight row `m` of TABLE with its inputs, of which the first four of the row stand at `at`.
fn NAME(codes: u32, scales: u32, m: u32, p: u32, at: u32) -> f32 {
//if IQ2
    let src = codes + m * (K / 16u) + 2u * (p / 4u);
    let half_at = m * (K / 256u) + p / 32u;
    let d = half_of(TABLE[scales + half_at / 2u], half_at & 1u);
    return piece_dot(TABLE[src], TABLE[src + 1u], d, p & 3u, x[at + 2u * p], x[at + 2u * p + 1u]);
//end
//if Q2K
    let block = codes + (m * (K / 256u) + p / 16u) * BLOCK_WORDS;
    let w = p & 15u;
    let codes_of = TABLE[block + 4u + w];
    let d = unpack2x16float(TABLE[block + 20u]);
    // Four fours of inputs, 32 apart; a scale byte for each sixteen.
    let first = at + 64u * (p / 16u) + 32u * (w / 8u) + (w & 7u);
    let s0 = TABLE[block + 2u * (w / 8u)] >> (8u * ((w & 7u) / 4u));
    let s1 = TABLE[block + 2u * (w / 8u) + 1u] >> (8u * ((w & 7u) / 4u));
    var sum = 0.0;
    for (var i = 0u; i < 4u; i += 1u) {
        let v = x[first + 8u * i];
        let s = (select(s0, s1, i >= 2u) >> (16u * (i & 1u))) & 255u;
        let q = unsigned_bytes((codes_of >> (2u * i)) & 0x03030303u);
        sum += d.x * f32(s & 15u) * chain(q, v, 0.0) - d.y * f32(s >> 4u) * added(v);
    }
    return sum;
//end
//if Q4K
    let block = codes + (m * (K / 256u) + p / 32u) * BLOCK_WORDS;
    let w = p & 31u;
    let d = unpack2x16float(TABLE[block]);
    let scale_words = vec3<u32>(TABLE[block + 1u], TABLE[block + 2u], TABLE[block + 3u]);
    let codes_of = TABLE[block + 4u + w];
    let first = at + 64u * (p / 32u) + 16u * (w / 8u) + (w & 7u);
    let low = q4k_scale(scale_words, 2u * (w / 8u)) * d;
    let high = q4k_scale(scale_words, 2u * (w / 8u) + 1u) * d;
    let a = x[first];
    let b = x[first + 8u];
    return low.x * chain(unsigned_bytes(codes_of & 0x0f0f0f0fu), a, 0.0) - low.y * added(a)
        + (high.x * chain(unsigned_bytes((codes_of >> 4u) & 0x0f0f0f0fu), b, 0.0) - high.y * added(b));
//end
//if MXFP4
    let w = TABLE[codes + m * (K / 8u) + p];
    let block = m * (K / 32u) + p / 4u;
    let e = (TABLE[scales + block / 4u] >> (8u * (block & 3u))) & 255u;
    let first = at + 8u * (p / 4u) + (p & 3u);
    return exp2_byte(e) * chain(fp4(w >> 4u), x[first + 4u], chain(fp4(w), x[first], 0.0));
//end
//if Q8
    let src = codes + m * (K / 4u) + 4u * p;
    let half_at = m * (K / 32u) + p / 2u;
    let d = half_of(TABLE[scales + half_at / 2u], half_at & 1u);
    let i = at + 4u * p;
    return d * q8_dot(vec4<u32>(TABLE[src], TABLE[src + 1u], TABLE[src + 2u], TABLE[src + 3u]), x[i], x[i + 1u], x[i + 2u], x[i + 3u]);
//end
//if F16
    let src = codes + m * (K / 2u) + 4u * p;
    let i = at + 2u * p;
    return f16_dot(vec4<u32>(TABLE[src], TABLE[src + 1u], TABLE[src + 2u], TABLE[src + 3u]), x[i], x[i + 1u]);
//end
//if F32
    let src = codes + m * K + 4u * p;
    return chain(bitcast<vec4<f32>>(vec4<u32>(TABLE[src], TABLE[src + 1u], TABLE[src + 2u], TABLE[src + 3u])), x[at + p], 0.0);
//end
}
