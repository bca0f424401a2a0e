// hc_pre: collapse of the hyper-connection streams, the sublayer's norm, and what its post step needs (docs/model.md).
//   m = rms(streams) . fn (OUTPUTS outputs over HC * N_EMBD); pre = sigmoid + eps, post = 2 sigmoid, C = Sinkhorn(softmax)
//   x = norm(sum_h pre_h X[h])
// The head does the same with the pre weights alone (OUTPUTS = HC), for rows that want logits.
// Products are cut in parts of 1024 columns, so that a row's bits do not depend on its neighbours: [row][part][32], the last the
// sum of squares.
// With FUSED the last part of a row to be there makes its collapse too.

struct Args { fn_at: u32, format: u32, scale: u32, base: u32, norm: u32, rows: u32, pad0: u32, pad1: u32 }
var<immediate> args: Args;

const PARTS = HC * N_EMBD / 1024u;

//if MANY
@group(0) @binding(0) var<storage, read> streams: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<u32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;
//else
@group(0) @binding(0) var<storage, read> step: array<StepRow>;
@group(0) @binding(1) var<storage, read> streams: array<vec4<f32>>;
//if PRODUCTS
@group(0) @binding(2) var<storage, read> weights: array<u32>;
//if FUSED
@coherent @group(0) @binding(3) var<storage, read_write> partial: array<f32>;
@group(0) @binding(4) var<storage, read> values: array<f32>; // scale, base and norm
@group(0) @binding(5) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> mix: array<f32>;
@group(0) @binding(7) var<storage, read_write> tickets: array<atomic<u32>>;
//else
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;
//end
//else
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> partial: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> mix: array<f32>;
//end
//end
//if PRODUCTS

// Four columns of an output's weights: of each type a loop of its own asks for them, so that all are under way at once.
fn half_weights(o: u32, column: u32) -> vec4<f32> {
    let i = args.fn_at + (o * HC * N_EMBD + 4u * column) / 2u;
    return vec4<f32>(unpack2x16float(weights[i]), unpack2x16float(weights[i + 1u]));
}

fn full_weights(o: u32, column: u32) -> vec4<f32> {
    let i = args.fn_at + o * HC * N_EMBD + 4u * column;
    return bitcast<vec4<f32>>(vec4<u32>(weights[i], weights[i + 1u], weights[i + 2u], weights[i + 3u]));
}

//if MANY
var<workgroup> group_shares: array<vec4<f32>, 8u * (OUTPUTS + 1u)>;

fn products(w: vec4<f32>, v: mat4x4<f32>) -> vec4<f32> {
    return vec4<f32>(chain(w, v[0], 0.0), chain(w, v[1], 0.0), chain(w, v[2], 0.0), chain(w, v[3], 0.0));
}

fn share_out(o: u32, of_rows: vec4<f32>, tid: u32) {
    let sums = first_sum4(of_rows, tid);
    if ((tid & 31u) == 0u) { group_shares[8u * o + tid / 32u] = sums; }
}

// Of long steps. grid: (PARTS, fours of rows, 1), 256 invocations of four columns
@compute @workgroup_size(256)
fn hc_products(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = 4u * wg.y;
    let column = 256u * wg.x + tid; // in fours
    var v: mat4x4<f32>;
    for (var r = 0u; r < 4u; r += 1u) { v[r] = streams[min(row + r, args.rows - 1u) * HC * N_EMBD / 4u + column]; }
    if (args.format == FORMAT_F16) {
        for (var o = 0u; o < OUTPUTS; o += 1u) { share_out(o, products(half_weights(o, column), v), tid); }
    } else {
        for (var o = 0u; o < OUTPUTS; o += 1u) { share_out(o, products(full_weights(o, column), v), tid); }
    }
    share_out(OUTPUTS, vec4<f32>(dot(v[0], v[0]), dot(v[1], v[1]), dot(v[2], v[2]), dot(v[3], v[3])), tid);
    workgroupBarrier();
    if (tid <= OUTPUTS) {
        var sums = vec4<f32>();
        for (var i = 0u; i < 8u; i += 1u) { sums += group_shares[8u * tid + i]; }
        for (var r = 0u; r < min(4u, args.rows - row); r += 1u) {
            partial[((row + r) * PARTS + wg.x) * 32u + tid] = sums[r];
        }
    }
}
//else
var<workgroup> shares: array<f32, 256u * (OUTPUTS + 1u)>;
var<workgroup> eighths: array<f32, 8u * (OUTPUTS + 1u)>;

// grid: (PARTS, rows, 1), 256 invocations of four columns
@compute @workgroup_size(256)
fn hc_products(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = wg.y;
    if (OUTPUTS == HC && step[row].logits == NO_LOGITS) { return; }
    let column = 256u * wg.x + tid; // in fours
    let v = streams[row * HC * N_EMBD / 4u + column];
    if (args.format == FORMAT_F16) {
        for (var o = 0u; o < OUTPUTS; o += 1u) { shares[o * 256u + tid] = chain(half_weights(o, column), v, 0.0); }
    } else {
        for (var o = 0u; o < OUTPUTS; o += 1u) { shares[o * 256u + tid] = chain(full_weights(o, column), v, 0.0); }
    }
    shares[OUTPUTS * 256u + tid] = chain(v, v, 0.0);
    workgroupBarrier();
    if (tid < 8u * (OUTPUTS + 1u)) {
        var sum = 0.0;
        for (var i = 0u; i < 32u; i += 1u) { sum += shares[(tid / 8u) * 256u + 8u * i + tid % 8u]; }
        eighths[tid] = sum;
    }
    workgroupBarrier();
    if (tid <= OUTPUTS) {
        var sum = 0.0;
        for (var i = 0u; i < 8u; i += 1u) { sum += eighths[8u * tid + i]; }
        partial[(row * PARTS + wg.x) * 32u + tid] = sum;
    }
//if FUSED
    if (!is_last(row, 1u, PARTS, tid)) { return; }
    collapse(row, tid);
//end
}
//end
//end
//if COLLAPSE
var<workgroup> m: array<f32, 32>;
//if PRODUCTS
//else
var<workgroup> shares: array<f32, 32u * PARTS>;
//end

// Softmax over destinations, then alternating normalisation that ends on columns; c[source] is a vector over destinations.
fn sinkhorn(c_in: mat4x4<f32>) -> mat4x4<f32> {
    var c = c_in;
    for (var a = 0u; a < HC; a += 1u) {
        let r = c[a];
        let e = exp(r - max(max(r.x, r.y), max(r.z, r.w)));
        c[a] = e / (e.x + e.y + e.z + e.w) + HC_EPS;
    }
    for (var i = 0u; i < SINKHORN; i += 1u) {
        if (i > 0u) {
            for (var a = 0u; a < HC; a += 1u) {
                let r = c[a];
                c[a] = r / (r.x + r.y + r.z + r.w + HC_EPS);
            }
        }
        let inverse = 1.0 / (c[0] + c[1] + c[2] + c[3] + HC_EPS);
        c[0] *= inverse; c[1] *= inverse; c[2] *= inverse; c[3] *= inverse;
    }
    return c;
}

fn write_mix(row: u32) {
    var c: mat4x4<f32>;
    let scale = values[args.scale + 2u];
    for (var a = 0u; a < HC; a += 1u) {
        let i = 2u * HC + a * HC;
        c[a] = vec4<f32>(
            m[i] * scale + values[args.base + i], m[i + 1u] * scale + values[args.base + i + 1u],
            m[i + 2u] * scale + values[args.base + i + 2u], m[i + 3u] * scale + values[args.base + i + 3u]);
    }
    c = sinkhorn(c);
    for (var i = 0u; i < HC; i += 1u) {
        mix[row * MIX + i] = 2.0 * sigmoid(m[HC + i] * values[args.scale + 1u] + values[args.base + HC + i]);
        for (var b = 0u; b < HC; b += 1u) { mix[row * MIX + HC + i * HC + b] = c[i][b]; }
    }
}

// The outputs of the row, normed.
fn sum_parts(row: u32, tid: u32) {
    // All at once: one after the other they would take their time.
    for (var i = tid; i < 32u * PARTS; i += 256u) { shares[i] = partial[row * PARTS * 32u + i]; }
    workgroupBarrier();
    if (tid <= OUTPUTS) {
        var sum = 0.0;
        for (var p = 0u; p < PARTS; p += 1u) { sum += shares[32u * p + tid]; }
        m[tid] = sum;
    }
    workgroupBarrier();
    let inverse = inverseSqrt(m[OUTPUTS] / f32(HC * N_EMBD) + RMS_EPS);
    workgroupBarrier();
    if (tid < OUTPUTS) { m[tid] *= inverse; }
    workgroupBarrier();
}

// The collapsed and normed row.
fn collapse(row: u32, tid: u32) {
    var to = row;
    if (OUTPUTS == HC) {
        to = step[row].logits;
        if (to == NO_LOGITS) { return; }
    }
    const CHUNKS = (N_EMBD / 4u + 255u) / 256u;
    var x4: array<mat4x4<f32>, CHUNKS>;
    for (var i = 0u; i < CHUNKS; i += 1u) {
        let d = min(256u * i + tid, N_EMBD / 4u - 1u);
        for (var h = 0u; h < HC; h += 1u) { x4[i][h] = streams[(row * HC + h) * (N_EMBD / 4u) + d]; }
    }
    sum_parts(row, tid);
    var pre: vec4<f32>;
    for (var h = 0u; h < HC; h += 1u) { pre[h] = sigmoid(m[h] * values[args.scale] + values[args.base + h]) + HC_EPS; }
//if FUSED
    if (OUTPUTS > HC && tid == 255u) { write_mix(row); }
//end
    var y: array<vec4<f32>, CHUNKS>;
    var squares = 0.0;
    for (var i = 0u; i < CHUNKS; i += 1u) {
        y[i] = x4[i] * pre;
        if (N_EMBD % 1024u == 0u || 256u * i + tid < N_EMBD / 4u) { squares += dot(y[i], y[i]); }
    }
    let scale = inverseSqrt(block_sum(squares, tid) / f32(N_EMBD) + RMS_EPS);
    for (var i = 0u; i < CHUNKS; i += 1u) {
        let d = 256u * i + tid;
        if (d < N_EMBD / 4u) {
            let w = args.norm + 4u * d;
            x[to * (N_EMBD / 4u) + d] = y[i] * scale * vec4<f32>(values[w], values[w + 1u], values[w + 2u], values[w + 3u]);
        }
    }
}

//if PRODUCTS
//else
// grid: (2, rows, 1), 256 invocations: the collapse, and beside it the matrix. The head: (1, rows, 1).
@compute @workgroup_size(256)
fn hc_collapse(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    if (wg.x == 0u) {
        collapse(wg.y, tid);
        return;
    }
    sum_parts(wg.y, tid);
    if (tid == 0u) { write_mix(wg.y); }
}
//end
//end
