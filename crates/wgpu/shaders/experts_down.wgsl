// The second half of the experts of few rows in one dispatch, where a binding holds all of them: for each output of a row the down
// products of its choices, in routing order, the shared expert's, and the hyper-connection post step.
//   grid: (N_EMBD / 4, rows, 1), 256 invocations: a group of 32 lanes has the four outputs' products with one expert

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

// A lane's shares of the shared expert's outputs from `d` on.
fn shared_parts(row: u32, d: u32, lane: u32) -> vec4<f32> {
    let x0 = row * (FF / 4u);
    let w = args.shared_codes;
    var sum = vec4<f32>();
    if (args.shared_format == FORMAT_Q8) {
        for (var p = lane; p < FF / 16u; p += 32u) {
            let at = args.shared_scales + d * (FF / 64u) + p / 4u;
            let v = x0 + 4u * p;
            let v0 = shared_x[v]; let v1 = shared_x[v + 1u]; let v2 = shared_x[v + 2u]; let v3 = shared_x[v + 3u];
//each i 4
            let a$i = shared_w[w + (d + $iu) * (FF / 16u) + p];
            let s$i = half_of(shared_words[at + $iu * (FF / 64u)], p & 2u);
//end
            sum = fma(vec4<f32>(s0, s1, s2, s3), vec4<f32>(q8_dot(a0, v0, v1, v2, v3), q8_dot(a1, v0, v1, v2, v3),
                q8_dot(a2, v0, v1, v2, v3), q8_dot(a3, v0, v1, v2, v3)), sum);
        }
    } else if (args.shared_format == FORMAT_F16) {
        for (var p = lane; p < FF / 8u; p += 32u) {
            let v0 = shared_x[x0 + 2u * p]; let v1 = shared_x[x0 + 2u * p + 1u];
//each i 4
            let a$i = shared_w[w + (d + $iu) * (FF / 8u) + p];
//end
            sum += vec4<f32>(f16_dot(a0, v0, v1), f16_dot(a1, v0, v1), f16_dot(a2, v0, v1), f16_dot(a3, v0, v1));
        }
    } else {
        for (var p = lane; p < FF / 4u; p += 32u) {
            let v = shared_x[x0 + p];
//each i 4
            let a$i = bitcast<vec4<f32>>(shared_w[w + (d + $iu) * (FF / 4u) + p]);
//end
            sum = vec4<f32>(chain(a0, v, sum.x), chain(a1, v, sum.y), chain(a2, v, sum.z), chain(a3, v, sum.w));
        }
    }
    return sum;
}

// The same of the expert that a pair has chosen.
fn routed_parts(pair: u32, d: u32, lane: u32) -> vec4<f32> {
    let m = ids[pair] * N_EMBD + d;
    let at = pair * (K / 4u);
    var sum = vec4<f32>();
    for (var p = lane; p < PIECES; p += 32u) {
        sum += vec4<f32>(dot_words(args.codes, args.scales, m, p, at), dot_words(args.codes, args.scales, m + 1u, p, at),
            dot_words(args.codes, args.scales, m + 2u, p, at), dot_words(args.codes, args.scales, m + 3u, p, at));
    }
    return sum;
}

// Of the shared expert, then of each choice.
var<workgroup> sums: array<vec4<f32>, N_USED + 1u>;

@compute @workgroup_size(256)
fn experts_down(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
//if IQ2
    grid[tid] = iq2_grid[tid];
    workgroupBarrier();
//end
    let lane = tid & 31u;
    let row = wg.y;
    let d = 4u * wg.x;
    // The first lanes store an output each; what they need besides is fetched before the products.
    var old = vec4<f32>();
    let own = row * HC * N_EMBD + d + tid;
    if (tid < 4u) { old = vec4<f32>(streams[own], streams[own + N_EMBD], streams[own + 2u * N_EMBD], streams[own + 3u * N_EMBD]); }
    // All groups take part in every round, for sums may need the whole workgroup.
    for (var first = 0u; first <= N_USED; first += 8u) {
        let which = first + tid / 32u;
        var share = vec4<f32>();
        if (which == 0u) { share = shared_parts(row, d, lane); }
        else if (which <= N_USED) { share = routed_parts(row * N_USED + which - 1u, d, lane); }
        let sum = first_sum4(share, tid);
        if (lane == 0u && which <= N_USED) { sums[which] = sum; }
    }
    workgroupBarrier();
    if (tid < 4u) {
        var y = 0.0;
        for (var which = 0u; which <= N_USED; which += 1u) { y += sums[which][tid]; }
        for (var b = 0u; b < HC; b += 1u) {
            let at = row * MIX + HC + b;
            streams[own + b * N_EMBD] = fma(mix[at + 12u], old.w,
                fma(mix[at + 8u], old.z, fma(mix[at + 4u], old.y, fma(mix[at], old.x, mix[row * MIX + b] * y))));
        }
    }
}
