// Products of a piece of a weight row, sixteen bytes of codes, with the inputs it stands for. `at` counts fours of inputs.

// Bytes become the low bits of float16 numbers of 1024 and more: GPUs convert those faster than integers.
fn signed_bytes(w: u32) -> vec4<f32> {
    let even = unpack2x16float((w & 0x00ff00ffu) ^ 0x64806480u);
    let odd = unpack2x16float(((w >> 8u) & 0x00ff00ffu) ^ 0x64806480u);
    return vec4<f32>(even.x, odd.x, even.y, odd.y) - 1152.0;
}

fn unsigned_bytes(w: u32) -> vec4<f32> {
    let even = unpack2x16float((w & 0x00ff00ffu) ^ 0x64006400u);
    let odd = unpack2x16float(((w >> 8u) & 0x00ff00ffu) ^ 0x64006400u);
    return vec4<f32>(even.x, odd.x, even.y, odd.y) - 1024.0;
}

fn chain(w: vec4<f32>, v: vec4<f32>, sum: f32) -> f32 {
    return fma(w.w, v.w, fma(w.z, v.z, fma(w.y, v.y, fma(w.x, v.x, sum))));
}

fn q8_dot(w: vec4<u32>, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> f32 {
    return chain(signed_bytes(w.w), d, chain(signed_bytes(w.z), c, chain(signed_bytes(w.y), b, chain(signed_bytes(w.x), a, 0.0))));
}

fn f16_dot(w: vec4<u32>, a: vec4<f32>, b: vec4<f32>) -> f32 {
    let first = vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
    let second = vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w));
    return chain(second, b, chain(first, a, 0.0));
}

// The scale of a block of Q8: two halves a word.
fn half_of(word: u32, odd: u32) -> f32 {
    let both = unpack2x16float(word);
    return select(both.x, both.y, odd != 0u);
}
