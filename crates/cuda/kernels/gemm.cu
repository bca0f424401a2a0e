// Dense products of prefill, up to eight matrices with one activation in a launch:
// out[token * ldo + row] = sum over k of W[row][k] * x[token][64 block0 + k], tokens < n, rows < m. Groups of heads are segments
// with their own block0. Weights in Q8 or F16 tiles (16 rows x 64 k), m padded to 16 rows there; x packed by pack.cu.
//
// gemm_q8_256: 256 rows x 128 tokens a unit; gemm_*_128: 128 x 128; gemm_*_64: 128 x 64. Persistent: any grid, 384 threads.
// Units run through the tokens of a group of 2048 first, so that their activations and the rows in flight stay in L2.
//
// Q8: a code times its f16 scale is rounded to f16. Small scales would make subnormal products, so scales are taken times 2^8
// (exact for |w| < 256) and the sum times 2^-8.
#include "gemm.cuh"

struct Segment {
    const uint8_t* weights;
    float* out;
    uint32_t m, ldo, block0, pad;
};
struct GemmArgs {
    const uint8_t* packed;
    uint32_t n, tpad, k, count, weight_slots, token_slots;
    Segment segments[8];
};
static_assert(sizeof(GemmArgs) == 288, "mirrored in Rust");

struct Q8 {
    static constexpr uint32_t TILE = 1088, STEPS = 1;
    static constexpr float UNSCALE = 1.f / 256;
    typedef const uint8_t* Raw; // two tiles of this warp's 16 rows
    DEVICE void decode(const Place& at, Raw tiles, int k, uint32_t (&a)[4][4]) {
        const uint8_t* tile = tiles + k * TILE;
        const uint2 d = *reinterpret_cast<const uint2*>(tile + 1024 + at.g * 8);
        const uint32_t d0 = hmul2(d.x, 0x5c005c00), d1 = hmul2(d.y, 0x5c005c00); // rows g and g + 8: {q0, q1} * 256
#pragma unroll
        for (int q = 0; q < 2; ++q) {
            const uint4 u = *reinterpret_cast<const uint4*>(tile + 512 * q + 16 * at.lane);
            const uint32_t s0 = prmt(d0, 0, q ? 0x3232 : 0x1010), s1 = prmt(d1, 0, q ? 0x3232 : 0x1010);
            four(u.x, s0, a[2 * q][0], a[2 * q][2]);
            four(u.y, s0, a[2 * q + 1][0], a[2 * q + 1][2]);
            four(u.z, s1, a[2 * q][1], a[2 * q][3]);
            four(u.w, s1, a[2 * q + 1][1], a[2 * q + 1][3]);
        }
    }
    // Codes are stored plus 128: 1024 + u - 1152.
    DEVICE void four(uint32_t codes, uint32_t scale, uint32_t& low, uint32_t& high) {
        low = hmul2(hsub2(biased<false>(codes), 0x64806480), scale);
        high = hmul2(hsub2(biased<true>(codes), 0x64806480), scale);
    }
};

struct F16 {
    static constexpr uint32_t TILE = 2048, STEPS = 1;
    static constexpr float UNSCALE = 1;
    typedef const uint8_t* Raw;
    DEVICE void decode(const Place& at, Raw tiles, int k, uint32_t (&a)[4][4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint4 u = *reinterpret_cast<const uint4*>(tiles + k * TILE + 512 * i + 16 * at.lane);
            const int q = i / 2, r = i % 2;
            a[2 * q][r] = u.x, a[2 * q][r + 2] = u.y, a[2 * q + 1][r] = u.z, a[2 * q + 1][r + 2] = u.w;
        }
    }
};

template <class Format, int MB> struct Dense : Format {
    DEVICE const uint8_t* load(const Place& at, const uint8_t* slot, int mb, uint32_t) {
        return slot + ((at.warp / 4 * MB + mb) * 4 + at.warp % 4) * 2 * Format::TILE;
    }
};

struct Unit {
    uint32_t segment, row_block, token; // first row block of 16, first token
};
// Unit `u` of a launch with R row tiles and T token tiles.
template <int MB, int N> DEVICE Unit unit_at(const GemmArgs& args, uint32_t u, uint32_t row_tiles, uint32_t token_tiles) {
    constexpr uint32_t GROUP = 2048 / N;
    const uint32_t group = u / (GROUP * row_tiles), within = u % (GROUP * row_tiles), size = min(GROUP, token_tiles - group * GROUP);
    uint32_t row = within / size, s = 0;
    for (; s + 1 < args.count; ++s) {
        const uint32_t tiles = (args.segments[s].m + 128 * MB - 1) / (128 * MB);
        if (row < tiles) break;
        row -= tiles;
    }
    return Unit{s, row * 8 * MB, (group * GROUP + within % size) * N};
}

template <class Format, int MB, int N> DEVICE void dense(const GemmArgs& args) {
    constexpr uint32_t BLOCKS = 8 * MB, SLOT = (BLOCKS * 2 * Format::TILE + 1023) / 1024 * 1024;
    __shared__ uint64_t bars[2][2 * MAX_SLOTS];
    Ring weights, tokens;
    uint8_t* shared = aligned_shared();
    ring_init(tokens, bars[0], shared, N * 256, args.token_slots);
    ring_init(weights, bars[1], shared + args.token_slots * N * 256, SLOT, args.weight_slots);
    mbar_fence_init();
    __syncthreads();
    pdl_wait();
    pdl_trigger();

    uint32_t row_tiles = 0;
    for (uint32_t s = 0; s < args.count; ++s) row_tiles += (args.segments[s].m + 128 * MB - 1) / (128 * MB);
    const uint32_t token_tiles = (args.n + N - 1) / N, units = row_tiles * token_tiles, steps = args.k / STEP;
    if (threadIdx.x >= CONSUMERS) {
        producer_registers();
        if (threadIdx.x >= CONSUMERS + 32) return;
        for (uint32_t u = blockIdx.x; u < units; u += gridDim.x) {
            const Unit unit = unit_at<MB, N>(args, u, row_tiles, token_tiles);
            const Segment& segment = args.segments[unit.segment];
            const uint32_t last = (segment.m + 15) / 16 - 1;
            for (uint32_t step = 0; step < steps; ++step) {
                weights.wait_empty();
                uint64_t* full = weights.full + weights.at;
                fill_begin(full, BLOCKS * 2 * Format::TILE);
                for (uint32_t b = 0; b < BLOCKS; ++b) { // blocks beyond the matrix repeat its last
                    const size_t tile = size_t(min(unit.row_block + b, last)) * (args.k / 64) + 2 * step;
                    fill(full, weights.slot() + b * 2 * Format::TILE, segment.weights + tile * Format::TILE, 2 * Format::TILE);
                }
                fill_end(full);
                weights.advance();
                fill_tokens(tokens, args.packed, args.tpad, unit.token, segment.block0 + 2 * step, N);
            }
        }
        return;
    }
    consumer_registers();
    const uint32_t g = lane_id() / 4, t = lane_id() % 4, warp = threadIdx.x / 32;
    for (uint32_t u = blockIdx.x; u < units; u += gridDim.x) {
        float acc[MB][N / 2];
        product<Dense<Format, MB>, MB, N>(weights, tokens, acc, steps);
        const Unit unit = unit_at<MB, N>(args, u, row_tiles, token_tiles);
        const Segment& segment = args.segments[unit.segment];
#pragma unroll
        for (int mb = 0; mb < MB; ++mb) {
            const uint32_t row = (unit.row_block + (warp / 4 * MB + mb) * 4 + warp % 4) * 16 + g;
#pragma unroll
            for (int i = 0; i < N / 2; ++i) {
                const uint32_t r = row + i / 2 % 2 * 8, token = unit.token + i / 4 * 8 + 2 * t + i % 2;
                if (r < segment.m && token < args.n) segment.out[size_t(token) * segment.ldo + r] = acc[mb][i] * Format::UNSCALE;
            }
        }
    }
}

#define GEMM(NAME, FORMAT, MB, N) \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) NAME(const __grid_constant__ GemmArgs args) { dense<FORMAT, MB, N>(args); }
GEMM(gemm_q8_256, Q8, 2, 128)
GEMM(gemm_q8_128, Q8, 1, 128)
GEMM(gemm_q8_64, Q8, 1, 64)
GEMM(gemm_f16_128, F16, 1, 128)
GEMM(gemm_f16_64, F16, 1, 64)
