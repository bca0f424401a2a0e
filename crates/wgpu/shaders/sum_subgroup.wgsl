// Sums over the 32 lanes of a group that is a subgroup. Each lane gets the sum, added as one fixed tree.
fn lane_sum4(v: vec4<f32>, tid: u32) -> vec4<f32> {
    var sum = v;
    sum += subgroupShuffleXor(sum, 16u);
    sum += subgroupShuffleXor(sum, 8u);
    sum += subgroupShuffleXor(sum, 4u);
    sum += subgroupShuffleXor(sum, 2u);
    sum += subgroupShuffleXor(sum, 1u);
    return sum;
}

fn first_sum4(v: vec4<f32>, tid: u32) -> vec4<f32> { return lane_sum4(v, tid); }

fn first_sum(v: f32, tid: u32) -> f32 {
    var sum = v;
    sum += subgroupShuffleXor(sum, 16u);
    sum += subgroupShuffleXor(sum, 8u);
    sum += subgroupShuffleXor(sum, 4u);
    sum += subgroupShuffleXor(sum, 2u);
    sum += subgroupShuffleXor(sum, 1u);
    return sum;
}
