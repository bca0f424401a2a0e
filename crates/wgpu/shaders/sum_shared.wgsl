// Sums over the 32 lanes of a group, through workgroup memory: for devices without subgroups of 32. Every invocation of the
// workgroup calls. Eights are added first, then their sums.
var<workgroup> lane_values: array<vec4<f32>, THREADS>;

// The sum, in lane 0 alone.
fn first_sum4(v: vec4<f32>, tid: u32) -> vec4<f32> {
    lane_values[tid] = v;
    workgroupBarrier();
    var sum = v;
    if ((tid & 7u) == 0u) {
        for (var i = 1u; i < 8u; i += 1u) { sum += lane_values[tid + i]; }
        lane_values[tid] = sum;
    }
    workgroupBarrier();
    if ((tid & 31u) == 0u) { sum += lane_values[tid + 8u] + (lane_values[tid + 16u] + lane_values[tid + 24u]); }
    workgroupBarrier();
    return sum;
}

// The sum, in every lane.
fn lane_sum4(v: vec4<f32>, tid: u32) -> vec4<f32> {
    let sum = first_sum4(v, tid);
    if ((tid & 31u) == 0u) { lane_values[tid] = sum; }
    workgroupBarrier();
    let all = lane_values[tid & ~31u];
    workgroupBarrier();
    return all;
}

fn first_sum(v: f32, tid: u32) -> f32 { return first_sum4(vec4<f32>(v), tid).x; }
