// Routed experts of a decode step (1 to 64 rows): mid = swiglu(gate x, up x) * route weight, down mid, their sum per row, and
// the hyper-connection post step.
//
// A group is up to four (row, choice) pairs of one expert; a pair is row * N_USED + choice. A unit is one row block of gate
// and the same one of up (experts_gate_up_*) or two row blocks of down (experts_down_*): two tiles at each k. The CTAs share
// the list [group][unit] in contiguous ranges. Inside a CTA the eight warps split k, each quantises the activations of its
// own k (no barrier), and a unit's sums cross the warps in a fixed order. A pair's sums involve no other pair: its bits
// do not depend on the step. A step of one row needs no list: its groups are the choices in their order.
// The shared expert of a step of one row is a guest of these kernels, which are bound by arithmetic where it is bound by memory:
// the first CTAs make one or two row blocks of it each before their own units.
// Grid: experts_group 1; *_gate_up_*, *_down_* any, best G or D (below) per SM; experts_sum (N_EMBD / 256, n).
// Block: N_EXPERT rounded up to 32; 256; 64.
#include "q8.cuh"
#include "quant.cuh"

constexpr uint32_t WARPS = 8, MAX_ROWS = 64, GROUP = 4;

struct Group {
    uint32_t expert, count, pair[GROUP], pad[2];
};
static_assert(sizeof(Group) == 32, "mirrored in experts.rs");
struct Groups {
    uint32_t count, pad[7];
    Group list[MAX_ROWS * N_USED];
};

// ---- grouping: thread e lists the pairs of expert e; the bits of a set carry their order.

struct GroupArgs {
    const uint32_t* ids; // [n][N_USED]
    Groups* groups;
    uint32_t n, pad;
};
static_assert(sizeof(GroupArgs) == 24, "mirrored in experts.rs");

constexpr uint32_t GROUP_THREADS = (N_EXPERT + 31) / 32 * 32, SET = MAX_ROWS * N_USED / 32;

extern "C" __global__ void __launch_bounds__(GROUP_THREADS) experts_group(GroupArgs a) {
    __shared__ uint32_t set[GROUP_THREADS][SET];
    __shared__ uint32_t totals[GROUP_THREADS / 32];
    const uint32_t e = threadIdx.x, warp = e / 32, pairs = a.n * N_USED;
    for (uint32_t i = 0; i < SET; ++i) set[e][i] = 0;
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    for (uint32_t p = e; p < pairs; p += GROUP_THREADS) atomicOr(&set[a.ids[p]][p / 32], 1u << (p % 32));
    __syncthreads();

    uint32_t left = 0;
    for (uint32_t i = 0; i < SET; ++i) left += __popc(set[e][i]);
    const uint32_t own = (left + GROUP - 1) / GROUP;
    uint32_t end = own; // inclusive sum of `own` over the experts
    for (uint32_t d = 1; d < 32; d *= 2) {
        const uint32_t before = __shfl_up_sync(0xffffffffu, end, d);
        if (lane_id() >= d) end += before;
    }
    if (lane_id() == 31) totals[warp] = end;
    __syncthreads();
    for (uint32_t w = 0; w < warp; ++w) end += totals[w];
    if (e == GROUP_THREADS - 1) a.groups->count = end;

    Group* group = a.groups->list + (end - own);
    uint32_t slot = 0;
    for (uint32_t i = 0; i < SET; ++i)
        for (uint32_t bits = set[e][i]; bits; bits &= bits - 1) {
            if (slot == 0) group->expert = e, group->count = min(left, GROUP);
            group->pair[slot] = 32 * i + __ffs(bits) - 1;
            --left;
            if (++slot == GROUP) slot = 0, ++group;
        }
}

// ---- products

struct ExpertsArgs {
    const float* x;        // gate_up: x [n][N_EMBD]; down: mid [pair][FF]
    const uint8_t* first;  // tiles of gate, or of down
    const uint8_t* second; // tiles of up; down: unused
    const uint32_t* ids;   // [n][N_USED]
    const float* weights;  // route weights [n][N_USED]; down: unused
    const Groups* groups;  // unused when n is 1
    const uint64_t* grid;  // IQ2_XXS grid, 256 rows; other formats: unused
    float* out;            // gate_up: mid [pair][FF]; down: [pair][N_EMBD]
    uint32_t n;
    float clamp;
    const uint8_t* shared_first;  // Q8 tiles of the shared expert's gate, or down; null: it is not made here
    const uint8_t* shared_second; // of its up; down: unused
    const float* shared_x;        // its input
    float* shared_out;            // gate_up: its middle; down: what it adds
};
static_assert(sizeof(ExpertsArgs) == 104, "mirrored in experts.rs");

// Data of earlier kernels that may be read before `pdl_wait` must not come from a first-level cache.
DEVICE uint32_t fresh(const uint32_t* p) { return __ldcg(p); }

DEVICE uint32_t group_expert(const ExpertsArgs& a, uint32_t group) {
    return a.n == 1 ? fresh(a.ids + group) : fresh(&a.groups->list[group].expert);
}

// ---- the shared expert of one row: row block `block` of gate and up, or of down. Its sums are those of `dense.cu`, in the
// same order: by k inside each of ALONG_K shares, the shares of a split, the splits.

template <uint32_t K, bool GATED> struct SharedRows {
    static constexpr uint32_t SHARES = ALONG_K<K>, MATRICES = GATED ? 2 : 1, TILES = K / 64;
    static constexpr uint32_t SPLITS = GATED && K % 2048 == 0 ? 2 : 1, EACH = TILES / SPLITS; // as router.rs cuts them
    uint4 x[K / 32][8];                           // 32-groups: values, remainders
    float parts[MATRICES][SPLITS][SHARES][16];
};

template <uint32_t K, bool GATED> DEVICE void shared_rows(const ExpertsArgs& a, SharedRows<K, GATED>& sh, uint32_t block) {
    using S = SharedRows<K, GATED>;
    const uint32_t tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
    for (uint32_t e = tid; e < K / 8; e += 32 * WARPS) split8(a.shared_x + 8 * e, sh.x[e / 4][e % 4], sh.x[e / 4][4 + e % 4]);
    __syncthreads();
    const uint8_t* const rows[2] = {a.shared_first + size_t(block) * S::TILES * Q8_PIECE,
                                    GATED ? a.shared_second + size_t(block) * S::TILES * Q8_PIECE : nullptr};
#pragma unroll
    for (uint32_t split = 0; split < S::SPLITS; ++split)
        for (uint32_t share = warp; share < S::SHARES; share += WARPS) {
            float sum[S::MATRICES][2] = {};
#pragma unroll 2
            for (uint32_t p = share; p < S::EACH; p += S::SHARES) {
                const uint32_t tile = split * S::EACH + p;
                uint4 w[S::MATRICES][2];
                uint2 scales[S::MATRICES];
#pragma unroll
                for (uint32_t i = 0; i < S::MATRICES; ++i) {
                    const uint8_t* piece = rows[i] + size_t(tile) * Q8_PIECE;
                    w[i][0] = weight16(piece + 16 * lane), w[i][1] = weight16(piece + 512 + 16 * lane);
                    scales[i] = weight8(piece + 1024 + 2 * (lane & ~3u));
                }
#pragma unroll
                for (int q = 0; q < 2; ++q) {
                    const uint4 b = x_at<8>(sh.x[2 * tile + q], lane);
#pragma unroll
                    for (uint32_t i = 0; i < S::MATRICES; ++i) {
                        Fragment f;
                        decode_q8(f, w[i][q], scales[i], q);
                        add(sum[i], f, b);
                    }
                }
            }
            if (lane % 4 == 0)
#pragma unroll
                for (uint32_t i = 0; i < S::MATRICES; ++i)
                    sh.parts[i][split][share][lane / 4] = sum[i][0], sh.parts[i][split][share][lane / 4 + 8] = sum[i][1];
        }
    __syncthreads();
    if (tid < 16) {
        float y[S::MATRICES];
#pragma unroll
        for (uint32_t i = 0; i < S::MATRICES; ++i)
#pragma unroll
            for (uint32_t split = 0; split < S::SPLITS; ++split) {
                float part = 0;
#pragma unroll
                for (uint32_t share = 0; share < S::SHARES; ++share) part += sh.parts[i][split][share][tid];
                y[i] = split == 0 ? part : y[i] + part;
            }
        a.shared_out[16 * block + tid] = GATED ? swiglu(y[0], y[S::MATRICES - 1], a.clamp) : y[0];
    }
    __syncthreads(); // the memory is used again
}

template <class F, uint32_t K, uint32_t ROWS, bool GATED> DEVICE void experts(const ExpertsArgs& a) {
    constexpr uint32_t TILES = K / 256, STEPS = (TILES + WARPS - 1) / WARPS, UNITS = ROWS / (GATED ? 16 : 32);
    constexpr uint32_t UNIT = (GATED ? 1 : 2) * TILES * F::BYTES; // bytes of a unit in each of its tensors
    static_assert(TILES % WARPS == 0 || TILES < WARPS, "a warp has all its tiles or none");
    static_assert(uint64_t(N_EXPERT) * UNITS * UNIT < 1ull << 32, "offsets are 32 bits");
    struct Routed {
        Block<F> blocks[TILES];
        float parts[2][WARPS][4][32]; // [by turns][warp][tile and row half][lane]
    };
    __shared__ union Memory {
        Routed routed;
        SharedRows<K, GATED> guest;
        __device__ Memory() {}
    } memory;
    Block<F>(&blocks)[TILES] = memory.routed.blocks;
    float(&parts)[2][WARPS][4][32] = memory.routed.parts;
    __shared__ uint32_t table[F::TABLE ? 3 * 256 : 1]; // selectors, the levels, nothing
    __shared__ uint32_t pairs[2][GROUP]; // of even and odd groups: the last group's may still be read
    __shared__ float weights[2][GROUP];
    const uint32_t tid = threadIdx.x, lane = tid % 32, warp = tid / 32, t = lane % 4, tile = warp * STEPS;
    const uint32_t table_at = shared_address(table);
    const bool idle = TILES % WARPS && tile >= TILES;
    if constexpr (F::TABLE) {
        table[3 * tid] = F::selectors(a.grid[tid]);
        table[3 * tid + 1] = F::PLUS;
        __syncthreads();
    }
    // The input of the shared expert's first half is older than the kernel before, which waits before it triggers.
    const uint32_t guests = a.shared_first != nullptr ? ROWS / 16 : 0;
    if (GATED)
        for (uint32_t block = blockIdx.x; block < guests; block += gridDim.x) shared_rows<K, GATED>(a, memory.guest, block);
    // The groups are older than the kernel before `down`, which waits before it triggers: `down` may read them at once.
    if (GATED) pdl_wait(), pdl_trigger();
    const uint32_t all = (a.n == 1 ? N_USED : fresh(&a.groups->count)) * UNITS;
    const uint32_t begin = all * blockIdx.x / gridDim.x, end = all * (blockIdx.x + 1) / gridDim.x;
    const uint8_t* const first = a.first + tile * F::BYTES;
    const uint8_t* const second = GATED ? a.second + tile * F::BYTES : first + TILES * F::BYTES;
    typename F::Raw next;
    uint32_t at = 0; // of the next unit
    auto fetch = [&](uint32_t from) {
        if (!idle) F::load(next, first + from, second + from);
    };
    if (begin < end) {
        at = (group_expert(a, begin / UNITS) * UNITS + begin % UNITS) * UNIT;
        fetch(at);
    }
    if (!GATED) pdl_wait(), pdl_trigger();
    if (!GATED)
        for (uint32_t block = blockIdx.x; block < guests; block += gridDim.x) shared_rows<K, GATED>(a, memory.guest, block);

    constexpr uint32_t NONE = ~0u;
    uint32_t group = NONE;
    for (uint32_t unit = begin; unit < end; ++unit) {
        const uint32_t place = unit % UNITS;
        if (unit / UNITS != group) {
            group = unit / UNITS;
            const Group* list = a.groups->list + group;
            const uint32_t count = a.n == 1 ? 1 : fresh(&list->count);
            const uint32_t pair = t >= count ? NONE : a.n == 1 ? group : fresh(&list->pair[t]);
            if (tid < GROUP) {
                pairs[group % 2][t] = pair;
                if (GATED && pair != NONE) weights[group % 2][t] = __ldcg(a.weights + pair);
            }
            __syncwarp();
            for (uint32_t i = 0; i < count && !idle; ++i) {
                const uint32_t row = __shfl_sync(0xffffffffu, pair, i) / (GATED ? N_USED : 1);
                const float4* x = reinterpret_cast<const float4*>(a.x + size_t(row) * K + 256 * tile + 8 * lane);
                float4 v[2 * STEPS];
#pragma unroll
                for (uint32_t s = 0; s < STEPS; ++s) v[2 * s] = __ldcg(x + 64 * s), v[2 * s + 1] = __ldcg(x + 64 * s + 1);
#pragma unroll
                for (uint32_t s = 0; s < STEPS; ++s) quantise(blocks[tile + s], i, v[2 * s], v[2 * s + 1]);
            }
            __syncwarp();
        }
        float sum[2][2] = {};
#pragma unroll
        for (uint32_t s = 0; s < STEPS; ++s) {
            const typename F::Raw now = next;
            if (s + 1 < STEPS) fetch(at + (s + 1) * F::BYTES);
            else if (unit + 1 < end) {
                at = place + 1 < UNITS ? at + UNIT : group_expert(a, group + 1) * UNITS * UNIT;
                fetch(at);
            }
            if (!idle) F::dot(now, blocks[tile + s], table_at, sum);
        }
        // Two buffers: the barrier of the next unit ends the reading of this one.
        float(*part)[4][32] = parts[unit % 2];
#pragma unroll
        for (int i = 0; i < 4; ++i) part[warp][i][lane] = sum[i / 2][i % 2];
        __syncthreads();
        constexpr uint32_t SHARE = GATED ? 64 : 128; // threads that finish a unit, by turns
        const uint32_t turn = (tid - SHARE * unit) % (32 * WARPS), i = turn / 32, pair = pairs[group % 2][t];
        if (turn < SHARE && pair != NONE) {
            float y = 0, up = 0;
            for (uint32_t w = 0; w < WARPS; ++w) {
                y += part[w][i][lane];
                if (GATED) up += part[w][2 + i][lane];
            }
            if (GATED) y = swiglu(y, up, a.clamp) * weights[group % 2][t];
            a.out[size_t(pair) * ROWS + (GATED ? 16 : 32) * place + 8 * i + lane / 4] = y;
        }
    }
}

// G and D: CTAs that share an SM, as many as the registers allow without spilling.
#define EXPERTS(NAME, F, G, D)                                                                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, G) experts_gate_up_##NAME(ExpertsArgs a) {           \
        experts<F, N_EMBD, FF, true>(a);                                                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, D) experts_down_##NAME(ExpertsArgs a) {              \
        experts<F, FF, N_EMBD, false>(a);                                                                              \
    }
EXPERTS(iq2, Iq2, 3, 3)
EXPERTS(q2k, Q2k, 2, 3)
EXPERTS(q4k, Q4k, 2, 2)
EXPERTS(mxfp4, Mxfp4, 2, 2)

// ---- y = shared + routed (in routing order); X'[b] = post_b y + sum_a C[a][b] X[a]. A thread owns four values of d.

struct SumArgs {
    const float* down;   // [pair][N_EMBD]
    const float* shared; // [n][N_EMBD]
    const float* mix;    // [n][MIX]
    float* streams;      // [n][HC][N_EMBD]
};
static_assert(sizeof(SumArgs) == 32, "mirrored in experts.rs");

extern "C" __global__ void __launch_bounds__(64) experts_sum(SumArgs a) {
    pdl_trigger();
    const uint32_t d = 4 * (blockIdx.x * 64 + threadIdx.x), row = blockIdx.y;
    // Streams and mix are older than gate_up, and `down` triggers after its wait for that: no need to wait for them.
    float* const streams = a.streams + size_t(row) * HC * N_EMBD + d;
    float old[HC][4], y[4] = {}, shared[4];
    float mix[MIX];
    auto read = [](float(&v)[4], const float* p) {
        const float4 f = __ldcg(reinterpret_cast<const float4*>(p));
        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
    };
    for (int i = 0; i < MIX; ++i) mix[i] = __ldcg(a.mix + row * MIX + i);
    for (int h = 0; h < HC; ++h) read(old[h], streams + h * N_EMBD);
    pdl_wait();
    read(shared, a.shared + size_t(row) * N_EMBD + d);
    float routed[N_USED][4];
#pragma unroll
    for (int k = 0; k < N_USED; ++k) read(routed[k], a.down + (size_t(row) * N_USED + k) * N_EMBD + d);
#pragma unroll
    for (int k = 0; k < N_USED; ++k)
        for (int i = 0; i < 4; ++i) y[i] += routed[k][i];
    for (int i = 0; i < 4; ++i) y[i] += shared[i];
    for (int b = 0; b < HC; ++b) {
        float v[4];
        for (int i = 0; i < 4; ++i) {
            v[i] = mix[b] * y[i];
            for (int h = 0; h < HC; ++h) v[i] += mix[HC + h * HC + b] * old[h][i];
        }
        *reinterpret_cast<float4*>(streams + b * N_EMBD) = {v[0], v[1], v[2], v[3]};
    }
}
