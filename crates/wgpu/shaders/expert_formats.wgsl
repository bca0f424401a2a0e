// Products of a piece of an expert's weight row with the inputs it stands for: FORMAT is the one of this program. A piece is what
// one lane takes at a time; PIECE is how many weights it holds. Layouts are those of the file but where `upload.rs` says so.
//   codes, scales: first word of the row in its two planes; p: number of the piece; at: first four of the row's inputs


fn added(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

// The inputs with the signs that bits 0 to 3 of `minus` turn round.
fn turned(v: vec4<f32>, minus: u32) -> vec4<f32> {
    let flips = (vec4<u32>(minus) << vec4<u32>(31u, 30u, 29u, 28u)) & vec4<u32>(0x80000000u);
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) ^ flips);
}

//if IQ2
var<workgroup> grid: array<vec2<u32>, 256>;

// Two words a group of 32: four rows of the grid, then four sets of seven signs and the scale; halves beside them, one for 256.
const PIECE = 8u;
fn piece_dot(rows: u32, signs: u32, d: f32, k: u32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    let magnitudes = grid[(rows >> (8u * k)) & 255u];
    let seven = (signs >> (7u * k)) & 127u;
    let minus = seven | ((countOneBits(seven) & 1u) << 7u);
    let scale = d * (0.5 + f32(signs >> 28u)) * 0.25;
    return scale * chain(unsigned_bytes(magnitudes.y), turned(b, minus >> 4u), chain(unsigned_bytes(magnitudes.x), turned(a, minus), 0.0));
}
//end
//if Q2K
const PIECE = 16u;
const BLOCK_WORDS = 21u;
//end
//if Q4K
const PIECE = 8u;
const BLOCK_WORDS = 36u;

// Six-bit scale and minimum of group `g` out of three words.
fn q4k_scale(s: vec3<u32>, g: u32) -> vec2<f32> {
    let at = 8u * (g & 3u);
    let a = (s.x >> at) & 255u;
    let b = (s.y >> at) & 255u;
    let c = (s.z >> at) & 255u;
    if (g < 4u) { return vec2<f32>(f32(a & 63u), f32(b & 63u)); }
    return vec2<f32>(f32((c & 15u) | ((a >> 6u) << 4u)), f32((c >> 4u) | ((b >> 6u) << 4u)));
}
//end
//if MXFP4
const PIECE = 8u;

// Value of four codes that stand in the low halves of four bytes, doubled: whole numbers.
fn fp4(w: u32) -> vec4<f32> {
    var v: vec4<f32>;
    for (var i = 0u; i < 4u; i += 1u) { v[i] = e2m1_value((w >> (8u * i)) & 15u); }
    return v;
}
fn exp2_byte(e: u32) -> f32 { return bitcast<f32>(select(e << 23u, 1u << 22u, e == 0u)); }
fn e2m1_value(code: u32) -> f32 {
    let m = code & 7u;
    let v = select(bitcast<f32>(((126u + (m >> 1u)) << 23u) | ((m & 1u) << 22u)), 0.5 * f32(m), m < 2u);
    return select(v, -v, (code & 8u) != 0u);
}
//end
//if Q8
const PIECE = 16u;
//end
//if F16
const PIECE = 8u;
//end
//if F32
const PIECE = 4u;
//end
