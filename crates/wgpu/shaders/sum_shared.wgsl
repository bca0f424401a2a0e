// Sums over the 32 lanes of a group, through workgroup memory: for devices without subgroups of 32. Every invocation of the
// workgroup calls; each lane gets its group's sum, added in the order of the lanes.
var<workgroup> lane_values: array<vec4<f32>, 256>;

fn lane_sum4(v: vec4<f32>, tid: u32) -> vec4<f32> {
    lane_values[tid] = v;
    workgroupBarrier();
    let first = tid & ~31u;
    var sum = lane_values[first];
    for (var i = 1u; i < 32u; i += 1u) { sum += lane_values[first + i]; }
    workgroupBarrier();
    return sum;
}

fn lane_sum(v: f32, tid: u32) -> f32 { return lane_sum4(vec4<f32>(v), tid).x; }
