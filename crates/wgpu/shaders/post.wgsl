// The post step of long steps, behind products that left their rows in memory (docs/model.md): stream b becomes
// post_b y + sum_h C[h][b] X[h].   grid: (ceil(N_EMBD / 1024), rows, 1), 256 invocations of four columns
// With ROUTED the routed experts' rows are added to y first.

@group(0) @binding(0) var<storage, read> products: array<vec4<f32>>; // [row][N_EMBD]
@group(0) @binding(1) var<storage, read> mix: array<f32>;
@group(0) @binding(2) var<storage, read_write> streams: array<vec4<f32>>;
//if ROUTED
@group(0) @binding(3) var<storage, read> down: array<vec4<f32>>; // [pair][N_EMBD]
//end

@compute @workgroup_size(256)
fn post(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    const WIDTH = N_EMBD / 4u;
    let row = wg.y;
    let d = 256u * wg.x + tid;
    if (d >= WIDTH) { return; }
    var y = vec4<f32>();
//if ROUTED
    for (var k = 0u; k < N_USED; k += 1u) { y += down[(row * N_USED + k) * WIDTH + d]; }
//end
    y += products[row * WIDTH + d];
    var old: array<vec4<f32>, HC>;
    for (var h = 0u; h < HC; h += 1u) { old[h] = streams[(row * HC + h) * WIDTH + d]; }
    for (var b = 0u; b < HC; b += 1u) {
        var v = mix[row * MIX + b] * y;
        for (var h = 0u; h < HC; h += 1u) { v = fma(vec4<f32>(mix[row * MIX + HC + h * HC + b]), old[h], v); }
        streams[(row * HC + b) * WIDTH + d] = v;
    }
}
