// hc_pre: collapse of the hyper-connection streams, the sublayer's norm, and what its post step needs (docs/model.md).
//   m = rms(streams) . fn (24 outputs over HC * N_EMBD); pre = sigmoid + eps, post = 2 sigmoid, C = Sinkhorn(softmax)
//   x = norm(sum_h pre_h X[h])
// The head does the same with the pre weights alone, for rows that want logits.
//
// Products leave partial sums [row][parts][32] (the outputs, then the sum of squares); one CTA collapses a row; what the post step
// needs is written by `hc_mix`, or by another kernel that runs between (hc.cuh). Products of few rows are cut in parts of 128 columns, so that a row's bits do not depend on its neighbours;
// those of many rows go through the tensor cores, eight rows a CTA.
#include "hc.cuh"

constexpr int COLUMNS = 128;               // of each stream, in a part
constexpr int PARTS = N_EMBD / COLUMNS;
static_assert(N_EMBD % COLUMNS == 0, "whole parts");

struct HcArgs {
    const StepRow* step;
    const void* fn;       // [outputs][HC * N_EMBD] f16; kernels that end in f32: float32
    const float* scale;   // [3] or [1]
    const float* base;    // [outputs]
    const float* norm;    // [N_EMBD]
    const float* streams; // [rows][HC][N_EMBD]
    float* partial;       // [rows][parts][PARTIAL]
    float* x;             // [rows][N_EMBD]; head: [logit row][N_EMBD]
    float* m;             // scaled products, [rows][PARTIAL]; head: unused
    uint32_t n, parts;
    float rms_eps, hc_eps;
};
static_assert(sizeof(HcArgs) == 88, "mirrored in hc.rs");

// Sums over the warp of 32 values a lane: lane l gets the sum of value l. Half of the values change hands in each round.
template <int D> DEVICE void halve(float (&v)[32]) {
    const bool upper = lane_id() & D;
#pragma unroll
    for (int i = 0; i < D; ++i) {
        const float give = upper ? v[i] : v[i + D], hold = upper ? v[i + D] : v[i];
        v[i] = hold + __shfl_xor_sync(0xffffffffu, give, D);
    }
}
DEVICE float transposed_sum(float (&v)[32]) {
    halve<16>(v);
    halve<8>(v);
    halve<4>(v);
    halve<2>(v);
    halve<1>(v);
    return v[0];
}

// Products of one row and 128 columns: 64 threads, eight columns of a stream each.   grid: (PARTS, rows)
template <int OUTPUTS, bool WIDE> DEVICE void products(const HcArgs& a) {
    __shared__ float sums[PARTIAL];
    const uint32_t row = blockIdx.y, at = threadIdx.x / 16 * N_EMBD + blockIdx.x * COLUMNS + threadIdx.x % 16 * 8;
    uint4 w[WIDE ? 1 : OUTPUTS];
    if (!WIDE) {
#pragma unroll
        for (int o = 0; o < OUTPUTS; ++o)
            w[o] = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(a.fn) + size_t(o) * HC * N_EMBD + at);
    }
    pdl_enter();
    if (OUTPUTS == HC && a.step[row].logits == NO_LOGITS) return;
    const float4* from = reinterpret_cast<const float4*>(a.streams + size_t(row) * HC * N_EMBD + at);
    const float4 x0 = from[0], x1 = from[1];
    float v[32] = {};
#pragma unroll
    for (int o = 0; o < OUTPUTS; ++o) {
        if (WIDE) {
            const float4* f = reinterpret_cast<const float4*>(static_cast<const float*>(a.fn) + size_t(o) * HC * N_EMBD + at);
            const float4 f0 = f[0], f1 = f[1];
            v[o] = x0.x * f0.x + x0.y * f0.y + x0.z * f0.z + x0.w * f0.w + (x1.x * f1.x + x1.y * f1.y + x1.z * f1.z + x1.w * f1.w);
        } else {
            const uint4 f = w[WIDE ? 0 : o];
            v[o] = x0.x * f16_lo(f.x) + x0.y * f16_hi(f.x) + x0.z * f16_lo(f.y) + x0.w * f16_hi(f.y) +
                   (x1.x * f16_lo(f.z) + x1.y * f16_hi(f.z) + x1.z * f16_lo(f.w) + x1.w * f16_hi(f.w));
        }
    }
    v[OUTPUTS] = x0.x * x0.x + x0.y * x0.y + x0.z * x0.z + x0.w * x0.w + (x1.x * x1.x + x1.y * x1.y + x1.z * x1.z + x1.w * x1.w);
    const float sum = transposed_sum(v);
    if (threadIdx.x >= 32) sums[lane_id()] = sum;
    __syncthreads();
    if (threadIdx.x < 32) a.partial[(size_t(row) * PARTS + blockIdx.x) * PARTIAL + threadIdx.x] = sum + sums[threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(64) hc_products(const HcArgs a) { products<HC + MIX, false>(a); }
extern "C" __global__ void __launch_bounds__(64) hc_products_f32(const HcArgs a) { products<HC + MIX, true>(a); }
extern "C" __global__ void __launch_bounds__(64) hc_head_products(const HcArgs a) { products<HC, false>(a); }
extern "C" __global__ void __launch_bounds__(64) hc_head_products_f32(const HcArgs a) { products<HC, true>(a); }

// Products of eight rows: sixteen warps share k; hi and lo of a row's values stand in neighbouring columns of the tile.
//   grid: ceil(rows / 8), 512 threads
extern "C" __global__ void __launch_bounds__(512) hc_products_rows(const HcArgs a) {
    constexpr int ROWS = 8, WARPS = 16, EACH = HC * N_EMBD / WARPS; // k of a warp
    static_assert(EACH % 32 == 0, "whole groups of 32");
    __shared__ float sums[WARPS][PARTIAL][ROWS];
    pdl_enter();
    const uint32_t warp = threadIdx.x / 32, lane = lane_id(), g = lane / 4, t = lane % 4;
    const uint16_t* fn = static_cast<const uint16_t*>(a.fn) + warp * EACH + 8 * t;
    float c[2][2][4] = {}, squares[2] = {};
#pragma unroll 2
    for (int k = 0; k < EACH; k += 32) {
        uint4 w[2][2];
#pragma unroll
        for (int i = 0; i < 3; ++i) w[i / 2][i % 2] = *reinterpret_cast<const uint4*>(fn + size_t(8 * i + g) * HC * N_EMBD + k);
        w[1][1] = {0, 0, 0, 0}; // outputs 24 to 31
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const uint32_t row = min(blockIdx.x * ROWS + 4 * j + g / 2, a.n - 1);
            const float4* x = reinterpret_cast<const float4*>(a.streams + size_t(row) * HC * N_EMBD + warp * EACH + k + 8 * t);
            const float4 x0 = x[0], x1 = x[1];
            float v[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w};
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (g % 2 == 0) squares[j] += v[i] * v[i];
                else v[i] -= f32_of(f16_of(v[i]));
            }
            const uint32_t b[4] = {f16x2_of(v[0], v[1]), f16x2_of(v[2], v[3]), f16x2_of(v[4], v[5]), f16x2_of(v[6], v[7])};
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                const uint32_t a0[4] = {w[m][0].x, w[m][1].x, w[m][0].y, w[m][1].y};
                const uint32_t a1[4] = {w[m][0].z, w[m][1].z, w[m][0].w, w[m][1].w};
                mma_f16(c[m][j], a0, b[0], b[1]);
                mma_f16(c[m][j], a1, b[2], b[3]);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        squares[j] += __shfl_xor_sync(0xffffffffu, squares[j], 1);
        squares[j] += __shfl_xor_sync(0xffffffffu, squares[j], 2);
        if (g % 2 == 0 && t == 0) sums[warp][HC + MIX][4 * j + g / 2] = squares[j];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            sums[warp][16 * m + g][4 * j + t] = c[m][j][0] + c[m][j][1];
            if (m == 0) sums[warp][g + 8][4 * j + t] = c[m][j][2] + c[m][j][3];
        }
    }
    __syncthreads();
    if (threadIdx.x >= PARTIAL * ROWS) return;
    const uint32_t o = threadIdx.x % PARTIAL, r = threadIdx.x / PARTIAL, row = blockIdx.x * ROWS + r;
    if (row >= a.n || o > HC + MIX) return;
    float sum = 0;
    for (int w = 0; w < WARPS; ++w) sum += sums[w][o][r];
    a.partial[size_t(row) * PARTIAL + o] = sum;
}

// Collapse of one row: sixteen warps have the columns, one more the products.   grid: rows, 544 threads
constexpr int COLLAPSE = 512;
constexpr int CHUNKS = (N_EMBD / 4 + COLLAPSE - 1) / COLLAPSE; // of four columns a thread

template <int OUTPUTS> DEVICE void collapse(const HcArgs& a) {
    __shared__ float m[PARTIAL], warps[COLLAPSE / 32];
    const uint32_t row = blockIdx.x, warp = threadIdx.x / 32;
    // What no kernel writes is had before the wait.
    float4 norm[CHUNKS];
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        const uint32_t d = 4 * (i * COLLAPSE + threadIdx.x % COLLAPSE);
        norm[i] = d < N_EMBD ? *reinterpret_cast<const float4*>(a.norm + d) : float4{0, 0, 0, 0};
    }
    const float pre_scale = a.scale[0];
    float base[HC];
#pragma unroll
    for (int h = 0; h < HC; ++h) base[h] = a.base[h];
    pdl_enter_early();
    if (OUTPUTS == HC && a.step[row].logits == NO_LOGITS) return;
    const float* streams = a.streams + size_t(row) * HC * N_EMBD;
    float4 v[CHUNKS][HC];
    if (warp < COLLAPSE / 32) {
#pragma unroll
        for (int i = 0; i < CHUNKS; ++i) {
            const uint32_t d = 4 * (i * COLLAPSE + threadIdx.x);
#pragma unroll
            for (int h = 0; h < HC; ++h)
                v[i][h] = d < N_EMBD ? *reinterpret_cast<const float4*>(streams + h * N_EMBD + d) : float4{0, 0, 0, 0};
        }
    } else {
        const float* partial = a.partial + size_t(row) * a.parts * PARTIAL + lane_id();
        float parts[PARTS], sum = 0; // everything is loaded at once
#pragma unroll
        for (uint32_t p = 0; p < PARTS; ++p) parts[p] = p < a.parts ? partial[p * PARTIAL] : 0.f;
#pragma unroll
        for (uint32_t p = 0; p < PARTS; ++p) sum += parts[p];
        const float squares = __shfl_sync(0xffffffffu, sum, OUTPUTS);
        m[lane_id()] = sum * rsqrtf(squares / (HC * N_EMBD) + a.rms_eps);
    }
    __syncthreads();
    if (warp == COLLAPSE / 32) {
        if (OUTPUTS > HC) a.m[row * PARTIAL + lane_id()] = m[lane_id()];
        return;
    }
    float pre[HC];
#pragma unroll
    for (int h = 0; h < HC; ++h) pre[h] = sigmoid(m[h] * pre_scale + base[h]) + a.hc_eps;
    float4 y[CHUNKS];
    float squares = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        y[i] = {0, 0, 0, 0};
#pragma unroll
        for (int h = 0; h < HC; ++h) {
            y[i].x += pre[h] * v[i][h].x;
            y[i].y += pre[h] * v[i][h].y;
            y[i].z += pre[h] * v[i][h].z;
            y[i].w += pre[h] * v[i][h].w;
        }
        squares += y[i].x * y[i].x + y[i].y * y[i].y + y[i].z * y[i].z + y[i].w * y[i].w;
    }
    squares = warp_sum(squares);
    if (lane_id() == 0) warps[warp] = squares;
    named_barrier(1, COLLAPSE);
    squares = 0;
#pragma unroll
    for (int w = 0; w < COLLAPSE / 32; ++w) squares += warps[w];
    const float scale = rsqrtf(squares / N_EMBD + a.rms_eps);
    const uint32_t to = OUTPUTS == HC ? a.step[row].logits : row;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        const uint32_t d = 4 * (i * COLLAPSE + threadIdx.x);
        if (d >= N_EMBD) continue;
        const float4 w = norm[i];
        *reinterpret_cast<float4*>(a.x + size_t(to) * N_EMBD + d) =
            float4{y[i].x * scale * w.x, y[i].y * scale * w.y, y[i].z * scale * w.z, y[i].w * scale * w.w};
    }
}
extern "C" __global__ void __launch_bounds__(COLLAPSE + 32) hc_collapse(const HcArgs a) { collapse<HC + MIX>(a); }
extern "C" __global__ void __launch_bounds__(COLLAPSE + 32) hc_head_collapse(const HcArgs a) { collapse<HC>(a); }

// grid: rows, 32 threads
extern "C" __global__ void __launch_bounds__(32) hc_mix(const MixArgs a) {
    pdl_enter();
    if (threadIdx.x == 0) write_mix(a, blockIdx.x);
}

// Post step of long steps: X'[b] = post_b y + sum_a C[a][b] X[a].   grid: rows
struct HcPostArgs {
    const float* y;   // [rows][N_EMBD]
    const float* mix; // [rows][MIX]
    float* streams;
};
static_assert(sizeof(HcPostArgs) == 24, "mirrored in hc.rs");

extern "C" __global__ void __launch_bounds__(512) hc_post(const HcPostArgs a) {
    pdl_enter();
    const uint32_t row = blockIdx.x;
    float mix[MIX];
#pragma unroll
    for (int i = 0; i < MIX; ++i) mix[i] = a.mix[size_t(row) * MIX + i];
    float* streams = a.streams + size_t(row) * HC * N_EMBD;
    for (uint32_t d = 4 * threadIdx.x; d < N_EMBD; d += 2048) {
        const float4 y = *reinterpret_cast<const float4*>(a.y + size_t(row) * N_EMBD + d);
        float4 old[HC];
#pragma unroll
        for (int h = 0; h < HC; ++h) old[h] = *reinterpret_cast<const float4*>(streams + h * N_EMBD + d);
#pragma unroll
        for (int b = 0; b < HC; ++b) {
            float4 v = {mix[b] * y.x, mix[b] * y.y, mix[b] * y.z, mix[b] * y.w};
#pragma unroll
            for (int h = 0; h < HC; ++h) {
                const float c = mix[HC + h * HC + b];
                v.x += c * old[h].x, v.y += c * old[h].y, v.z += c * old[h].z, v.w += c * old[h].w;
            }
            *reinterpret_cast<float4*>(streams + b * N_EMBD + d) = v;
        }
    }
}
