// hc_pre: collapse of the hyper-connection streams, the sublayer's norm, and what its post step needs (docs/model.md).
//   m = rms(streams) . fn (24 outputs over HC * N_EMBD); pre = sigmoid + eps, post = 2 sigmoid, C = Sinkhorn(softmax)
//   x = norm(sum_h pre_h X[h])
// hc_head: the same with the pre weights alone, for rows that want logits.
//
// PARTS CTAs share a row (a cluster where there are clusters): each holds N_EMBD / PARTS columns of all streams, and the
// mixing weights of those columns in shared memory, which it fetches before it waits for the streams. Sums go through
// distributed shared memory in a fixed order, so a row's bits do not depend on its neighbours.
//   grid: PARTS x row groups; a cluster walks the rows group, group + groups, ...
#include "common.cuh"

#if HAS_BULK
constexpr int PARTS = 8;
#else
constexpr int PARTS = 1;
#endif
constexpr int COLUMNS = N_EMBD / PARTS; // of each stream, in one CTA
constexpr int THREADS = 128;
constexpr int CHUNKS = (COLUMNS / 4 + THREADS - 1) / THREADS; // of four columns a thread

struct HcArgs {
    const StepRow* step;
    const void* fn;       // [outputs][HC * N_EMBD] f16; hc_pre_f32, hc_head_f32: f32
    const float* scale;   // [3] or [1]
    const float* base;    // [outputs]
    const float* norm;    // [N_EMBD]
    const float* streams; // [rows][HC][N_EMBD]
    float* x;             // [rows][N_EMBD]; hc_head: [logit row][N_EMBD]
    float* mix;           // [rows][MIX]
    uint32_t n, groups, sinkhorn_iters;
    float rms_eps, hc_eps;
    uint32_t pad;
};
static_assert(sizeof(HcArgs) == 88, "mirrored in hc.rs");

#if HAS_BULK
DEVICE uint32_t part() {
    uint32_t r;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
DEVICE float remote(const float* p, uint32_t rank) {
    uint32_t at;
    float v;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_address(p)), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(at) : "memory");
    return v;
}
#else
DEVICE uint32_t part() { return 0; }
DEVICE void cluster_barrier() { __syncthreads(); }
DEVICE float remote(const float* p, uint32_t) { return *p; }
#endif

// Softmax over destinations, then alternating normalisation that ends on columns; c [source][destination].
DEVICE void sinkhorn(float (&c)[HC * HC], uint32_t iterations, float eps) {
#pragma unroll
    for (int a = 0; a < HC; ++a) {
        float top = c[a * HC], sum = 0;
        for (int b = 1; b < HC; ++b) top = fmaxf(top, c[a * HC + b]);
        for (int b = 0; b < HC; ++b) sum += c[a * HC + b] = expf(c[a * HC + b] - top);
        const float inverse = 1.f / sum;
        for (int b = 0; b < HC; ++b) c[a * HC + b] = c[a * HC + b] * inverse + eps;
    }
    for (uint32_t i = 0; i < iterations; ++i) {
        if (i > 0) {
#pragma unroll
            for (int a = 0; a < HC; ++a) {
                float* r = c + a * HC;
                const float inverse = 1.f / ((r[0] + r[1]) + (r[2] + r[3]) + eps);
                for (int b = 0; b < HC; ++b) r[b] *= inverse;
            }
        }
#pragma unroll
        for (int b = 0; b < HC; ++b) {
            const float inverse = 1.f / ((c[b] + c[HC + b]) + (c[2 * HC + b] + c[3 * HC + b]) + eps);
            for (int a = 0; a < HC; ++a) c[a * HC + b] *= inverse;
        }
    }
}

// Post weights and Sinkhorn matrix of a row, by one thread.
DEVICE void write_mix(const HcArgs& a, uint32_t row, const float* m) {
    float c[HC * HC];
#pragma unroll
    for (int i = 0; i < HC * HC; ++i) c[i] = m[2 * HC + i] * a.scale[2] + a.base[2 * HC + i];
    sinkhorn(c, a.sinkhorn_iters, a.hc_eps);
    float* mix = a.mix + size_t(row) * MIX;
#pragma unroll
    for (int i = 0; i < HC; ++i) mix[i] = 2.f * sigmoid(m[HC + i] * a.scale[1] + a.base[HC + i]);
#pragma unroll
    for (int i = 0; i < HC * HC; ++i) mix[HC + i] = c[i];
}

// Mixing weights in f16 fit beside each other, float32 ones are read where they are.
template <int OUTPUTS, bool WIDE> struct Shared {
    static constexpr bool HELD = HAS_BULK && !WIDE;
    uint16_t fn[HELD ? OUTPUTS : 1][HC][HELD ? COLUMNS : 8];
    float warps[OUTPUTS + 1][THREADS / 32];
    float partial[2][32];  // this part's sums: of the products, then of the collapsed row
    float m[32];
    float scratch[8];
};

// The mixing weights of this part's columns, on their way to shared memory where they fit.
template <int OUTPUTS, bool WIDE> DEVICE void fetch_fn(const HcArgs& a, Shared<OUTPUTS, WIDE>& s) {
    if (!Shared<OUTPUTS, WIDE>::HELD) return;
    constexpr uint32_t eighths = COLUMNS / 8;
    for (uint32_t i = threadIdx.x; i < OUTPUTS * HC * eighths; i += THREADS) {
        const uint32_t e = i % eighths, h = i / eighths % HC, o = i / (eighths * HC);
        cp_async16(&s.fn[o][h][8 * e], static_cast<const uint16_t*>(a.fn) + size_t(o) * HC * N_EMBD + h * N_EMBD + part() * COLUMNS + 8 * e);
    }
    cp_async_commit();
}
// Four weights of output `o`, from column `d` of this part.
template <int OUTPUTS, bool WIDE> DEVICE float4 fn_at(const HcArgs& a, const Shared<OUTPUTS, WIDE>& s, int o, int h, uint32_t d) {
    const size_t at = size_t(o) * HC * N_EMBD + h * N_EMBD + part() * COLUMNS + d;
    if (WIDE) return *reinterpret_cast<const float4*>(static_cast<const float*>(a.fn) + at);
    const uint16_t* from = Shared<OUTPUTS, WIDE>::HELD ? &s.fn[o][h][d] : static_cast<const uint16_t*>(a.fn) + at;
    const uint2 w = *reinterpret_cast<const uint2*>(from);
    return {f16_lo(w.x), f16_hi(w.x), f16_lo(w.y), f16_hi(w.y)};
}

template <int OUTPUTS, bool WIDE> DEVICE void hc(const HcArgs& a) {
    extern __shared__ __align__(16) uint8_t bytes[];
    Shared<OUTPUTS, WIDE>& s = *reinterpret_cast<Shared<OUTPUTS, WIDE>*>(bytes);
    fetch_fn(a, s);
    pdl_trigger();
    pdl_wait();
    cp_async_wait<0>();
    __syncthreads();
    const uint32_t warp = threadIdx.x / 32, first = part() * COLUMNS;
    for (uint32_t row = blockIdx.x / PARTS; row < a.n; row += a.groups) {
        if (OUTPUTS == HC && a.step[row].logits == NO_LOGITS) continue; // the same for the whole cluster
        const float* streams = a.streams + size_t(row) * HC * N_EMBD + first;
        float4 v[CHUNKS][HC];
        float sums[OUTPUTS + 1] = {};
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            const uint32_t d = 4 * (c * THREADS + threadIdx.x);
#pragma unroll
            for (int h = 0; h < HC; ++h) {
                v[c][h] = d < COLUMNS ? *reinterpret_cast<const float4*>(streams + h * N_EMBD + d) : float4{0, 0, 0, 0};
                const float4 x = v[c][h];
                sums[OUTPUTS] += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
                if (d >= COLUMNS) continue;
#pragma unroll
                for (int o = 0; o < OUTPUTS; ++o) {
                    const float4 w = fn_at(a, s, o, h, d);
                    sums[o] += x.x * w.x + x.y * w.y + x.z * w.z + x.w * w.w;
                }
            }
        }
#pragma unroll
        for (int o = 0; o <= OUTPUTS; ++o) {
            const float sum = warp_sum(sums[o]);
            if (lane_id() == 0) s.warps[o][warp] = sum;
        }
        __syncthreads();
        if (threadIdx.x <= OUTPUTS) {
            float sum = 0;
            for (int w = 0; w < THREADS / 32; ++w) sum += s.warps[threadIdx.x][w];
            s.partial[0][threadIdx.x] = sum;
        }
        cluster_barrier();
        if (threadIdx.x < 32) {
            float sum = 0;
            if (threadIdx.x <= OUTPUTS)
                for (int r = 0; r < PARTS; ++r) sum += remote(&s.partial[0][threadIdx.x], r);
            const float squares = __shfl_sync(0xffffffffu, sum, OUTPUTS);
            s.m[threadIdx.x] = sum * rsqrtf(squares / (HC * N_EMBD) + a.rms_eps);
        }
        __syncthreads();
        float pre[HC];
#pragma unroll
        for (int h = 0; h < HC; ++h) pre[h] = sigmoid(s.m[h] * a.scale[0] + a.base[h]) + a.hc_eps;
        float4 y[CHUNKS];
        float squares = 0;
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            y[c] = {0, 0, 0, 0};
#pragma unroll
            for (int h = 0; h < HC; ++h) {
                y[c].x += pre[h] * v[c][h].x;
                y[c].y += pre[h] * v[c][h].y;
                y[c].z += pre[h] * v[c][h].z;
                y[c].w += pre[h] * v[c][h].w;
            }
            squares += y[c].x * y[c].x + y[c].y * y[c].y + y[c].z * y[c].z + y[c].w * y[c].w;
        }
        squares = block_sum(squares, s.scratch);
        if (threadIdx.x == 0) s.partial[1][0] = squares;
        cluster_barrier();
        squares = 0;
        for (int r = 0; r < PARTS; ++r) squares += remote(&s.partial[1][0], r);
        const float scale = rsqrtf(squares / N_EMBD + a.rms_eps);
        const uint32_t to = OUTPUTS == HC ? a.step[row].logits : row;
#pragma unroll
        for (int c = 0; c < CHUNKS; ++c) {
            const uint32_t d = 4 * (c * THREADS + threadIdx.x);
            if (d >= COLUMNS) continue;
            const float4 w = *reinterpret_cast<const float4*>(a.norm + first + d);
            const float4 out = {y[c].x * scale * w.x, y[c].y * scale * w.y, y[c].z * scale * w.z, y[c].w * scale * w.w};
            *reinterpret_cast<float4*>(a.x + size_t(to) * N_EMBD + first + d) = out;
        }
        // The last part of the row has least to do with x once it is written: one thread of it finishes the matrix.
        if (OUTPUTS > HC && part() == PARTS - 1 && threadIdx.x == THREADS - 1) write_mix(a, row, s.m);
        cluster_barrier(); // nobody overwrites sums that another part still reads
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) hc_pre(const HcArgs a) { hc<HC + MIX, false>(a); }
extern "C" __global__ void __launch_bounds__(THREADS) hc_head(const HcArgs a) { hc<HC, false>(a); }
extern "C" __global__ void __launch_bounds__(THREADS) hc_pre_f32(const HcArgs a) { hc<HC + MIX, true>(a); }
extern "C" __global__ void __launch_bounds__(THREADS) hc_head_f32(const HcArgs a) { hc<HC, true>(a); }

// Post step of long steps: X'[b] = post_b y + sum_a C[a][b] X[a].   grid: rows
struct HcPostArgs {
    const float* y;   // [rows][N_EMBD]
    const float* mix; // [rows][MIX]
    float* streams;
};
static_assert(sizeof(HcPostArgs) == 24, "mirrored in hc.rs");

extern "C" __global__ void hc_post(const HcPostArgs a) {
    pdl_trigger();
    pdl_wait();
    const uint32_t row = blockIdx.x;
    float mix[MIX];
    for (int i = 0; i < MIX; ++i) mix[i] = a.mix[size_t(row) * MIX + i];
    float* streams = a.streams + size_t(row) * HC * N_EMBD;
    for (uint32_t d = threadIdx.x; d < N_EMBD; d += blockDim.x) {
        const float y = a.y[size_t(row) * N_EMBD + d];
        float old[HC];
        for (int h = 0; h < HC; ++h) old[h] = streams[h * N_EMBD + d];
        for (int b = 0; b < HC; ++b) {
            float v = mix[b] * y;
            for (int h = 0; h < HC; ++h) v += mix[HC + h * HC + b] * old[h];
            streams[b * N_EMBD + d] = v;
        }
    }
}
