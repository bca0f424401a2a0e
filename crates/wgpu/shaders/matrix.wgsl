// Cooperative matrices: squares of SIDE x SIDE, float16 as factors and float32 as sums, each held by a subgroup of LANES. Workgroups
// have eight subgroups. Workgroup memory of factors is counted in fours of float16; Metal loads matrices from single values, so
// there a four is FOUR elements, elsewhere one.
//if SCALARS
const FOUR = 4u;
//else
const FOUR = 1u;
//end

const SQUARE = SIDE * SIDE;
var<workgroup> sums: array<f32, 8u * SUMS>; // SUMS of each subgroup: a square, or what the stage has of them

fn sums_at(at: u32) -> vec4<f32> { return vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]); }
