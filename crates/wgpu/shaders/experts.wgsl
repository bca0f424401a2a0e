// Routed experts of few rows: mid = swiglu(gate x, up x) * route weight, down mid. A pair is row * N_USED + choice; an expert tensor larger than a binding comes in parts, one dispatch
// each, in which the pairs of other experts end at once. A group of 32 lanes makes one output of gate and up, or two of down.
//   gate and up: grid (FF / 8, pairs, 1)     down: grid (N_EMBD / 16, pairs, 1)     256 invocations

struct Args {
    first: u32, count: u32,            // experts of the part
    codes: u32, scales: u32,           // first words of the planes of gate, or of down
    other_codes: u32, other_scales: u32, // of up
    clamp_at: f32, pairs: u32,
}
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> words: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
//if GATED
@group(0) @binding(4) var<storage, read> other_words: array<u32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
//if IQ2
@group(0) @binding(6) var<storage, read> iq2_grid: array<vec2<u32>>;
//end
//else
//if IQ2
@group(0) @binding(4) var<storage, read> iq2_grid: array<vec2<u32>>;
//end
//end

//if GATED
const K = N_EMBD;
const M = FF;
//else
const K = FF;
const M = N_EMBD;
//end
const PIECES = K / PIECE;

//dot dot_words words
//if GATED
//dot dot_other other_words
//end

@compute @workgroup_size(256)
fn experts(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let pair = wg.y;
    let expert = ids[pair];
    if (expert < args.first || expert >= args.first + args.count) { return; }
//if IQ2
    grid[tid] = iq2_grid[tid];
    workgroupBarrier();
//end
    let lane = tid & 31u;
    let group = 8u * wg.x + tid / 32u;
    let e = expert - args.first;
//if GATED
    let at = pair / N_USED * (K / 4u);
    let m = e * M + group;
    var sum = vec2<f32>();
    for (var p = lane; p < PIECES; p += 32u) {
        sum += vec2<f32>(dot_words(args.codes, args.scales, m, p, at), dot_other(args.other_codes, args.other_scales, m, p, at));
    }
    let total = first_sum4(vec4<f32>(sum, 0.0, 0.0), tid);
    if (lane == 0u) { out[pair * M + group] = swiglu(total.x, total.y, args.clamp_at) * weights[pair]; }
//else
    let at = pair * (K / 4u);
    let m = e * M + 2u * group;
    var sum = vec2<f32>();
    for (var p = lane; p < PIECES; p += 32u) {
        sum += vec2<f32>(dot_words(args.codes, args.scales, m, p, at), dot_words(args.codes, args.scales, m + 1u, p, at));
    }
    let total = first_sum4(vec4<f32>(sum, 0.0, 0.0), tid);
    if (lane == 0u) {
        out[pair * M + 2u * group] = total.x;
        out[pair * M + 2u * group + 1u] = total.y;
    }
//end
}
