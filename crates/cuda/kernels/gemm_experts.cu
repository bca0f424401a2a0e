// Routed experts of prefill, grouped: units of (tile of an expert's packed rows, 256 weight rows) over the lists of gemm_group.
//
// gemm_gate_up_*: mid[packed row][f] = swiglu(gate_f . x, up_f . x) * route[packed row], f16, packed as the next product's activation.
//                 A unit is 128 rows of gate and the same 128 of up: a warp's 16-row fragment is 8 rows of gate over 8 of up, so that a lane
//                 holds both sums of an element. A warpgroup makes 64 f: one block of atoms, put in order in shared memory first.
// gemm_down_*:    out[pair][row] = down_row . mid[packed row of the pair]
// Any grid (one CTA per multiprocessor), 384 threads. Formats in gemm_formats.cuh; weights [expert][row block of 16][256 k].
#include "gemm_formats.cuh"

struct GateUpArgs {
    const uint8_t *gate, *up;
    const uint64_t* grid; // IQ2_XXS
    const uint8_t* packed;
    uint8_t* mid;
    const float* route;
    const uint32_t* head;
    const uint4* tiles;
    uint32_t tpad, weight_slots, token_slots;
    float clamp;
};
static_assert(sizeof(GateUpArgs) == 80, "mirrored in Rust");
struct DownArgs {
    const uint8_t* down;
    const uint64_t* grid; // IQ2_XXS
    const uint8_t* packed;
    float* out;
    const uint32_t *order, *head;
    const uint4* tiles;
    uint32_t tpad, weight_slots, token_slots, pad;
};
static_assert(sizeof(DownArgs) == 72, "mirrored in Rust");

constexpr uint32_t MB = 2, ROWS = 256, BLOCKS = 16, LARGEST = 128, STAGE = LARGEST * 128;
static_assert(FF % 256 == 0 && N_EMBD % 256 == 0, "whole units and whole 256-blocks");

// One unit: sums of N tokens, then the epilogue of its kernel.
template <class Source, int N, class Epilogue>
DEVICE void unit(Ring& weights, Ring& tokens, uint32_t steps, const Epilogue& epilogue) {
    float acc[MB][N / 2];
    product<Source, MB, N>(weights, tokens, acc, steps);
    epilogue(acc);
}
template <class Source, class Epilogue>
DEVICE void unit_of(uint32_t n, Ring& weights, Ring& tokens, uint32_t steps, const Epilogue& epilogue) {
    switch (n / 16) {
    case 1: return unit<Source, 16>(weights, tokens, steps, epilogue);
    case 2: return unit<Source, 32>(weights, tokens, steps, epilogue);
    case 3: return unit<Source, 48>(weights, tokens, steps, epilogue);
    case 4: return unit<Source, 64>(weights, tokens, steps, epilogue);
    case 5: return unit<Source, 80>(weights, tokens, steps, epilogue);
    case 6: return unit<Source, 96>(weights, tokens, steps, epilogue);
    case 7: return unit<Source, 112>(weights, tokens, steps, epilogue);
    default: return unit<Source, 128>(weights, tokens, steps, epilogue);
    }
}

// Sums of gate (i / 2 even) and up to packed f16.
struct GateUpEpilogue {
    const GateUpArgs& args;
    uint8_t* stage; // of this warpgroup
    uint32_t first, rows, f; // packed rows of the tile; the unit's first row of gate
    float unscale;
    template <int HALF_N> __device__ __forceinline__ void operator()(float (&acc)[MB][HALF_N]) const {
        constexpr int N = 2 * HALF_N;
        const uint32_t g = lane_id() / 4, t = lane_id() % 4, group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4;
        named_barrier(1 + group, 128); // the stage has been copied out
#pragma unroll
        for (int j = 0; j < N / 8; ++j) {
            const float2 w = *reinterpret_cast<const float2*>(args.route + first + 8 * j + 2 * t);
#pragma unroll
            for (int mb = 0; mb < int(MB); ++mb) {
                const float* c = acc[mb] + 4 * j;
                const float even = f16_max(swiglu(c[0] * unscale, c[2] * unscale, args.clamp) * w.x);
                const float odd = f16_max(swiglu(c[1] * unscale, c[3] * unscale, args.clamp) * w.y);
                // Lanes of an even and the next g exchange, so that each has both k of one token.
                const float other = __shfl_xor_sync(0xffffffffu, g % 2 ? even : odd, 4);
                const uint32_t word = g % 2 ? f16x2_of(other, odd) : f16x2_of(even, other);
                // k within the block of 64: 32 mb + 8 warp + g, which is q = mb, t = warp, s = g / 4, half = g / 2 % 2.
                const uint32_t row = 2 * t + g % 2, chunk = 4 * mb + g / 2;
                *reinterpret_cast<uint32_t*>(stage + j * 1024 + row * 128 + (chunk ^ row) * 16 + warp * 4) = word;
            }
        }
        named_barrier(1 + group, 128);
        uint4* to = reinterpret_cast<uint4*>(args.mid + (size_t(f / 64 + group) * (args.tpad / 8) + first / 8) * 1024);
#pragma unroll
        for (int i = 0; i < N / 16; ++i) to[i * 128 + threadIdx.x % 128] = reinterpret_cast<const uint4*>(stage)[i * 128 + threadIdx.x % 128];
    }
};

struct DownEpilogue {
    const DownArgs& args;
    uint32_t first, row; // packed row of the tile; the unit's first weight row
    float unscale;
    template <int HALF_N> __device__ __forceinline__ void operator()(float (&acc)[MB][HALF_N]) const {
        const uint32_t g = lane_id() / 4, t = lane_id() % 4, warp = threadIdx.x / 32;
#pragma unroll
        for (int j = 0; j < HALF_N / 4; ++j) {
            const uint2 pair = *reinterpret_cast<const uint2*>(args.order + first + 8 * j + 2 * t);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const uint32_t p = i ? pair.y : pair.x;
                if (p == 0xffffffffu) continue;
                float* out = args.out + size_t(p) * N_EMBD + row + g;
#pragma unroll
                for (int mb = 0; mb < int(MB); ++mb) {
                    const uint32_t block = (warp / 4 * MB + mb) * 4 + warp % 4;
                    out[block * 16] = acc[mb][4 * j + i] * unscale;
                    out[block * 16 + 8] = acc[mb][4 * j + i + 2] * unscale;
                }
            }
        }
    }
};

// Row block `b` of a slot, k tile `tile` of it: for gate/up the first eight are of `first`, the others of `second`.
template <class Format, bool PAIRED, uint32_t K>
DEVICE void produce(Ring& weights, Ring& tokens, const uint8_t* first, const uint8_t* second, const uint8_t* packed, uint32_t tpad,
                    const uint32_t* head, const uint4* tiles) {
    constexpr uint32_t M = PAIRED ? FF : N_EMBD, ROW_TILES = PAIRED ? FF / 128 : N_EMBD / 256, PER = PAIRED ? BLOCKS / 2 : BLOCKS;
    const uint32_t units = head[0] * ROW_TILES;
    for (uint32_t u = blockIdx.x; u < units; u += gridDim.x) {
        const uint4 tile = tiles[u / ROW_TILES];
        const size_t block = size_t(tile.x) * (M / 16) + u % ROW_TILES * PER;
        for (uint32_t step = 0; step < K / STEP; ++step) {
            if (step % 2 == 0) {
                weights.wait_empty();
                uint64_t* full = weights.full + weights.at;
                fill_begin(full, BLOCKS * Format::TILE);
                for (uint32_t b = 0; b < BLOCKS; ++b) {
                    const size_t at = (block + b % PER) * (K / 256) + step / 2;
                    fill(full, weights.slot() + b * Format::TILE, (b < PER ? first : second) + at * Format::TILE, Format::TILE);
                }
                fill_end(full);
                weights.advance();
            }
            fill_tokens(tokens, packed, tpad, tile.y, 2 * step, tile.z);
        }
    }
}

// Barriers and rings of both kernels; the stage of gate/up lies first.
template <class Format> DEVICE uint8_t* rings(Ring& weights, Ring& tokens, uint32_t stage, uint32_t weight_slots, uint32_t token_slots) {
    __shared__ uint64_t bars[2][2 * MAX_SLOTS];
    uint8_t* shared = aligned_shared();
    ring_init(tokens, bars[0], shared + stage, LARGEST * 256, token_slots);
    ring_init(weights, bars[1], shared + stage + token_slots * LARGEST * 256, BLOCKS * Format::TILE, weight_slots);
    mbar_fence_init();
    return shared;
}

template <class Format> DEVICE void gate_up(const GateUpArgs& args) {
    Ring weights, tokens;
    uint8_t* stage = rings<Format>(weights, tokens, 2 * STAGE, args.weight_slots, args.token_slots);
    Format::prepare(args.grid);
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    if (threadIdx.x >= CONSUMERS) {
        producer_registers();
        if (threadIdx.x >= CONSUMERS + 32) return;
        produce<Format, true, N_EMBD>(weights, tokens, args.gate, args.up, args.packed, args.tpad, args.head, args.tiles);
        return;
    }
    consumer_registers();
    const uint32_t units = args.head[0] * (FF / 128);
    for (uint32_t u = blockIdx.x; u < units; u += gridDim.x) {
        const uint4 tile = args.tiles[u / (FF / 128)];
        const GateUpEpilogue epilogue{args, stage + threadIdx.x / 128 * STAGE, tile.y, tile.z, u % (FF / 128) * 128, Format::UNSCALE};
        unit_of<Halves<Format, true>>(tile.z, weights, tokens, N_EMBD / STEP, epilogue);
    }
}

template <class Format> DEVICE void down(const DownArgs& args) {
    Ring weights, tokens;
    rings<Format>(weights, tokens, 0, args.weight_slots, args.token_slots);
    Format::prepare(args.grid);
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    if (threadIdx.x >= CONSUMERS) {
        producer_registers();
        if (threadIdx.x >= CONSUMERS + 32) return;
        produce<Format, false, FF>(weights, tokens, args.down, args.down, args.packed, args.tpad, args.head, args.tiles);
        return;
    }
    consumer_registers();
    const uint32_t units = args.head[0] * (N_EMBD / ROWS);
    for (uint32_t u = blockIdx.x; u < units; u += gridDim.x) {
        const uint4 tile = args.tiles[u / (N_EMBD / ROWS)];
        const DownEpilogue epilogue{args, tile.y, u % (N_EMBD / ROWS) * ROWS, Format::UNSCALE};
        unit_of<Halves<Format, false>>(tile.z, weights, tokens, FF / STEP, epilogue);
    }
}

#define EXPERTS(NAME, FORMAT)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) gemm_gate_up_##NAME(const __grid_constant__ GateUpArgs args) {       \
        gate_up<FORMAT>(args);                                                                                                    \
    }                                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) gemm_down_##NAME(const __grid_constant__ DownArgs args) { down<FORMAT>(args); }
#if !defined(ONLY_IQ2) || ONLY_IQ2
EXPERTS(iq2, Iq2)
#endif
#if !defined(ONLY_Q2K) || ONLY_Q2K
EXPERTS(q2k, Q2K)
#endif
#if !defined(ONLY_Q4K) || ONLY_Q4K
EXPERTS(q4k, Q4K)
#endif
#if !defined(ONLY_MXFP4) || ONLY_MXFP4
EXPERTS(mxfp4, Mxfp4)
#endif
