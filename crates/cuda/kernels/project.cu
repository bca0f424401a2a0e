// project: what follows the products of the attention input. The products leave partial sums [split][rows][width]; here they
// are added in order of the splits, then: q's low-rank row is normed; the window row is normed, rotated, rounded and stored;
// compressor gates get their position bias; indexer weights their scale.
//   grid: (rows, roles), 128 threads
#include "encode.cuh"

struct Partial {
    const float* sums;
    uint32_t splits, stride; // floats between splits
};
struct ProjectArgs {
    const StepRow* step;
    Partial q, kv, value, gate, index_value, index_gate, index_weights;
    const float* q_norm;
    const float* kv_norm;
    const float* frequencies; // of this kind of layer
    const float* ape;         // [ratio][width]
    const float* index_ape;   // [4][2 * INDEX]
    float* low_q;             // [rows][Q_LORA]
    float* pooled;            // [rows][value width][gate width]
    float* index_pooled;
    float* weights;           // [rows][N_INDEX_HEAD]
    Rows window;
    uint32_t ratio;           // 0: roles 0 and 1; 128: roles 0 to 2; 4: roles 0 to 3
    float rms_eps;
};
static_assert(sizeof(ProjectArgs) == 216, "mirrored in project.rs");

DEVICE float4 summed(const Partial& p, uint32_t row, uint32_t width, uint32_t d) {
    float4 v = *reinterpret_cast<const float4*>(p.sums + size_t(row) * width + d);
    for (uint32_t s = 1; s < p.splits; ++s) {
        const float4 w = *reinterpret_cast<const float4*>(p.sums + size_t(s) * p.stride + size_t(row) * width + d);
        v.x += w.x, v.y += w.y, v.z += w.z, v.w += w.w;
    }
    return v;
}
DEVICE float squares(const float4& v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }

DEVICE void norm_q(const ProjectArgs& a, uint32_t row, float* scratch) {
    constexpr int EACH = (Q_LORA + 511) / 512;
    float4 v[EACH], norm[EACH];
    for (int i = 0; i < EACH; ++i) {
        const uint32_t d = 4 * (i * 128 + threadIdx.x);
        norm[i] = d < Q_LORA ? *reinterpret_cast<const float4*>(a.q_norm + d) : float4{0, 0, 0, 0};
    }
    pdl_enter();
    float sum = 0;
    for (int i = 0; i < EACH; ++i) {
        const uint32_t d = 4 * (i * 128 + threadIdx.x);
        v[i] = d < Q_LORA ? summed(a.q, row, Q_LORA, d) : float4{0, 0, 0, 0};
        sum += squares(v[i]);
    }
    const float scale = rsqrtf(block_sum(sum, scratch) / Q_LORA + a.rms_eps);
    for (int i = 0; i < EACH; ++i) {
        const uint32_t d = 4 * (i * 128 + threadIdx.x);
        if (d >= Q_LORA) continue;
        const float4 w = norm[i];
        *reinterpret_cast<float4*>(a.low_q + size_t(row) * Q_LORA + d) =
            float4{v[i].x * scale * w.x, v[i].y * scale * w.y, v[i].z * scale * w.z, v[i].w * scale * w.w};
    }
}

DEVICE void store_window(const ProjectArgs& a, uint32_t row, float* scratch) {
    const StepRow at = a.step[row];
    const uint32_t d = 4 * threadIdx.x;
    const Rotation rotation = rotation4(d, HEAD, a.frequencies, at.pos);
    const float4 w = *reinterpret_cast<const float4*>(a.kv_norm + d);
    pdl_enter();
    const float4 kv = summed(a.kv, row, HEAD, d);
    const float scale = rsqrtf(block_sum(squares(kv), scratch) / HEAD + a.rms_eps);
    float v[4] = {kv.x * scale * w.x, kv.y * scale * w.y, kv.z * scale * w.z, kv.w * scale * w.w};
    rotate4(v, rotation);
    encode_row(v, ring_at(a.window, at.slot, at.pos));
}

template <int WIDTH> DEVICE void pool_inputs(const StepRow& at, uint32_t row, const Partial& value, const Partial& gate, const float* ape, uint32_t ratio, float* to) {
    constexpr int EACH = (WIDTH + 511) / 512;
    float4 bias[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const uint32_t d = 4 * (i * 128 + threadIdx.x);
        if (d < WIDTH) bias[i] = *reinterpret_cast<const float4*>(ape + at.pos % ratio * WIDTH + d);
    }
    pdl_enter();
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const uint32_t d = 4 * (i * 128 + threadIdx.x);
        if (d >= WIDTH) continue;
        float4 g = summed(gate, row, WIDTH, d);
        g.x += bias[i].x, g.y += bias[i].y, g.z += bias[i].z, g.w += bias[i].w;
        float* out = to + size_t(row) * 2 * WIDTH + d;
        *reinterpret_cast<float4*>(out) = summed(value, row, WIDTH, d);
        *reinterpret_cast<float4*>(out + WIDTH) = g;
    }
}

extern "C" __global__ void __launch_bounds__(128) project_finish(const __grid_constant__ ProjectArgs a) {
    __shared__ float scratch[4];
    const uint32_t row = blockIdx.x;
    // Every role waits for the products itself, once it has what no kernel writes.
    switch (blockIdx.y) {
    case 0: norm_q(a, row, scratch); break;
    case 1: store_window(a, row, scratch); break;
    case 2:
        if (a.ratio == 4) pool_inputs<2 * HEAD>(a.step[row], row, a.value, a.gate, a.ape, a.ratio, a.pooled);
        else pool_inputs<HEAD>(a.step[row], row, a.value, a.gate, a.ape, a.ratio, a.pooled);
        break;
    default:
        pool_inputs<2 * INDEX>(a.step[row], row, a.index_value, a.index_gate, a.index_ape, a.ratio, a.index_pooled);
        const float scale = rsqrtf(float(INDEX * N_INDEX_HEAD));
        for (uint32_t h = threadIdx.x; h < N_INDEX_HEAD; h += 128) {
            const Partial& p = a.index_weights;
            float w = 0;
            for (uint32_t s = 0; s < p.splits; ++s) w += p.sums[size_t(s) * p.stride + size_t(row) * N_INDEX_HEAD + h];
            a.weights[size_t(row) * N_INDEX_HEAD + h] = w * scale;
        }
    }
}
