// route: what follows the products of the feed-forward input: scores, the chosen experts and their weights, and the shared
// expert's gated middle. score = sqrt(softplus(logit)); the bias decides which experts win, never how much they weigh.
//   grid: (rows, 1 + ceil(FF / 1024)), 256 threads; y = 0 routes, the others gate
#include "common.cuh"

struct RouteArgs {
    const StepRow* step;
    const float* logits; // [splits][rows][N_EXPERT]
    const float* gate;   // [halves][rows][FF]
    const float* up;
    const float* bias;   // [N_EXPERT], or null:
    const int32_t* hash; // [N_VOCAB][N_USED] expert ids of each token
    uint32_t* ids;       // [rows][N_USED], best first
    float* weights;
    float* shared;       // [rows][FF]
    uint32_t splits, stride; // of the logits, floats between splits
    uint32_t halves, half_stride; // of gate and up
    float clamp, scale;
};
static_assert(sizeof(RouteArgs) == 96, "mirrored in route.rs");

constexpr float MIN_TOTAL = 1.f / 16384.f;
constexpr int EACH = (N_EXPERT + 31) / 32;

// One warp: the N_USED largest sums, equal ones to the lower id. Keys are ordered like the sums; 0 is never chosen.
DEVICE void choose(const float (&sums)[EACH], uint32_t* ids) {
    uint32_t keys[EACH];
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
        const uint32_t bits = __float_as_uint(sums[i] + 0.f); // one zero
        keys[i] = sums[i] > -__int_as_float(0x7f800000) ? (bits & 0x80000000u ? ~bits : bits | 0x80000000u) : 0;
    }
    for (int k = 0; k < N_USED; ++k) {
        uint32_t best = 0, at = 0xffffffffu;
#pragma unroll
        for (int i = 0; i < EACH; ++i) best = max(best, keys[i]);
        best = __reduce_max_sync(0xffffffffu, best);
#pragma unroll
        for (int i = EACH - 1; i >= 0; --i)
            if (keys[i] == best) at = 32 * i + lane_id();
        at = __reduce_min_sync(0xffffffffu, at);
        if (best == 0) at = k; // nothing above minus infinity: any experts will do, but they must exist
        if (lane_id() == 0) ids[k] = at;
#pragma unroll
        for (int i = 0; i < EACH; ++i)
            if (at == uint32_t(32 * i) + lane_id()) keys[i] = 0;
    }
    __syncwarp();
}

DEVICE float4 summed(const RouteArgs& a, const float* sums, uint32_t row, uint32_t d) {
    float4 v = *reinterpret_cast<const float4*>(sums + size_t(row) * FF + d);
    for (uint32_t s = 1; s < a.halves; ++s) {
        const float4 w = *reinterpret_cast<const float4*>(sums + size_t(s) * a.half_stride + size_t(row) * FF + d);
        v.x += w.x, v.y += w.y, v.z += w.z, v.w += w.w;
    }
    return v;
}

extern "C" __global__ void __launch_bounds__(256) route_finish(const __grid_constant__ RouteArgs a) {
    __shared__ float scores[32 * EACH];
    __shared__ uint32_t ids[N_USED];
    const uint32_t row = blockIdx.x;
    float bias[EACH]; // of the first warp
    uint32_t hashed = 0;
    if (threadIdx.x < 32) {
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const uint32_t e = 32 * i + lane_id();
            bias[i] = a.bias != nullptr && e < N_EXPERT ? a.bias[e] : 0.f;
        }
        if (a.bias == nullptr && lane_id() < N_USED) hashed = uint32_t(a.hash[size_t(a.step[row].token) * N_USED + lane_id()]);
    }
    pdl_enter();
    if (blockIdx.y > 0) {
        const uint32_t d = (blockIdx.y - 1) * 1024 + 4 * threadIdx.x;
        if (d >= FF) return;
        const float4 g = summed(a, a.gate, row, d), u = summed(a, a.up, row, d);
        *reinterpret_cast<float4*>(a.shared + size_t(row) * FF + d) =
            float4{swiglu(g.x, u.x, a.clamp), swiglu(g.y, u.y, a.clamp), swiglu(g.z, u.z, a.clamp), swiglu(g.w, u.w, a.clamp)};
        return;
    }
    for (uint32_t e = threadIdx.x; e < N_EXPERT; e += 256) {
        float z = 0;
        for (uint32_t s = 0; s < a.splits; ++s) z += a.logits[size_t(s) * a.stride + size_t(row) * N_EXPERT + e];
        scores[e] = sqrtf(softplus(z));
    }
    __syncthreads();
    if (threadIdx.x >= 32) return;
    if (a.bias == nullptr) {
        if (lane_id() < N_USED) ids[lane_id()] = hashed;
        __syncwarp();
    } else {
        float sums[EACH];
        for (int i = 0; i < EACH; ++i) {
            const uint32_t e = 32 * i + lane_id();
            sums[i] = e < N_EXPERT ? scores[e] + bias[i] : -__int_as_float(0x7f800000);
        }
        choose(sums, ids);
    }
    float total = 0;
    for (int k = 0; k < N_USED; ++k) total += scores[ids[k]];
    total = fmaxf(total, MIN_TOTAL);
    if (lane_id() < N_USED) {
        a.ids[size_t(row) * N_USED + lane_id()] = ids[lane_id()];
        a.weights[size_t(row) * N_USED + lane_id()] = scores[ids[lane_id()]] / total * a.scale;
    }
}
