// The second half of the experts of few rows in one dispatch, where a binding holds all of them: for each output of a row the down
// products of its choices, in routing order, the shared expert's, and the hyper-connection post step.
//   grid: (N_EMBD / 16, rows, 1), 256 invocations: a group of 32 lanes has two outputs, which share what is read of x

struct Args { codes: u32, scales: u32, shared_codes: u32, shared_scales: u32, shared_format: u32, pad0: u32, pad1: u32, pad2: u32 }
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;        // mid [pair][FF]
@group(0) @binding(2) var<storage, read> words: array<u32>;
@group(0) @binding(3) var<storage, read> shared_x: array<vec4<f32>>; // [row][FF]
@group(0) @binding(4) var<storage, read> shared_w: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> shared_words: array<u32>;
@group(0) @binding(6) var<storage, read> mix: array<f32>;
@group(0) @binding(7) var<storage, read_write> streams: array<f32>;
//if IQ2
@group(0) @binding(8) var<storage, read> iq2_grid: array<vec2<u32>>;
//end

const K = FF;
const PIECES = K / PIECE;

//dot dot_words words

// A lane's share of the shared expert's output `d`.
fn shared_part(row: u32, d: u32, lane: u32) -> f32 {
    let x0 = row * (FF / 4u);
    var sum = 0.0;
    if (args.shared_format == FORMAT_Q8) {
        for (var p = lane; p < FF / 16u; p += 32u) {
            let i = x0 + 4u * p;
            let scale = half_of(shared_words[args.shared_scales + d * (FF / 64u) + p / 4u], p & 2u);
            let w = shared_w[args.shared_codes + d * (FF / 16u) + p];
            sum = fma(scale, q8_dot(w, shared_x[i], shared_x[i + 1u], shared_x[i + 2u], shared_x[i + 3u]), sum);
        }
    } else if (args.shared_format == FORMAT_F16) {
        for (var p = lane; p < FF / 8u; p += 32u) {
            sum += f16_dot(shared_w[args.shared_codes + d * (FF / 8u) + p], shared_x[x0 + 2u * p], shared_x[x0 + 2u * p + 1u]);
        }
    } else {
        for (var p = lane; p < FF / 4u; p += 32u) {
            sum = chain(bitcast<vec4<f32>>(shared_w[args.shared_codes + d * (FF / 4u) + p]), shared_x[x0 + p], sum);
        }
    }
    return sum;
}

@compute @workgroup_size(256)
fn experts_down(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
//if IQ2
    grid[tid] = iq2_grid[tid];
    workgroupBarrier();
//end
    let lane = tid & 31u;
    let row = wg.y;
    let d = 16u * wg.x + 2u * (tid / 32u);
    // The first lanes store an output each; what they need besides is fetched before the products.
    var old = vec4<f32>();
    let own = row * HC * N_EMBD + d + lane;
    if (lane < 2u) { old = vec4<f32>(streams[own], streams[own + N_EMBD], streams[own + 2u * N_EMBD], streams[own + 3u * N_EMBD]); }
    var share = vec2<f32>(shared_part(row, d, lane), shared_part(row, d + 1u, lane));
    for (var k = 0u; k < N_USED; k += 1u) {
        let pair = row * N_USED + k;
        let m = ids[pair] * N_EMBD + d;
        for (var p = lane; p < PIECES; p += 32u) {
            let at = pair * (K / 4u);
            share += vec2<f32>(dot_words(args.codes, args.scales, m, p, at), dot_words(args.codes, args.scales, m + 1u, p, at));
        }
    }
    let y = lane_sum4(vec4<f32>(share, 0.0, 0.0), tid)[lane & 1u];
    if (lane < 2u) {
        for (var b = 0u; b < HC; b += 1u) {
            let at = row * MIX + HC + b;
            streams[own + b * N_EMBD] = fma(mix[at + 12u], old.w,
                fma(mix[at + 8u], old.z, fma(mix[at + 4u], old.y, fma(mix[at], old.x, mix[row * MIX + b] * y))));
        }
    }
}
