// Gated middles of few rows whose gate and up are IQ2_XXS: mid = swiglu(gate x, up x) * route weight. Weights are int8 here and x is
// two planes of int8, x = scale (high + low / 254) with a scale for each 32: as good as sixteen bits, and four products an
// instruction. Every workgroup makes its planes itself.
//   grid: (FF / 32, pairs, 1), 256 invocations: a group of 32 lanes makes four outputs, a lane 32 weights of each at a time
// A pair is row * N_USED + choice; of an expert tensor in parts the pairs of other experts end at once.

struct Args {
    first: u32, count: u32, codes: u32, scales: u32, other_codes: u32, other_scales: u32, clamp_at: f32, pairs: u32,
}
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> gate_codes: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> gate_words: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> up_codes: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> up_words: array<u32>;
@group(0) @binding(7) var<storage, read> weights: array<f32>;
@group(0) @binding(8) var<storage, read> iq2_grid: array<vec2<u32>>;

const GROUPS = N_EMBD / 32u;

var<workgroup> grid: array<vec2<u32>, 256>;
var<workgroup> planes: array<vec4<u32>, 4u * GROUPS>; // [high 0 to 15, high 16 to 31, low 0 to 15, low 16 to 31][group]
var<workgroup> scales: array<f32, GROUPS>;

// Eight neighbours have a group: four inputs each.
var<workgroup> largest: array<vec4<f32>, N_EMBD / 16u>;

fn split(row: u32, tid: u32) {
    const EACH = (N_EMBD / 4u + 255u) / 256u;
    var v: array<vec4<f32>, EACH>;
    for (var i = 0u; i < EACH; i += 1u) {
        let at = min(256u * i + tid, N_EMBD / 4u - 1u);
        v[i] = x[row * (N_EMBD / 4u) + at];
        largest[at / 4u][at % 4u] = max(max(abs(v[i].x), abs(v[i].y)), max(abs(v[i].z), abs(v[i].w)));
    }
    workgroupBarrier();
    for (var i = 0u; i < EACH; i += 1u) {
        let at = min(256u * i + tid, N_EMBD / 4u - 1u);
        let g = at / 8u;
        let both = max(largest[2u * g], largest[2u * g + 1u]);
        let top = max(max(both.x, both.y), max(both.z, both.w));
        let t = v[i] * select(0.0, 127.0 / top, top > 1e-30);
        let h = round(t);
        let to = (at % 8u) / 4u * GROUPS + g;
        planes[to][at % 4u] = packed(h);
        planes[2u * GROUPS + to][at % 4u] = packed(round((t - h) * 254.0));
        if (at % 8u == 0u) { scales[g] = top * (1.0 / 127.0); }
    }
}

fn packed(v: vec4<f32>) -> u32 { return pack4xI8(vec4<i32>(v)); }

// Eight weights: a row of the grid with the signs of seven bits, the eighth makes their number even. A byte is turned round
// as ~m + 1, which carries into no other since no magnitude is zero.
fn eight(row: u32, seven: u32) -> vec2<u32> {
    let minus = seven | ((countOneBits(seven) & 1u) << 7u);
    let ones = (vec2<u32>(minus & 15u, minus >> 4u) * 0x00204081u) & vec2<u32>(0x01010101u); // a bit for each byte
    return (grid[row] ^ (ones * 255u)) + ones;
}

fn dot8(w: vec2<u32>, a: u32, b: u32, sum: i32) -> i32 { return sum + dot4I8Packed(w.x, a) + dot4I8Packed(w.y, b); }

// 32 weights with their inputs, in units of the scales of both.
fn group_dot(code: vec2<u32>, h0: vec4<u32>, h1: vec4<u32>, l0: vec4<u32>, l1: vec4<u32>) -> f32 {
    let a = eight(code.x & 255u, code.y & 127u);
    let b = eight((code.x >> 8u) & 255u, (code.y >> 7u) & 127u);
    let c = eight((code.x >> 16u) & 255u, (code.y >> 14u) & 127u);
    let d = eight(code.x >> 24u, (code.y >> 21u) & 127u);
    let high = dot8(d, h1.z, h1.w, dot8(c, h1.x, h1.y, dot8(b, h0.z, h0.w, dot8(a, h0.x, h0.y, 0))));
    let low = dot8(d, l1.z, l1.w, dot8(c, l1.x, l1.y, dot8(b, l0.z, l0.w, dot8(a, l0.x, l0.y, 0))));
    return fma(f32(low), 1.0 / 254.0, f32(high)) * (0.5 + f32(code.y >> 28u));
}

@compute @workgroup_size(256)
fn experts_iq2(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let pair = wg.y;
    let expert = ids[pair];
    if (expert < args.first || expert >= args.first + args.count) { return; }
    grid[tid] = iq2_grid[tid];
    split(pair / N_USED, tid);
    workgroupBarrier();
    let lane = tid & 31u;
    let first = 32u * wg.x + 4u * (tid / 32u);
    let m = (expert - args.first) * FF + first;
    var gate = vec4<f32>();
    var up = vec4<f32>();
    for (var g = lane; g < GROUPS; g += 32u) {
//each i 4
        let a$i = gate_codes[args.codes / 2u + (m + $iu) * GROUPS + g];
        let b$i = up_codes[args.other_codes / 2u + (m + $iu) * GROUPS + g];
        let at$i = (m + $iu) * (GROUPS / 8u) + g / 8u;
        let c$i = half_of(gate_words[args.scales + at$i / 2u], at$i & 1u);
        let d$i = half_of(up_words[args.other_scales + at$i / 2u], at$i & 1u);
//end
        let h0 = planes[g];
        let h1 = planes[GROUPS + g];
        let l0 = planes[2u * GROUPS + g];
        let l1 = planes[3u * GROUPS + g];
        let scale = 0.25 * scales[g];
        gate = fma(scale * vec4<f32>(c0, c1, c2, c3), vec4<f32>(group_dot(a0, h0, h1, l0, l1), group_dot(a1, h0, h1, l0, l1),
            group_dot(a2, h0, h1, l0, l1), group_dot(a3, h0, h1, l0, l1)), gate);
        up = fma(scale * vec4<f32>(d0, d1, d2, d3), vec4<f32>(group_dot(b0, h0, h1, l0, l1), group_dot(b1, h0, h1, l0, l1),
            group_dot(b2, h0, h1, l0, l1), group_dot(b3, h0, h1, l0, l1)), up);
    }
    let gates = lane_sum4(gate, tid);
    let ups = lane_sum4(up, tid);
    if (lane < 4u) { out[pair * FF + first + lane] = swiglu(gates[lane], ups[lane], args.clamp_at) * weights[pair]; }
}
