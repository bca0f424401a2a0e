// Products of few rows: out[row][m] = sum_k w[m][k] x[row][k], for up to 32 rows a launch, weights in tiles of 16 x 64.
//
// One persistent CTA per SM. A producer warp streams weight tiles through a ring in shared memory; sixteen consumer warps
// multiply them on the tensor cores. Activations are split in two f16 (value and remainder), which stand in two of the eight
// columns of an mma tile: float32-class products. Every output is summed in one order that does not depend on the number of
// rows: by k inside a warp, then over the warps.
//
// A launch does several products of the same K (segments). Work is cut in units of (segment, split of k, group of ROWS row
// blocks); a CTA owns a contiguous run of units. Splits leave partial sums, [split][row][m], for the reader to add up.
//
//   warps: KW along k, RW = 16 / KW row blocks side by side
//   slot:  RW x KW pieces; a piece is a Q8 tile (16 x 64) or half an F16 tile (16 x 32)
//   x:     [32-group][tile of 4 rows][lane] of 16 bytes: rows' hi and lo in fragment order. Up to four rows are converted by
//          every CTA; more are packed once by `dense_pack`, and a CTA copies a block of k at a time.
#include "common.cuh"

constexpr int MAX_SEGMENTS = 16;

struct Segment {
    const uint8_t* w;    // tiles
    const float* x;      // [rows][x_stride]; packed if there are more than four rows
    float* out;          // [split][rows][out_stride]
    uint32_t x_stride, out_stride;
    uint32_t m, groups;  // outputs; groups of RW row blocks
    uint32_t splits, split_stride; // parts of k, floats between their sums
    uint32_t f16, pad[3];          // weights are F16, not Q8
};
static_assert(sizeof(Segment) == 64, "mirrored in dense.rs");

// What every CTA reads first stands first, in one line of the constant cache.
struct DenseArgs {
    uint32_t n_segments, n, units, pad;
    uint32_t first_unit[MAX_SEGMENTS];
    const float* mix; // post weights and Sinkhorn matrix of each row, [rows][MIX]
    float* streams;   // [rows][HC][N_EMBD]: if set, the only segment is the output of a sublayer and goes there
    Segment segments[MAX_SEGMENTS];
};
static_assert(sizeof(DenseArgs) == 96 + 64 * MAX_SEGMENTS, "mirrored in dense.rs");

constexpr int WARPS = 16;
constexpr int CONSUMERS = 32 * WARPS;
constexpr int Q8_PIECE = 1088;
constexpr int F16_PIECE = 1024;
constexpr int SLOT = WARPS * Q8_PIECE;

// Sizes of a variant: K inputs, up to N rows.
template <int K, int N> struct Plan {
    static constexpr int NT = (N + 3) / 4;                    // tiles of four rows
    static constexpr int LANES = N == 1 ? 8 : 32;             // lanes of a tile that hold rows
    static constexpr bool RESIDENT = N <= 4;                  // all of x in shared memory at once
    static constexpr int KW = K <= 1024 ? 4 : 16;             // warps along k
    static constexpr int RW = WARPS / KW;
    static constexpr int ROWS = RESIDENT ? 1 : 2;             // units multiplied side by side
    static constexpr int XK = RESIDENT || K < 1024 ? K : (K % 1024 == 0 ? 1024 : 512); // k of a block of x
    static constexpr int SLOTS = 4;
    static constexpr int X_BYTES = XK / 32 * NT * LANES * 16;
    static constexpr int SUM_TILES = NT > 4 ? 4 : NT;         // tiles whose sums are added at a time
    static constexpr int SUM_STRIDE = 16 * WARPS + 8;         // floats of a row: no two lanes of a warp share a bank
    static constexpr int SUM_BYTES = SUM_TILES * 4 * SUM_STRIDE * 4;
    static constexpr int SHARED = SLOTS * SLOT + X_BYTES + SUM_BYTES + 128;
};

// The work of one CTA: a walk over passes (up to ROWS units of one segment and split).
struct Pass {
    uint32_t segment, split, group, count;
};
DEVICE Pass pass_at(const DenseArgs& a, uint32_t unit, uint32_t end, uint32_t rows) {
    uint32_t s = 0;
    while (s + 1 < a.n_segments && unit >= a.first_unit[s + 1]) ++s;
    const uint32_t at = unit - a.first_unit[s], groups = a.segments[s].groups;
    return {s, at / groups, at % groups, min(min(rows, groups - at % groups), end - unit)};
}

// Pieces of a row block, and how many of them a split and a block of x take.
template <int K, int N> struct Cut {
    uint32_t pieces, per_block, per_round, first_block, blocks;
    __device__ __forceinline__ Cut(const Segment& s, uint32_t split) {
        using P = Plan<K, N>;
        const uint32_t piece_k = s.f16 ? 32 : 64;
        pieces = K / piece_k;
        if (P::RESIDENT) { // one block: the split's share
            per_block = pieces / s.splits;
            first_block = split;
            blocks = 1;
        } else {
            per_block = P::XK / piece_k;
            blocks = K / P::XK / s.splits;
            first_block = split * blocks;
        }
        per_round = P::KW;
    }
};

template <int K, int N>
DEVICE void produce(const DenseArgs& a, uint32_t first, uint32_t end, uint8_t* ring, uint64_t* full, uint64_t* empty) {
    using P = Plan<K, N>;
    uint32_t slot = 0, parity = 1;
    for (uint32_t unit = first; unit < end;) {
        const Pass pass = pass_at(a, unit, end, P::ROWS);
        const Segment& s = a.segments[pass.segment];
        const Cut<K, N> cut(s, pass.split);
        const uint32_t piece = s.f16 ? F16_PIECE : Q8_PIECE;
        const uint32_t row_blocks = (s.m + 15) / 16;
        for (uint32_t block = cut.first_block; block < cut.first_block + cut.blocks; ++block)
            for (uint32_t p = 0; p < cut.per_block; p += P::KW)
                for (uint32_t r = 0; r < pass.count; ++r) {
                    const uint32_t run = min(uint32_t(P::KW), cut.per_block - p) * piece;
                    const uint32_t row_block = (pass.group + r) * P::RW;
                    const uint32_t live = min(uint32_t(P::RW), row_blocks - row_block);
                    mbar_wait(empty + slot, parity);
                    fill_begin(full + slot, live * run);
                    for (uint32_t rw = 0; rw < live; ++rw) {
                        const size_t at = size_t(row_block + rw) * cut.pieces + size_t(block) * cut.per_block + p;
                        fill(full + slot, ring + slot * SLOT + rw * P::KW * piece, s.w + at * piece, run);
                    }
                    fill_end(full + slot);
                    if (++slot == P::SLOTS) slot = 0, parity ^= 1;
                }
        unit += pass.count;
    }
}

// Eight values as f16 hi and lo.
DEVICE void split8(const float* from, uint4& hi, uint4& lo) {
    const float4 v[2] = {reinterpret_cast<const float4*>(from)[0], reinterpret_cast<const float4*>(from)[1]};
    const float f[8] = {v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w};
    uint16_t h[8], l[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) f16_split(f[j], h[j], l[j]);
    hi = {h[0] | uint32_t(h[1]) << 16, h[2] | uint32_t(h[3]) << 16, h[4] | uint32_t(h[5]) << 16, h[6] | uint32_t(h[7]) << 16};
    lo = {l[0] | uint32_t(l[1]) << 16, l[2] | uint32_t(l[3]) << 16, l[4] | uint32_t(l[5]) << 16, l[6] | uint32_t(l[7]) << 16};
}

// All of x for up to four rows.
template <int K, int N> DEVICE void convert_x(const Segment& s, uint32_t n, uint4* x) {
    using P = Plan<K, N>;
    constexpr uint32_t EIGHTHS = K / 8;
    for (uint32_t i = threadIdx.x; i < P::LANES / 8 * EIGHTHS; i += CONSUMERS) {
        const uint32_t row = i / EIGHTHS, e = i % EIGHTHS;
        uint4 hi = {0, 0, 0, 0}, lo = {0, 0, 0, 0};
        if (row < n) split8(s.x + size_t(row) * s.x_stride + 8 * e, hi, lo);
        const uint32_t at = e / 4 * P::LANES + 8 * row + e % 4;
        x[at] = hi;
        x[at + 4] = lo;
    }
}

// The next products' x for more than four rows: [width / 32][tiles][32 lanes] of 16 bytes.   grid: 256 threads a CTA
struct PackArgs {
    const float* x; // [n][stride]
    uint4* to;
    uint32_t stride, width, n, tiles;
};
static_assert(sizeof(PackArgs) == 32, "mirrored in dense.rs");

DEVICE void pack_rows(const PackArgs& a) {
    pdl_trigger();
    pdl_wait();
    const uint32_t eighths = a.width / 8, i = blockIdx.x * 256 + threadIdx.x;
    if (i >= 4 * a.tiles * eighths) return;
    const uint32_t row = i / eighths, e = i % eighths;
    uint4 hi = {0, 0, 0, 0}, lo = {0, 0, 0, 0};
    if (row < a.n) split8(a.x + size_t(row) * a.stride + 8 * e, hi, lo);
    uint4* to = a.to + (e / 4 * a.tiles + row / 4) * 32 + 8 * (row % 4) + e % 4;
    to[0] = hi;
    to[4] = lo;
}

// One group of 32 k: sums of the sixteen rows of each tile with every tile of x, times the rows' scales.
template <int ROWS, int NT, int LANES>
DEVICE void multiply32(float (&sum)[ROWS][NT][2], const uint32_t (&a)[ROWS][2][4], const uint4* x, const float (&scale)[ROWS][2]) {
#pragma unroll
    for (int j = 0; j < NT; ++j) {
        uint4 b = {0, 0, 0, 0};
        if (LANES == 32 || lane_id() < LANES) b = x[j * LANES + lane_id()];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float c[4] = {0, 0, 0, 0};
            mma_f16(c, a[r][0], b.x, b.y);
            mma_f16(c, a[r][1], b.z, b.w);
            sum[r][j][0] += scale[r][0] * (c[0] + c[1]);
            sum[r][j][1] += scale[r][1] * (c[2] + c[3]);
        }
    }
}
DEVICE uint32_t code_pair(uint32_t codes, uint32_t selector) { return hsub2(prmt(codes, 0x64646464u, selector), 0x64806480u); }

template <int ROWS, int NT, int LANES>
DEVICE void multiply_q8(float (&sum)[ROWS][NT][2], const uint8_t* const (&tile)[ROWS], const uint4* x) {
    const uint32_t lane = lane_id();
#pragma unroll
    for (int q = 0; q < 2; ++q) {
        uint32_t a[ROWS][2][4];
        float scale[ROWS][2];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const uint4 w = *reinterpret_cast<const uint4*>(tile[r] + 512 * q + 16 * lane);
            const uint2 scales = *reinterpret_cast<const uint2*>(tile[r] + 1024 + 8 * (lane / 4));
            a[r][0][0] = code_pair(w.x, 0x4140), a[r][0][1] = code_pair(w.z, 0x4140);
            a[r][0][2] = code_pair(w.x, 0x4342), a[r][0][3] = code_pair(w.z, 0x4342);
            a[r][1][0] = code_pair(w.y, 0x4140), a[r][1][1] = code_pair(w.w, 0x4140);
            a[r][1][2] = code_pair(w.y, 0x4342), a[r][1][3] = code_pair(w.w, 0x4342);
            scale[r][0] = q ? f16_hi(scales.x) : f16_lo(scales.x);
            scale[r][1] = q ? f16_hi(scales.y) : f16_lo(scales.y);
        }
        multiply32<ROWS, NT, LANES>(sum, a, x + q * NT * LANES, scale);
    }
}
template <int ROWS, int NT, int LANES>
DEVICE void multiply_f16(float (&sum)[ROWS][NT][2], const uint8_t* const (&half_tile)[ROWS], const uint4* x) {
    const uint32_t lane = lane_id();
    uint32_t a[ROWS][2][4];
    float one[ROWS][2];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const uint4 w0 = *reinterpret_cast<const uint4*>(half_tile[r] + 16 * lane);
        const uint4 w1 = *reinterpret_cast<const uint4*>(half_tile[r] + 512 + 16 * lane);
        a[r][0][0] = w0.x, a[r][0][1] = w1.x, a[r][0][2] = w0.y, a[r][0][3] = w1.y;
        a[r][1][0] = w0.z, a[r][1][1] = w1.z, a[r][1][2] = w0.w, a[r][1][3] = w1.w;
        one[r][0] = one[r][1] = 1.f;
    }
    multiply32<ROWS, NT, LANES>(sum, a, x, one);
}

// One output of one row: stored, or through the hyper-connection post step X'[b] = post_b y + sum_a C[a][b] X[a].
DEVICE void store(const DenseArgs& a, const Segment& s, uint32_t split, uint32_t row, uint32_t m, float y) {
    if (a.streams == nullptr) {
        s.out[size_t(split) * s.split_stride + size_t(row) * s.out_stride + m] = y;
        return;
    }
    const float* mix = a.mix + row * MIX;
    float* streams = a.streams + size_t(row) * HC * N_EMBD + m;
    float old[HC];
    for (int h = 0; h < HC; ++h) old[h] = streams[h * N_EMBD];
    for (int b = 0; b < HC; ++b) {
        float v = mix[b] * y;
        for (int h = 0; h < HC; ++h) v += mix[HC + h * HC + b] * old[h];
        streams[b * N_EMBD] = v;
    }
}

// Adds up the warps' sums, tile by tile of x, and stores them.
template <int K, int N>
DEVICE void finish(const DenseArgs& a, const Pass& pass, uint32_t group, const float (&sum)[Plan<K, N>::NT][2], float* sums) {
    using P = Plan<K, N>;
    const Segment& s = a.segments[pass.segment];
    const uint32_t warp = threadIdx.x / 32, g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (int first = 0; first < P::NT; first += P::SUM_TILES) {
#pragma unroll
        for (int j = 0; j < P::SUM_TILES; ++j) {
            float* to = sums + (4 * j + t) * P::SUM_STRIDE + warp * 16 + g;
            to[0] = sum[first + j][0];
            to[8] = sum[first + j][1];
        }
        named_barrier(1, CONSUMERS);
        for (uint32_t i = threadIdx.x; i < P::RW * 16 * 4 * P::SUM_TILES; i += CONSUMERS) {
            const uint32_t r = i % 16, rw = i / 16 % P::RW, column = i / (16 * P::RW), row = 4 * first + column;
            const uint32_t m = (group * P::RW + rw) * 16 + r;
            if (row >= a.n || m >= s.m) continue;
            float y = 0;
#pragma unroll
            for (int w = 0; w < P::KW; ++w) y += sums[column * P::SUM_STRIDE + (rw * P::KW + w) * 16 + r];
            store(a, s, pass.split, row, m, y);
        }
        named_barrier(1, CONSUMERS);
    }
}

// A block of x to shared memory: converted, or copied by the engine (its barrier `arrived` is used once for each block).
template <int K, int N> DEVICE void take_x(const Segment& s, uint32_t n, uint32_t block, uint4* x, uint64_t* arrived, uint32_t& parity) {
    using P = Plan<K, N>;
    named_barrier(1, CONSUMERS); // nobody reads the block before
    if (P::RESIDENT) {
        convert_x<K, N>(s, n, x);
        named_barrier(1, CONSUMERS);
        return;
    }
    if (threadIdx.x < 32) {
        fill_begin(arrived, P::X_BYTES);
        fill(arrived, x, reinterpret_cast<const uint8_t*>(s.x) + size_t(block) * P::X_BYTES, P::X_BYTES);
        fill_end(arrived);
    }
    mbar_wait(arrived, parity);
    parity ^= 1;
}

template <int K, int N>
DEVICE void consume(const DenseArgs& a, uint32_t first, uint32_t end, uint8_t* ring, uint4* x, float* sums, uint64_t* full, uint64_t* empty, uint64_t* arrived) {
    using P = Plan<K, N>;
    const uint32_t warp = threadIdx.x / 32, kw = warp % P::KW;
    uint32_t slot = 0, parity = 0, x_parity = 0, held = 0;
    const float* held_x = nullptr;
    for (uint32_t unit = first; unit < end;) {
        const Pass pass = pass_at(a, unit, end, P::ROWS);
        const Segment& s = a.segments[pass.segment];
        const Cut<K, N> cut(s, pass.split);
        const uint32_t piece = s.f16 ? F16_PIECE : Q8_PIECE, groups32 = s.f16 ? 1 : 2;
        float sum[P::ROWS][P::NT][2] = {};
        for (uint32_t block = cut.first_block; block < cut.first_block + cut.blocks; ++block) {
            const uint32_t wanted = P::RESIDENT ? 0 : block;
            if (held_x != s.x || held != wanted) {
                take_x<K, N>(s, a.n, wanted, x, arrived, x_parity);
                held_x = s.x, held = wanted;
            }
            const uint32_t base = P::RESIDENT ? block * cut.per_block : 0;
            for (uint32_t p = 0; p < cut.per_block; p += P::KW) {
                const uint8_t* tiles[P::ROWS];
                uint32_t last = slot;
#pragma unroll
                for (int r = 0; r < P::ROWS; ++r) {
                    if (r < pass.count) {
                        last = slot;
                        mbar_wait(full + slot, parity);
                        if (++slot == P::SLOTS) slot = 0, parity ^= 1;
                    }
                    tiles[r] = ring + last * SLOT + warp * piece; // past the last unit: multiplied in vain
                }
                if (p + kw < cut.per_block) {
                    const uint4* xs = x + (base + p + kw) * groups32 * P::NT * P::LANES;
                    if (s.f16)
                        multiply_f16<P::ROWS, P::NT, P::LANES>(sum, tiles, xs);
                    else
                        multiply_q8<P::ROWS, P::NT, P::LANES>(sum, tiles, xs);
                }
                __syncwarp();
                if (lane_id() == 0) {
                    mbar_arrive(empty + last);
                    if (P::ROWS > 1 && pass.count > 1) mbar_arrive(empty + (last + P::SLOTS - 1) % P::SLOTS);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < P::ROWS; ++r)
            if (r < pass.count) finish<K, N>(a, pass, pass.group + r, sum[r], sums);
        unit += pass.count;
    }
}

template <int K, int N> DEVICE void dense(const DenseArgs& a) {
    using P = Plan<K, N>;
    extern __shared__ __align__(128) uint8_t shared[];
    uint8_t* ring = shared;
    uint4* x = reinterpret_cast<uint4*>(shared + P::SLOTS * SLOT);
    float* sums = reinterpret_cast<float*>(shared + P::SLOTS * SLOT + P::X_BYTES);
    uint64_t* full = reinterpret_cast<uint64_t*>(shared + P::SLOTS * SLOT + P::X_BYTES + P::SUM_BYTES);
    uint64_t *empty = full + P::SLOTS, *arrived = empty + P::SLOTS;
    if (threadIdx.x == 0) {
        mbar_init(arrived, 1);
        for (int i = 0; i < P::SLOTS; ++i) {
            mbar_init(full + i, 1);
            mbar_init(empty + i, WARPS);
        }
        mbar_fence_init();
    }
    __syncthreads();
    const uint32_t first = uint32_t(uint64_t(a.units) * blockIdx.x / gridDim.x);
    const uint32_t end = uint32_t(uint64_t(a.units) * (blockIdx.x + 1) / gridDim.x);
    if (threadIdx.x >= CONSUMERS) {
        produce<K, N>(a, first, end, ring, full, empty); // weights only: no need to wait
        pdl_wait();
    } else {
        pdl_trigger();
        pdl_wait();
        consume<K, N>(a, first, end, ring, x, sums, full, empty, arrived);
    }
}

// One program for each K, so that they compile side by side: DENSE_NAME and DENSE_K are given; DENSE_PACK
// makes the one that packs.
#define JOIN_(name, n) name##_##n
#define JOIN(name, n) JOIN_(name, n)
#define VARIANT(n)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(CONSUMERS + 32) JOIN(DENSE_NAME, n)(const __grid_constant__ DenseArgs a) { \
        dense<DENSE_K, n>(a);                                                                                          \
    }
#ifdef DENSE_PACK
extern "C" __global__ void __launch_bounds__(256) dense_pack(const PackArgs a) { pack_rows(a); }
#else
VARIANT(1)
VARIANT(4)
VARIANT(8)
VARIANT(16)
VARIANT(32)
#endif
