// Shared by every stage: the step, scalar functions, rotations. Counts of the model (N_EMBD and so on) are constants that the
// program puts in front of this text.

const HC = 4u;              // hyper-connection streams
const MIX = 20u;            // post weights and Sinkhorn matrix of a row
const HEAD = 512u;          // width of a head, of a window row and of a compressed row
const ROT = 64u;            // its rotated tail
const NOPE = 448u;
const INDEX = 128u;         // width of an indexer head and row
const WINDOW = 128u;        // raw rows that a query sees
const NO_LOGITS = 0xffffffffu;

// One row of a step (model/src/batch.rs).
struct StepRow {
    token: u32, pos: u32, slot: u32, first: u32, end: u32, logits: u32, state: u32, pad: u32,
}

fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }

fn swiglu(gate: f32, up: f32, clamp_at: f32) -> f32 {
    let g = min(gate, clamp_at);
    return g * sigmoid(g) * clamp(up, -clamp_at, clamp_at);
}

// log(1 + u) for u >= 0, accurate where u is small: there 1 + u would lose it.
fn log_1p(u: f32) -> f32 {
    if (u > 0.4) { return log(1.0 + u); }
    let s = u / (2.0 + u);
    let z = s * s;
    return 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0 + z * (1.0 / 9.0)))));
}

fn softplus(x: f32) -> f32 {
    if (x > 20.0) { return x; }
    if (x < -20.0) { return exp(x); }
    return log_1p(exp(x));
}

// The 64 bits of a * b, low word first.
fn wide_product(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu; let ah = a >> 16u;
    let bl = b & 0xffffu; let bh = b >> 16u;
    let low = al * bl;
    let middle = ah * bl + (low >> 16u);
    let other = al * bh + (middle & 0xffffu);
    return vec2<u32>(a * b, ah * bh + (middle >> 16u) + (other >> 16u));
}

// Sine and cosine of an angle of at most 2^24, not negative. The angle is a float32 product by definition, but its functions are
// taken of exactly that number: turns come from its mantissa times 2 / pi in 96 bits, for float32 alone would lose the angle.
fn sin_cos(angle: f32) -> vec2<f32> {
    let bits = bitcast<u32>(angle);
    let exponent = i32(bits >> 23u) - 150;             // angle = mantissa * 2^exponent
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    if (exponent < -46) { return vec2<f32>(angle, 1.0); } // below 2^-22 the sine is the angle, and zero is among these
    // mantissa * 2 / pi = p[0] + p[1] 2^32 + p[2] 2^64 + p[3] 2^96, in units of 2^-96.
    let a = wide_product(mantissa, 0xfc2757d1u);
    let b = wide_product(mantissa, 0x4e441529u);
    let c = wide_product(mantissa, 0xa2f9836eu);
    let p1 = a.y + b.x;
    let p2a = b.y + c.x;
    let p2 = p2a + select(0u, 1u, p1 < a.y);
    let p3 = c.y + select(0u, 1u, p2a < b.y) + select(0u, 1u, p2 < p2a);
    // Quadrants and 32 bits of their fraction stand at bit 64 - exponent.. of the fraction: shift right by -exponent.
    let shift = u32(-exponent);                        // 1 to 46 here; angles of 2^23 and more would need a left shift
    var whole: u32;
    var fraction: u32;
    if (shift < 32u) {
        whole = select(p3 >> shift, p3, shift == 0u);
        fraction = select((p3 << (32u - shift)) | (p2 >> shift), p2, shift == 0u);
    } else {
        whole = 0u;
        let s = shift - 32u;
        fraction = select((p3 >> s), p3, s == 0u);
    }
    // To the nearest quadrant: the rest is -1/2 to 1/2 of it.
    let quadrant = whole + (fraction >> 31u);
    let r = f32(bitcast<i32>(fraction)) * (1.5707963267948966 / 4294967296.0);
    let z = r * r;
    let s = r * (1.0 + z * (-1.6666667e-1 + z * (8.3333333e-3 + z * (-1.9841270e-4 + z * 2.7557319e-6))));
    let co = 1.0 + z * (-0.5 + z * (4.1666667e-2 + z * (-1.3888889e-3 + z * (2.4801587e-5 - z * 2.7557319e-7))));
    switch (quadrant & 3u) {
        case 0u: { return vec2<f32>(s, co); }
        case 1u: { return vec2<f32>(co, -s); }
        case 2u: { return vec2<f32>(-s, -co); }
        default: { return vec2<f32>(-co, s); }
    }
}

// The pair at `pos`, rotated.
fn rotated(pair: vec2<f32>, frequency: f32, pos: u32) -> vec2<f32> {
    let t = sin_cos(f32(pos) * frequency);
    return vec2<f32>(pair.x * t.y - pair.y * t.x, pair.x * t.x + pair.y * t.y);
}

// The same backwards.
fn rotated_back(pair: vec2<f32>, frequency: f32, pos: u32) -> vec2<f32> {
    let t = sin_cos(f32(pos) * frequency);
    return vec2<f32>(pair.x * t.y + pair.y * t.x, pair.y * t.y - pair.x * t.x);
}
