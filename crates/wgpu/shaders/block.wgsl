// Sums over a whole workgroup of THREADS invocations, the same in each of them.
var<workgroup> group_sums: array<f32, THREADS / 32u>;

fn block_sum(v: f32, tid: u32) -> f32 {
    let sum = first_sum(v, tid);
    if ((tid & 31u) == 0u) { group_sums[tid / 32u] = sum; }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < THREADS / 32u; i += 1u) { total += group_sums[i]; }
    workgroupBarrier();
    return total;
}
