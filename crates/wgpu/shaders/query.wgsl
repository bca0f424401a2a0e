// query: heads normed and rotated, in place; indexer heads rotated, transformed and rounded, for rows that have something to
// select. A unit is a head, then an indexer head.
//   grid: (rows, N_HEAD, or N_HEAD + N_INDEX_HEAD, 1), 128 invocations; with FUSED this is a part of `dense`, JOINED by `compress`

//if FUSED
//if JOINED
//else
struct Finish { pad0: u32, pad1: u32, pad2: u32, pad3: u32, pad4: u32, pad5: u32, pad6: u32, pad7: u32 }
//end
@group(0) @binding(4) var<storage, read> step: array<StepRow>;
@group(0) @binding(5) var<storage, read> rope: array<f32>;
@coherent @group(0) @binding(6) var<storage, read_write> heads: array<f32>;
@coherent @group(0) @binding(7) var<storage, read_write> index: array<f32>;
@group(0) @binding(8) var<storage, read_write> tickets: array<atomic<u32>>;
//else
@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> rope: array<f32>;
@group(0) @binding(2) var<storage, read_write> heads: array<f32>;
@group(0) @binding(3) var<storage, read_write> index: array<f32>;
//end

fn finish(row: u32, head: u32, tid: u32) {
    let pos = step[row].pos;
    if (head < N_HEAD) {
        let at = (row * N_HEAD + head) * HEAD + 4u * tid;
        var v = vec4<f32>(heads[at], heads[at + 1u], heads[at + 2u], heads[at + 3u]);
        let scale = inverseSqrt(block_sum(dot(v, v), tid) / f32(HEAD) + RMS_EPS);
        v = rotate4(v * scale, 4u * tid, HEAD, pos);
        heads[at] = v.x; heads[at + 1u] = v.y; heads[at + 2u] = v.z; heads[at + 3u] = v.w;
        return;
    }
    if ((pos + 1u) / 4u <= TOP_K) { return; }
    let at = (row * N_INDEX_HEAD + head - N_HEAD) * INDEX + tid;
    var v = index[at];
    if (tid >= INDEX - ROT) {
        let other = index[at ^ 1u];
        let pair = (tid - (INDEX - ROT)) / 2u;
        if ((tid & 1u) == 0u) { v = rotated(vec2<f32>(v, other), rope[pair], pos).x; }
        else { v = rotated(vec2<f32>(other, v), rope[pair], pos).y; }
    }
    workgroupBarrier(); // everybody has read
    index[at] = round_e2m1(hadamard(v, tid), tid);
}

//if FUSED
const UNITS = N_HEAD + N_INDEX_HEAD;

fn unit(m: u32) -> vec2<u32> {
    if (m < N_HEAD * HEAD) { return vec2<u32>(m / HEAD, HEAD); }
    return vec2<u32>(N_HEAD + (m - N_HEAD * HEAD) / INDEX, INDEX);
}

fn keep(row: u32, m: u32, y: f32) {
    if (m < N_HEAD * HEAD) { heads[row * N_HEAD * HEAD + m] = y; }
    else { index[row * N_INDEX_HEAD * INDEX + m - N_HEAD * HEAD] = y; }
}
//else
@compute @workgroup_size(128)
fn query(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) { finish(wg.x, wg.y, tid); }
//end
