// Routed experts of prefill, grouped: units of (tile of an expert's packed rows, 256 weight rows) over the lists of gemm_group.
//
// gemm_gate_up_*: mid[packed row][f] = swiglu(gate_f . x, up_f . x) * route[packed row], f16, packed as the next product's activation.
//                 A unit is 128 rows of gate and the same 128 of up: a warp's 16-row fragment is 8 rows of gate over 8 of up, so that a lane
//                 holds both sums of an element. A warpgroup makes 64 f: one block of atoms, put in order in shared memory first.
// gemm_down_*:    out[pair][row] = down_row . mid[packed row of the pair]
// *_64: tiles of 16 to 64 rows; *_112: of up to 112; gemm_group gets the same limit. Any grid (one CTA per multiprocessor), 384 threads.
// Formats in gemm_formats.cuh; weights [expert][row block of 16][256 k].
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

constexpr uint32_t MB = 2, ROWS = 256, BLOCKS = 16;
static_assert(FF % 256 == 0 && N_EMBD % 256 == 0, "whole units and whole 256-blocks");

// Sizes of tiles: a kernel has code for four (more of them in one kernel take ptxas the registers to overlap decoding with wgmma).
// A tile runs at the next size; rows beyond its own are of other tiles, or of nobody, and are not stored.
struct Narrow {
    static constexpr int A = 16, B = 32, C = 48, D = 64;
};
struct Wide {
    static constexpr int A = 64, B = 80, C = 96, D = 112;
};
template <class Sizes> DEVICE uint32_t size_of(uint32_t rows) {
    return rows <= Sizes::A ? Sizes::A : rows <= Sizes::B ? Sizes::B : rows <= Sizes::C ? Sizes::C : Sizes::D;
}

// One unit: sums of N tokens, then the epilogue of its kernel.
template <class Source, int N, class Epilogue>
DEVICE void unit(Ring& weights, Ring& tokens, uint32_t steps, const Epilogue& epilogue) {
    float acc[MB][N / 2];
    product<Source, MB, N>(weights, tokens, acc, steps);
    epilogue(acc);
}
template <class Source, class Sizes, class Epilogue>
DEVICE void unit_of(uint32_t rows, Ring& weights, Ring& tokens, uint32_t steps, const Epilogue& epilogue) {
    switch (size_of<Sizes>(rows)) {
    case Sizes::A: return unit<Source, Sizes::A>(weights, tokens, steps, epilogue);
    case Sizes::B: return unit<Source, Sizes::B>(weights, tokens, steps, epilogue);
    case Sizes::C: return unit<Source, Sizes::C>(weights, tokens, steps, epilogue);
    default: return unit<Source, Sizes::D>(weights, tokens, steps, epilogue);
    }
}

// swiglu of common.cuh with the fast exponential and division: the result becomes f16.
DEVICE float gated(float gate, float up, float clamp) {
    gate = fminf(gate, clamp);
    return __fdividef(gate, 1.f + __expf(-gate)) * fminf(fmaxf(up, -clamp), clamp);
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
            if (8u * j >= rows) break;
            const float2 w = *reinterpret_cast<const float2*>(args.route + first + 8 * j + 2 * t);
#pragma unroll
            for (int mb = 0; mb < int(MB); ++mb) {
                const float* c = acc[mb] + 4 * j;
                const float even = f16_max(gated(c[0] * unscale, c[2] * unscale, args.clamp) * w.x);
                const float odd = f16_max(gated(c[1] * unscale, c[3] * unscale, args.clamp) * w.y);
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
        for (int i = 0; i < N / 16; ++i) {
            if (16u * i < rows) to[i * 128 + threadIdx.x % 128] = reinterpret_cast<const uint4*>(stage)[i * 128 + threadIdx.x % 128];
        }
    }
};

struct DownEpilogue {
    const DownArgs& args;
    uint32_t first, rows, row; // packed rows of the tile; the unit's first weight row
    float unscale;
    template <int HALF_N> __device__ __forceinline__ void operator()(float (&acc)[MB][HALF_N]) const {
        const uint32_t g = lane_id() / 4, t = lane_id() % 4, warp = threadIdx.x / 32;
#pragma unroll
        for (int j = 0; j < HALF_N / 4; ++j) {
            if (8u * j >= rows) break;
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
template <class Format, class Sizes, bool PAIRED, uint32_t K>
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
            fill_tokens(tokens, packed, tpad, tile.y, 2 * step, size_of<Sizes>(tile.z));
        }
    }
}

// Barriers and rings of both kernels; the stage of gate/up lies first.
template <class Format, class Sizes>
DEVICE uint8_t* rings(Ring& weights, Ring& tokens, uint32_t stage, uint32_t weight_slots, uint32_t token_slots) {
    __shared__ uint64_t bars[2][2 * MAX_SLOTS];
    uint8_t* shared = aligned_shared();
    ring_init(tokens, bars[0], shared + stage, Sizes::D * 256, token_slots);
    ring_init(weights, bars[1], shared + stage + token_slots * Sizes::D * 256, BLOCKS * Format::TILE, weight_slots);
    mbar_fence_init();
    return shared;
}

template <class Format, class Sizes> DEVICE void gate_up(const GateUpArgs& args) {
    Ring weights, tokens;
    uint8_t* stage = rings<Format, Sizes>(weights, tokens, 2 * Sizes::D * 128, args.weight_slots, args.token_slots);
    Format::prepare(args.grid);
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    if (threadIdx.x >= CONSUMERS) {
        producer_registers();
        if (threadIdx.x >= CONSUMERS + 32) return;
        produce<Format, Sizes, true, N_EMBD>(weights, tokens, args.gate, args.up, args.packed, args.tpad, args.head, args.tiles);
        return;
    }
    consumer_registers();
    const uint32_t units = args.head[0] * (FF / 128);
    for (uint32_t u = blockIdx.x; u < units; u += gridDim.x) {
        const uint4 tile = args.tiles[u / (FF / 128)];
        const GateUpEpilogue epilogue{args, stage + threadIdx.x / 128 * Sizes::D * 128, tile.y, tile.z, u % (FF / 128) * 128, Format::UNSCALE};
        unit_of<Halves<Format, true>, Sizes>(tile.z, weights, tokens, N_EMBD / STEP, epilogue);
    }
}

template <class Format, class Sizes> DEVICE void down(const DownArgs& args) {
    Ring weights, tokens;
    rings<Format, Sizes>(weights, tokens, 0, args.weight_slots, args.token_slots);
    Format::prepare(args.grid);
    __syncthreads();
    pdl_wait();
    pdl_trigger();
    if (threadIdx.x >= CONSUMERS) {
        producer_registers();
        if (threadIdx.x >= CONSUMERS + 32) return;
        produce<Format, Sizes, false, FF>(weights, tokens, args.down, args.down, args.packed, args.tpad, args.head, args.tiles);
        return;
    }
    consumer_registers();
    const uint32_t units = args.head[0] * (N_EMBD / ROWS);
    for (uint32_t u = blockIdx.x; u < units; u += gridDim.x) {
        const uint4 tile = args.tiles[u / (N_EMBD / ROWS)];
        const DownEpilogue epilogue{args, tile.y, tile.z, u % (N_EMBD / ROWS) * ROWS, Format::UNSCALE};
        unit_of<Halves<Format, false>, Sizes>(tile.z, weights, tokens, FF / STEP, epilogue);
    }
}

#define KERNEL(NAME, ARGS, BODY) \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) NAME(const __grid_constant__ ARGS args) { BODY(args); }
#define EXPERTS(NAME, FORMAT)                                                     \
    KERNEL(gemm_gate_up_##NAME##_64, GateUpArgs, (gate_up<FORMAT, Narrow>))       \
    KERNEL(gemm_gate_up_##NAME##_112, GateUpArgs, (gate_up<FORMAT, Wide>))        \
    KERNEL(gemm_down_##NAME##_64, DownArgs, (down<FORMAT, Narrow>))               \
    KERNEL(gemm_down_##NAME##_112, DownArgs, (down<FORMAT, Wide>))
// One format a program: -DEXPERTS_IQ2 and so on; all of them without.
#if !defined(EXPERTS_IQ2) && !defined(EXPERTS_Q2K) && !defined(EXPERTS_Q4K) && !defined(EXPERTS_MXFP4)
#define EXPERTS_IQ2
#define EXPERTS_Q2K
#define EXPERTS_Q4K
#define EXPERTS_MXFP4
#endif
#ifdef EXPERTS_IQ2
EXPERTS(iq2, Iq2)
#endif
#ifdef EXPERTS_Q2K
EXPERTS(q2k, Q2K)
#endif
#ifdef EXPERTS_Q4K
EXPERTS(q4k, Q4K)
#endif
#ifdef EXPERTS_MXFP4
EXPERTS(mxfp4, Mxfp4)
#endif
