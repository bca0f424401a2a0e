// A workgroup of 128 invocations encodes a row of 512, four values each; or an index row of 128, one value each.

var<workgroup> row_values: array<f32, 512>;
var<workgroup> exponents: array<u32, 8>;
var<workgroup> row_codes: array<u32, 128>;

// Rotates values 4 tid .. + 3 of a vector of `width` if they belong to its tail.
fn rotate4(v: vec4<f32>, at: u32, width: u32, pos: u32) -> vec4<f32> {
    if (at < width - ROT) { return v; }
    let pair = (at - (width - ROT)) / 2u;
    return vec4<f32>(rotated(v.xy, rope[pair], pos), rotated(v.zw, rope[pair + 1u], pos));
}

//if CACHE
// Rounds and stores four values of a row at word `to` of `cache`.
fn encode_row(v: vec4<f32>, to: u32, tid: u32) {
    let at = 4u * tid;
    row_values[tid] = max(max(abs(v.x), abs(v.y)), max(abs(v.z), abs(v.w)));
    workgroupBarrier();
    if (at < NOPE) {
        let block = at & ~63u;
        var largest = 0.0;
        for (var i = 0u; i < 16u; i += 1u) { largest = max(largest, row_values[block / 4u + i]); }
        let e = e4m3_exponent(largest);
        let scaled = v * exp2_of(-e);
        cache[to + tid] = e4m3_code(scaled.x) | (e4m3_code(scaled.y) << 8u) | (e4m3_code(scaled.z) << 16u) | (e4m3_code(scaled.w) << 24u);
        if (at == block) { exponents[at / 64u] = u32(e + 127); }
    } else {
        let tail = to + NOPE / 4u + 2u + (at - NOPE) / 2u;
        cache[tail] = pack_half(v.x) | (pack_half(v.y) << 16u);
        cache[tail + 1u] = pack_half(v.z) | (pack_half(v.w) << 16u);
    }
    workgroupBarrier();
    if (tid < 2u) {
        var word = exponents[4u * tid] | (exponents[4u * tid + 1u] << 8u) | (exponents[4u * tid + 2u] << 16u);
        if (tid == 0u) { word |= exponents[3] << 24u; }
        cache[to + NOPE / 4u + tid] = word;
    }
}

//end
// Nearest float16, ties to even; what is too large becomes infinite. Drivers round `pack2x16float` as they like.
fn pack_half(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    let sign = (bits >> 16u) & 0x8000u;
    let m = bits & 0x7fffffffu;
    if (m >= 0x47800000u) { return sign | 0x7c00u; }
    if (m < 0x38800000u) { return sign | u32(round(bitcast<f32>(m) * 16777216.0)); }
    let rounded = m + 0xfffu + ((m >> 13u) & 1u);
    return sign | min((rounded - 0x38000000u) >> 13u, 0x7c00u);
}

// Orthonormal Walsh-Hadamard transform of 128 values, one an invocation.
fn hadamard(v: f32, tid: u32) -> f32 {
    var mine = v;
    for (var bit = 1u; bit < 128u; bit <<= 1u) {
        row_values[tid] = mine;
        workgroupBarrier();
        let other = row_values[tid ^ bit];
        mine = select(mine + other, other - mine, (tid & bit) != 0u);
        workgroupBarrier();
    }
    return mine * 0.08838834764831845; // 1 / sqrt(128)
}

// Exponent of the value's block of 32.
fn e2m1_block(v: f32, tid: u32) -> i32 {
    row_values[tid] = v;
    workgroupBarrier();
    var largest = 0.0;
    for (var i = 0u; i < 32u; i += 1u) { largest = max(largest, abs(row_values[(tid & ~31u) + i])); }
    workgroupBarrier();
    return e2m1_exponent(largest);
}

fn round_e2m1(v: f32, tid: u32) -> f32 {
    let e = e2m1_block(v, tid);
    return e2m1_value(e2m1_code(v * exp2_of(-e))) * exp2_of(e);
}

//if INDEX_CACHE
// Rounds and stores an index row at word `to` of `index_cache`.
fn encode_index_row(v: f32, to: u32, tid: u32) {
    let e = e2m1_block(v, tid);
    row_codes[tid] = e2m1_code(v * exp2_of(-e));
    if (tid % 32u == 0u) { exponents[tid / 32u] = u32(e + 127); }
    workgroupBarrier();
    if (tid < 16u) {
        var word = 0u;
        for (var i = 0u; i < 8u; i += 1u) { word |= row_codes[8u * tid + i] << (4u * i); }
        index_cache[to + tid] = word;
    } else if (tid == 16u) {
        index_cache[to + 16u] = exponents[0] | (exponents[1] << 8u) | (exponents[2] << 16u) | (exponents[3] << 24u);
    }
}
//end
