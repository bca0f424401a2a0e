// Cache rows as they are held (docs/model.md): E4M3 codes with an exponent for each 64, then a rotary tail of float16; index rows
// as E2M1 codes with an exponent for each 32. Bit for bit what the CPU writes for the same float32 row.

const ROW_WORDS = 146u;      // 448 codes, 7 exponents, a pad, 64 halves
const INDEX_WORDS = 17u;     // 64 bytes of codes, 4 exponents

fn exp2_of(e: i32) -> f32 { return bitcast<f32>(select(u32(e + 127) << 23u, 1u << 22u, e == -127)); }

fn ceil_log2(t: f32) -> i32 {
    let bits = bitcast<u32>(t);
    return i32((bits >> 23u) & 0xffu) - 127 + select(0, 1, (bits & 0x7fffffu) != 0u);
}

fn e4m3_exponent(largest: f32) -> i32 { return clamp(ceil_log2(max(largest, 1e-4) * (1.0 / 448.0)), -127, 127); }

// Nearest code of `v` in units of the scale, ties to the even code.
fn e4m3_code(v: f32) -> u32 {
    let sign = (bitcast<u32>(v) >> 24u) & 0x80u;
    let magnitude = min(abs(v), 448.0);
    let bits = bitcast<u32>(magnitude);
    var code = ((bits + 0x7ffffu + ((bits >> 20u) & 1u)) >> 20u) - 960u;
    if (magnitude < 0.015625) { code = u32(round(magnitude * 512.0)); }
    return sign | min(code, 0x7eu);
}

// The four values of a word in units of E4M3_UNIT: a code is a float16 whose exponent has another bias.
const E4M3_UNIT = 256.0;

fn e4m3_units(w: u32) -> vec4<f32> {
    let even = w << 8u;
    let a = unpack2x16float(((even >> 1u) & 0x3f803f80u) | (even & 0x80008000u));
    let b = unpack2x16float(((w >> 1u) & 0x3f803f80u) | (w & 0x80008000u));
    return vec4<f32>(a.x, b.x, a.y, b.y);
}

fn e2m1_exponent(largest: f32) -> i32 { return clamp(ceil_log2(max(largest, 6.0 * exp2_of(-126)) * (1.0 / 6.0)), -127, 127); }

fn e2m1_code(v: f32) -> u32 {
    let m = min(abs(v), 6.0);
    // Middles go to the even code.
    let code = u32(m > 0.25) + u32(m >= 0.75) + u32(m > 1.25) + u32(m >= 1.75) + u32(m > 2.5) + u32(m >= 3.5) + u32(m > 5.0);
    return code | ((bitcast<u32>(v) >> 28u) & 8u);
}

fn e2m1_value(code: u32) -> f32 {
    let m = code & 7u;
    let v = select(bitcast<f32>(((126u + (m >> 1u)) << 23u) | ((m & 1u) << 22u)), 0.5 * f32(m), m < 2u);
    return select(v, -v, (code & 8u) != 0u);
}
