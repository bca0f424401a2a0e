// Routed experts of a decode step (1 to 64 rows): mid = swiglu(gate x, up x) * route weight, down mid, their sum per row, and
// the hyper-connection post step.
//
// A group is up to four (row, choice) pairs of one expert; a pair is row * N_USED + choice. A unit is one row block of gate
// and the same one of up (experts_gate_up_*) or two row blocks of down (experts_down_*): two tiles at each k. The CTAs share
// the list [group][unit] in contiguous ranges. Inside a CTA the eight warps split k, each quantises the activations of its
// own k (no barrier), and a unit's sums cross the warps in a fixed order. A pair's sums involve no other pair: its bits
// do not depend on the step. A step of one row needs no list: its groups are the choices in their order.
// In a recorded step of one row the shared expert's down is a guest of the routed ones': the first CTAs make a row block of it
// each while the kernel before runs out.
// Grid: experts_group 1; *_gate_up_*, *_down_* any, best G or D (below) per SM; experts_sum (N_EMBD / 256, n).
// Block: N_EXPERT rounded up to 32; 256; 64.
#include "hc.cuh"
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
    const uint8_t* guest;  // down: Q8 tiles of the shared expert's, or null: it is not made here
    const float* guest_x;  // its middle [FF]
    float* guest_out;      // what it adds, [N_EMBD]
    MixArgs mix;           // gate_up: the last CTA makes the rows' mixing weights, if they are given
};
static_assert(sizeof(ExpertsArgs) == 136, "mirrored in experts.rs");

// Data of earlier kernels that may be read before `pdl_wait` must not come from a first-level cache.
DEVICE uint32_t fresh(const uint32_t* p) { return __ldcg(p); }

DEVICE uint32_t group_expert(const ExpertsArgs& a, uint32_t group) {
    return a.n == 1 ? fresh(a.ids + group) : fresh(&a.groups->list[group].expert);
}

// ---- the shared expert's down of one row, a row block at a time. Its sums are those of `dense.cu`, in the same order: by k inside
// each of ALONG_K shares, then the shares.

struct Guest {
    static constexpr uint32_t SHARES = ALONG_K<FF>, TURNS = (SHARES + WARPS - 1) / WARPS; // shares of a warp
    static constexpr uint32_t TILES = FF / 64, PER = (TILES + SHARES - 1) / SHARES;       // tiles of a share
    static constexpr uint32_t COUNT = TURNS * PER, BATCH = COUNT < 4 ? COUNT : 4;         // tiles of a warp, at a time
    struct Memory {
        uint4 x[FF / 32][8]; // 32-groups: values, remainders
        float parts[SHARES][16];
    };
    const uint8_t* rows; // tiles of the row block
    uint32_t warp, lane;
    uint4 w[BATCH][2];
    uint2 scales[BATCH];

    DEVICE_METHOD uint32_t share_of(uint32_t i) const { return warp + WARPS * (i / PER); }
    DEVICE_METHOD uint32_t tile_of(uint32_t i) const { // TILES or more: there is none
        return share_of(i) < SHARES ? share_of(i) + i % PER * SHARES : TILES;
    }
    DEVICE_METHOD void fetch(uint32_t first) {
#pragma unroll
        for (uint32_t i = 0; i < BATCH; ++i) {
            const uint32_t tile = first + i < COUNT ? tile_of(first + i) : TILES;
            if (tile >= TILES) continue;
            const uint8_t* piece = rows + tile * Q8_PIECE;
            w[i][0] = weight16(piece + 16 * lane), w[i][1] = weight16(piece + 512 + 16 * lane);
            scales[i] = weight8(piece + 1024 + 2 * (lane & ~3u));
        }
    }
    // The shares' sums, from the first batch that is fetched.
    DEVICE_METHOD void multiply(Memory& m) {
        float sum[2] = {};
#pragma unroll
        for (uint32_t i = 0; i < COUNT; ++i) {
            const uint32_t tile = tile_of(i);
            if (tile < TILES)
#pragma unroll
                for (int q = 0; q < 2; ++q) {
                    Fragment f;
                    decode_q8(f, w[i % BATCH][q], scales[i % BATCH], q);
                    add(sum, f, x_at<8>(m.x[2 * tile + q], lane));
                }
            if (i % PER + 1 == PER) {
                if (lane % 4 == 0 && share_of(i) < SHARES) {
                    float* to = m.parts[share_of(i)] + lane / 4;
                    to[0] = sum[0], to[8] = sum[1];
                }
                sum[0] = sum[1] = 0;
            }
            if (i % BATCH + 1 == BATCH && i + 1 < COUNT) fetch(i + 1);
        }
    }
};

// Its input is older than the kernel before, which waits before it triggers: nothing here waits.
DEVICE void guests(const ExpertsArgs& a, Guest::Memory& m) {
    Guest guest;
    guest.warp = threadIdx.x / 32, guest.lane = lane_id();
    for (uint32_t block = blockIdx.x; block < N_EMBD / 16; block += gridDim.x) {
        guest.rows = a.guest + size_t(block) * guest.TILES * Q8_PIECE;
        guest.fetch(0);
        if (block == blockIdx.x)
            for (uint32_t e = threadIdx.x; e < FF / 8; e += 32 * WARPS)
                split8(a.guest_x + 8 * e, m.x[e / 4][e % 4], m.x[e / 4][4 + e % 4]);
        __syncthreads();
        guest.multiply(m);
        __syncthreads();
        if (threadIdx.x >= 16) continue;
        float y = 0;
#pragma unroll
        for (uint32_t share = 0; share < Guest::SHARES; ++share) y += m.parts[share][threadIdx.x];
        a.guest_out[16 * block + threadIdx.x] = y;
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
        Guest::Memory guest;
        __device__ Memory() {}
    } memory;
    Block<F>(&blocks)[TILES] = memory.routed.blocks;
    float(&parts)[2][WARPS][4][32] = memory.routed.parts;
    __shared__ uint32_t table[F::TABLE ? 3 * 256 : 1]; // selectors, the levels, nothing
    __shared__ uint32_t pairs[2][GROUP]; // of even and odd groups: the last group's may still be read
    __shared__ float weights[2][GROUP];
    const uint32_t workers = gridDim.x - (GATED && a.mix.m != nullptr ? 1 : 0);
    if (GATED && blockIdx.x == workers) { // older than the kernel before: no need to wait
        if (threadIdx.x < a.n) write_mix(a.mix, threadIdx.x);
        return;
    }
    const uint32_t tid = threadIdx.x, lane = tid % 32, warp = tid / 32, t = lane % 4, tile = warp * STEPS;
    const uint32_t table_at = shared_address(table);
    const bool idle = TILES % WARPS && tile >= TILES;
    if constexpr (F::TABLE) {
        table[3 * tid] = F::selectors(a.grid[tid]);
        table[3 * tid + 1] = F::PLUS;
        __syncthreads();
    }
    if (!GATED && a.guest != nullptr) guests(a, memory.guest);
    auto take = [&](uint32_t row, uint32_t i) { // this warp's inputs of a row, as the i-th of a group
        const float4* x = reinterpret_cast<const float4*>(a.x + size_t(row) * K + 256 * tile + 8 * lane);
        float4 v[2 * STEPS];
#pragma unroll
        for (uint32_t s = 0; s < STEPS; ++s) v[2 * s] = __ldcg(x + 64 * s), v[2 * s + 1] = __ldcg(x + 64 * s + 1);
#pragma unroll
        for (uint32_t s = 0; s < STEPS; ++s) quantise(blocks[tile + s], i, v[2 * s], v[2 * s + 1]);
    };
    // The sublayer's input is older than the kernel before `gate_up`, which waits before it triggers; the only row is every
    // group's.
    if (GATED && a.n == 1 && !idle) take(0, 0);
    // The groups are older than the kernel before `down`, which waits before it triggers: `down` may read them at once.
    if (GATED) pdl_wait(), pdl_trigger();
    const uint32_t all = (a.n == 1 ? N_USED : fresh(&a.groups->count)) * UNITS;
    const uint32_t begin = all * blockIdx.x / workers, end = all * (blockIdx.x + 1) / workers;
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
            for (uint32_t i = 0; i < count && !idle && !(GATED && a.n == 1); ++i) {
                const uint32_t row = __shfl_sync(0xffffffffu, pair, i) / (GATED ? N_USED : 1);
                take(row, i);
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
