// query: heads normed and rotated, in place; indexer heads rotated, transformed and rounded, for rows that have something to
// select.   grid: (rows, N_HEAD, or N_HEAD + N_INDEX_HEAD, 1), 128 invocations

struct Args { rope: u32, pad0: u32, pad1: u32, pad2: u32 }
var<immediate> args: Args;

@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> rope: array<f32>;
@group(0) @binding(2) var<storage, read_write> heads: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> index: array<f32>;

@compute @workgroup_size(128)
fn query(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = wg.x;
    let pos = step[row].pos;
    if (wg.y < N_HEAD) {
        let at = (row * N_HEAD + wg.y) * (HEAD / 4u) + tid;
        var v = heads[at];
        let scale = inverseSqrt(block_sum(dot(v, v), tid) / f32(HEAD) + RMS_EPS);
        heads[at] = rotate4(v * scale, 4u * tid, HEAD, args.rope, pos);
        return;
    }
    if ((pos + 1u) / 4u <= TOP_K) { return; }
    let at = (row * N_INDEX_HEAD + wg.y - N_HEAD) * INDEX + tid;
    var v = index[at];
    if (tid >= INDEX - ROT) {
        let other = index[at ^ 1u];
        let pair = args.rope + (tid - (INDEX - ROT)) / 2u;
        if ((tid & 1u) == 0u) { v = rotated(vec2<f32>(v, other), rope[pair], pos).x; }
        else { v = rotated(vec2<f32>(other, v), rope[pair], pos).y; }
    }
    workgroupBarrier(); // everybody has read
    index[at] = round_e2m1(hadamard(v, tid), tid);
}
