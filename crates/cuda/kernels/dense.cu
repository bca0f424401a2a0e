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
//   slot:  RW x KW pieces; a piece is a Q8 tile (16 x 64) or half an F16 tile (16 x 32). One row and several row blocks side by
//          side: 16 pieces of one row block, and slots are the row blocks' by turns, so that every copy is long
//   x:     [32-group][tile of 4 rows][lane] of 16 bytes: rows' hi and lo in fragment order. Up to four rows are converted by
//          every CTA; more are packed once by `dense_pack`, and a CTA copies a block of k at a time.
#include "q8.cuh"

constexpr int MAX_SEGMENTS = 16;


struct Segment {
    const uint8_t* w;    // tiles
    const float* x;      // [rows][x_stride]; packed if there are more than four rows
    float* out;          // [split][rows][out_stride]
    uint32_t x_stride, out_stride;
    uint32_t m, groups;  // outputs; groups of RW row blocks
    uint32_t splits, split_stride; // parts of k, floats between their sums
    uint32_t f16;                  // weights are F16, not Q8
    uint32_t cost, first_cost;     // of a unit, and of all units of the segments before
    uint32_t pad;
};
static_assert(sizeof(Segment) == 64, "mirrored in dense.rs");

// What every CTA reads first stands first, in one line of the constant cache.
struct DenseArgs {
    uint32_t n_segments, n, units, share, rest, pad; // the cost of all units is `share` for each CTA, and `rest`
    uint32_t first_unit[MAX_SEGMENTS];
    const float* mix; // post weights and Sinkhorn matrix of each row, [rows][MIX]
    float* streams;   // [rows][HC][N_EMBD]: if set, the only segment is the output of a sublayer and goes there
    Segment segments[MAX_SEGMENTS];
};
static_assert(sizeof(DenseArgs) == 104 + 64 * MAX_SEGMENTS, "mirrored in dense.rs");

constexpr int WARPS = 16;
constexpr int CONSUMERS = 32 * WARPS;
constexpr int F16_PIECE = 1024;
constexpr int SLOT = WARPS * Q8_PIECE;
#ifdef DENSE_POST
constexpr bool POST = true; // outputs of these products may go into the streams
#else
constexpr bool POST = false;
#endif
constexpr int KEPT = 16; // one row: units whose sums wait for each other, so that warps seldom do

// Sizes of a variant: K inputs, up to N rows.
template <int K, int N> struct Plan {
    static constexpr int NT = (N + 3) / 4;                    // tiles of four rows
    static constexpr int LANES = N == 1 ? 8 : 32;             // lanes of a tile that hold rows
    static constexpr bool RESIDENT = N <= 4;                  // all of x in shared memory at once
    static constexpr int KW = ALONG_K<K>;                     // warps along k
    static constexpr int RW = WARPS / KW;
    static constexpr int ROWS = RESIDENT ? 1 : 2;             // units multiplied side by side
    static constexpr int XK = RESIDENT || K < 1024 ? K : (K % 1024 == 0 ? 1024 : 512); // k of a block of x
    // One row: deep enough to fetch most of a product while the kernels before it run, and too large for two such CTAs on a
    // multiprocessor: each gets one.
    static constexpr bool OWNED = N == 1 && RW > 1;           // a slot is one row block's
    static constexpr int SLOTS = OWNED ? 2 * RW : N == 1 ? 7 : 4;
    static constexpr int READERS = OWNED ? KW : WARPS;        // warps of a slot
    static constexpr int OWN_GROUPS = (K / 64 + KW - 1) / KW * 2; // one row: 32-groups of x that a warp multiplies
    static constexpr int X_BYTES = (N == 1 ? WARPS * OWN_GROUPS : XK / 32 * NT) * LANES * 16;
    static constexpr int SUM_TILES = NT > 4 ? 4 : NT;         // tiles whose sums are added at a time
    static constexpr int SUM_STRIDE = 16 * WARPS + 8;         // floats of a row: no two lanes of a warp share a bank
    static constexpr int SUM_BYTES = N == 1 ? KEPT * 16 * WARPS * 4 : SUM_TILES * 4 * SUM_STRIDE * 4;
    static constexpr int SHARED = SLOTS * SLOT + X_BYTES + SUM_BYTES + 8 * (2 * SLOTS + 1);
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

// First unit of a CTA: the first that begins at its share of the cost. The first CTAs have one more than the others.
DEVICE uint32_t first_unit(const DenseArgs& a, uint32_t cta) {
    const uint32_t from = a.share * cta + min(cta, a.rest);
    uint32_t s = 0;
    while (s + 1 < a.n_segments && from > a.segments[s + 1].first_cost) ++s;
    const uint32_t unit = a.first_unit[s] + (from - a.segments[s].first_cost + a.segments[s].cost - 1) / a.segments[s].cost;
    return min(unit, a.units);
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
        constexpr uint32_t STEP = P::OWNED ? WARPS : P::KW; // pieces of a row block in a slot
        const uint32_t turns = P::OWNED ? P::RW : pass.count;
        for (uint32_t block = cut.first_block; block < cut.first_block + cut.blocks; ++block)
            for (uint32_t p = 0; p < cut.per_block; p += STEP)
                for (uint32_t r = 0; r < turns; ++r) {
                    const uint32_t run = min(STEP, cut.per_block - p) * piece;
                    const uint32_t row_block = P::OWNED ? pass.group * P::RW + r : (pass.group + r) * P::RW;
                    const uint32_t live = row_block < row_blocks ? min(P::OWNED ? 1u : uint32_t(P::RW), row_blocks - row_block) : 0;
                    mbar_wait(empty + slot, parity);
                    fill_begin(full + slot, live * run);
                    for (uint32_t rw = 0; rw < live; ++rw) {
                        const size_t at = size_t(row_block + rw) * cut.pieces + size_t(block) * cut.per_block + p;
                        fill_once(full + slot, ring + slot * SLOT + rw * P::KW * piece, s.w + at * piece, run);
                    }
                    fill_end(full + slot);
                    if (++slot == P::SLOTS) slot = 0, parity ^= 1;
                }
        unit += pass.count;
    }
}

// All of x for two to four rows.
template <int K, int N> DEVICE void convert_x(const Segment& s, uint32_t n, uint4* x) {
    using P = Plan<K, N>;
    constexpr uint32_t EIGHTHS = K / 8;
    for (uint32_t i = threadIdx.x; i < 4 * EIGHTHS; i += CONSUMERS) {
        const uint32_t row = i / EIGHTHS, e = i % EIGHTHS;
        uint4 hi = {0, 0, 0, 0}, lo = {0, 0, 0, 0};
        if (row < n) split8(s.x + size_t(row) * s.x_stride + 8 * e, hi, lo);
        const uint32_t at = e / 4 * P::LANES + 8 * row + e % 4;
        x[at] = hi;
        x[at + 4] = lo;
    }
}

// The one row's inputs that a warp multiplies, for itself alone: pieces kw, kw + KW .. of all K. Nobody else waits for them.
template <int K, bool F16> DEVICE void convert_own(const float* from, uint4* x, uint32_t kw, uint32_t lane) {
    using P = Plan<K, 1>;
    constexpr uint32_t GROUPS = F16 ? 1 : 2, PIECES = K / 32 / GROUPS;
    __syncwarp(); // nobody reads the segment before
#pragma unroll
    for (uint32_t i = lane; i < 4 * P::OWN_GROUPS; i += 32) {
        const uint32_t group = i / 4, e = i % 4, piece = kw + P::KW * (group / GROUPS);
        if (piece >= PIECES) break;
        uint4 hi, lo;
        split8(from + 32 * (GROUPS * piece + group % GROUPS) + 8 * e, hi, lo);
        x[group * P::LANES + e] = hi;
        x[group * P::LANES + e + 4] = lo;
    }
    __syncwarp();
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

// COUNT pieces of the same rows one after the other: everything is loaded before anything is multiplied.
template <bool F16, int COUNT, int LANES>
DEVICE void multiply_run(float (&sum)[2], const uint8_t* const (&piece)[COUNT], const uint4* const (&x)[COUNT], uint32_t lane) {
    constexpr int GROUPS = F16 ? 1 : 2;
    uint4 w[COUNT][2], b[COUNT][GROUPS];
    uint2 scales[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        w[i][0] = *reinterpret_cast<const uint4*>(piece[i] + 16 * lane);
        w[i][1] = *reinterpret_cast<const uint4*>(piece[i] + 512 + 16 * lane);
        if (!F16) scales[i] = *reinterpret_cast<const uint2*>(piece[i] + 1024 + 2 * (lane & ~3u));
#pragma unroll
        for (int q = 0; q < GROUPS; ++q) b[i][q] = x_at<LANES>(x[i] + q * LANES, lane);
    }
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
#pragma unroll
        for (int q = 0; q < GROUPS; ++q) {
            Fragment f;
            if (F16) decode_f16(f, w[i][0], w[i][1]);
            else decode_q8(f, w[i][q], scales[i], q);
            add(sum, f, b[i][q]);
        }
}

// One piece of each of ROWS row blocks: a fragment of x is loaded once for all of them.
template <bool F16, int ROWS, int NT>
DEVICE void multiply_rows(float (&sum)[ROWS][NT][2], const uint8_t* const (&piece)[ROWS], const uint4* x, uint32_t lane) {
    constexpr int GROUPS = F16 ? 1 : 2;
#pragma unroll
    for (int q = 0; q < GROUPS; ++q) {
        Fragment f[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const uint4 w = *reinterpret_cast<const uint4*>(piece[r] + 512 * q + 16 * lane);
            if (F16) decode_f16(f[r], w, *reinterpret_cast<const uint4*>(piece[r] + 512 + 16 * lane));
            else decode_q8(f[r], w, *reinterpret_cast<const uint2*>(piece[r] + 1024 + 2 * (lane & ~3u)), q);
        }
#pragma unroll
        for (int j = 0; j < NT; ++j) {
            const uint4 b = x[(q * NT + j) * 32 + lane];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) add(sum[r][j], f[r], b);
        }
    }
}

// What the hyper-connection post step of one output needs beside it: X'[b] = post_b y + sum_a C[a][b] X[a].
struct Held {
    float mix[MIX], old[HC];
};
DEVICE void hold_output(Held& h, const DenseArgs& a, uint32_t row, uint32_t m) {
#pragma unroll
    for (int i = 0; i < MIX; ++i) h.mix[i] = __ldcg(a.mix + row * MIX + i);
#pragma unroll
    for (int i = 0; i < HC; ++i) h.old[i] = __ldcg(a.streams + (size_t(row) * HC + i) * N_EMBD + m);
}
DEVICE void store_streams(const Held& h, const DenseArgs& a, uint32_t row, uint32_t m, float y) {
#pragma unroll
    for (int b = 0; b < HC; ++b) {
        float v = __fmul_rn(h.mix[b], y); // spelled out: every variant has to round alike
#pragma unroll
        for (int i = 0; i < HC; ++i) v = __fmaf_rn(h.mix[HC + i * HC + b], h.old[i], v);
        a.streams[(size_t(row) * HC + b) * N_EMBD + m] = v;
    }
}
DEVICE void store(const DenseArgs& a, const Segment& s, uint32_t split, uint32_t row, uint32_t m, float y) {
    if (!POST || a.streams == nullptr) {
        s.out[size_t(split) * s.split_stride + size_t(row) * s.out_stride + m] = y;
        return;
    }
    const float* mix = a.mix + row * MIX;
    float* streams = a.streams + size_t(row) * HC * N_EMBD + m;
    float old[HC];
    for (int h = 0; h < HC; ++h) old[h] = streams[h * N_EMBD];
    for (int b = 0; b < HC; ++b) {
        float v = __fmul_rn(mix[b], y);
        for (int h = 0; h < HC; ++h) v = __fmaf_rn(mix[HC + h * HC + b], old[h], v);
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

// One row: adds up the warps' sums of units `first .. end` and stores them. What the first output of a thread needs may be held.
template <int K> DEVICE void finish_kept(const DenseArgs& a, uint32_t first, uint32_t end, const float* sums, uint32_t thread, const Held& held, bool is_held) {
    using P = Plan<K, 1>;
    constexpr uint32_t OUTPUTS = 16 * P::RW;
    named_barrier(1, CONSUMERS);
    for (uint32_t i = thread; i < (end - first) * OUTPUTS; i += CONSUMERS) {
        const Pass pass = pass_at(a, first + i / OUTPUTS, end, 1);
        const Segment& s = a.segments[pass.segment];
        const uint32_t m = pass.group * OUTPUTS + i % OUTPUTS;
        if (m >= s.m) continue;
        const float* from = sums + i / OUTPUTS * 16 * WARPS + i % OUTPUTS / 16 * 16 * P::KW + i % 16;
        float y = 0;
#pragma unroll
        for (int w = 0; w < P::KW; ++w) y += from[16 * w];
        if (POST && a.streams != nullptr && is_held && i == thread) store_streams(held, a, 0, m, y);
        else store(a, s, pass.split, 0, m, y);
    }
    named_barrier(1, CONSUMERS);
}
// The streams and their mixing weights are older than the two kernels before: they can be had before the wait.
template <int K> DEVICE void hold(Held& held, const DenseArgs& a, uint32_t first, uint32_t end, uint32_t thread) {
    constexpr uint32_t OUTPUTS = 16 * Plan<K, 1>::RW;
    const uint32_t unit = first + thread / OUTPUTS;
    if (unit >= end) return;
    const uint32_t m = pass_at(a, unit, end, 1).group * OUTPUTS + thread % OUTPUTS;
    if (m < a.segments[0].m) hold_output(held, a, 0, m);
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

// What a consumer warp knows of the ring: its piece of the first slot, addresses of the barriers, and where it stands.
struct Reader {
    const uint8_t* ring;
    uint32_t full, empty, slot, parity;
};
template <int SLOTS> DEVICE const uint8_t* next_slot(Reader& r) {
    const uint8_t* at = r.ring + r.slot * SLOT;
    mbar_wait_at(r.full + 8 * r.slot, r.parity);
    if (++r.slot == SLOTS) r.slot = 0, r.parity ^= 1;
    return at;
}
template <int SLOTS> DEVICE void release(const Reader& r, uint32_t first, uint32_t count, uint32_t lane) {
    __syncwarp();
    if (lane != 0) return;
    for (uint32_t i = 0; i < count; ++i) {
        mbar_arrive_at(r.empty + 8 * first);
        if (++first == SLOTS) first = 0;
    }
}

// All pieces of a pass, one row block: two rounds at a time.
template <int K, int N, bool F16>
DEVICE void multiply_one(float (&sum)[2], Reader& reader, const uint4* xs, uint32_t pieces, uint32_t kw, uint32_t lane) {
    using P = Plan<K, N>;
    constexpr uint32_t ROUND = (N == 1 ? 1 : P::KW) * (F16 ? 1 : 2) * P::LANES; // of x
    // Whole pairs of rounds in every split, but for models with few inputs.
    constexpr int LEAST = F16 ? K / 32 / 4 : K / 64 / 2;
    constexpr bool PAIRS = LEAST > 0 && LEAST % (2 * P::KW) == 0;
    uint32_t p = 0;
    for (; PAIRS ? p < pieces : p + P::KW + kw < pieces; p += 2 * P::KW, xs += 2 * ROUND) {
        const uint32_t first = reader.slot;
        const uint8_t* const piece[2] = {next_slot<P::SLOTS>(reader), next_slot<P::SLOTS>(reader)};
        const uint4* const at[2] = {xs, xs + ROUND};
        multiply_run<F16, 2, P::LANES>(sum, piece, at, lane);
        release<P::SLOTS>(reader, first, 2, lane);
    }
    if (PAIRS) return;
    for (; p < pieces; p += P::KW, xs += ROUND) {
        const uint32_t first = reader.slot;
        const uint8_t* const piece[1] = {next_slot<P::SLOTS>(reader)};
        if (p + kw < pieces) multiply_run<F16, 1, P::LANES>(sum, piece, {xs}, lane);
        release<P::SLOTS>(reader, first, 1, lane);
    }
}

// The same where a slot holds 16 pieces of one row block, four of them this warp's, and the block has every RW-th slot.
template <int K, bool F16>
DEVICE void multiply_owned(float (&sum)[2], Reader& reader, const uint4* xs, uint32_t pieces, uint32_t kw, uint32_t lane) {
    using P = Plan<K, 1>;
    constexpr uint32_t PIECE = F16 ? F16_PIECE : Q8_PIECE, X = (F16 ? 1 : 2) * P::LANES; // of x, a piece
    static_assert(P::SLOTS == 2 * P::RW && P::KW * 4 == WARPS, "two slots by turns");
    for (uint32_t p = 0; p < pieces; p += WARPS, xs += 4 * X) {
        const uint8_t* const slot = reader.ring + reader.slot * SLOT + kw * PIECE;
        mbar_wait_at(reader.full + 8 * reader.slot, reader.parity);
#pragma unroll
        for (uint32_t i = 0; i < 4; i += 2) {
            const uint32_t left = pieces - p > kw + i * P::KW ? (pieces - p - kw - i * P::KW - 1) / P::KW + 1 : 0;
            const uint8_t* const piece[2] = {slot + i * P::KW * PIECE, slot + (i + 1) * P::KW * PIECE};
            const uint4* const at[2] = {xs + i * X, xs + (i + 1) * X};
            if (left >= 2) multiply_run<F16, 2, P::LANES>(sum, piece, at, lane);
            else if (left == 1) multiply_run<F16, 1, P::LANES>(sum, {piece[0]}, {at[0]}, lane);
        }
        __syncwarp();
        if (lane == 0) mbar_arrive_at(reader.empty + 8 * reader.slot);
        if (reader.slot >= uint32_t(P::RW)) reader.slot -= P::RW, reader.parity ^= 1;
        else reader.slot += P::RW;
    }
}

// The same for more rows: up to ROWS row blocks side by side.
template <int K, int N, bool F16>
DEVICE void multiply_more(float (&sum)[Plan<K, N>::ROWS][Plan<K, N>::NT][2], Reader& reader, const uint4* xs, uint32_t pieces, uint32_t count, uint32_t kw, uint32_t lane) {
    using P = Plan<K, N>;
    constexpr uint32_t ROUND = P::KW * (F16 ? 1 : 2) * P::NT * 32;
    for (uint32_t p = 0; p < pieces; p += P::KW, xs += ROUND) {
        const uint32_t first = reader.slot;
        const uint8_t* piece[P::ROWS];
        piece[0] = next_slot<P::SLOTS>(reader);
#pragma unroll
        for (int r = 1; r < P::ROWS; ++r) // past the last unit: multiplied in vain
            piece[r] = r < count ? next_slot<P::SLOTS>(reader) : piece[0];
        if (p + kw < pieces) multiply_rows<F16, P::ROWS, P::NT>(sum, piece, xs, lane);
        release<P::SLOTS>(reader, first, count, lane);
    }
}

template <int K, int N, bool F16>
DEVICE void multiply(float (&sum)[Plan<K, N>::ROWS][Plan<K, N>::NT][2], Reader reader, Reader& after, const uint4* x, uint32_t pieces, uint32_t count, uint32_t thread) {
    using P = Plan<K, N>;
    const uint32_t lane = thread % 32, warp = thread / 32, kw = warp % P::KW;
    reader.ring += warp * (F16 ? F16_PIECE : Q8_PIECE);
    const uint4* xs = x + kw * (F16 ? 1 : 2) * P::NT * P::LANES;
    if constexpr (P::ROWS == 1)
        multiply_one<K, N, F16>(sum[0][0], reader, xs, pieces, kw, lane);
    else
        multiply_more<K, N, F16>(sum, reader, xs, pieces, count, kw, lane);
    after.slot = reader.slot, after.parity = reader.parity;
}

template <int K, int N>
DEVICE void consume(const DenseArgs& a, uint32_t first, uint32_t end, Reader reader, uint4* x, float* sums, uint64_t* arrived) {
    using P = Plan<K, N>;
    const uint32_t thread = held_thread();
    uint32_t x_parity = 0, held = 0;
    const float* held_x = nullptr;
    for (uint32_t unit = first; unit < end;) {
        const Pass pass = pass_at(a, unit, end, P::ROWS);
        const Segment& s = a.segments[pass.segment];
        const Cut<K, N> cut(s, pass.split);
        float sum[P::ROWS][P::NT][2] = {};
        for (uint32_t block = cut.first_block; block < cut.first_block + cut.blocks; ++block) {
            const uint32_t wanted = P::RESIDENT ? 0 : block;
            if (held_x != s.x || held != wanted) {
                take_x<K, N>(s, a.n, wanted, x, arrived, x_parity);
                held_x = s.x, held = wanted;
            }
            const uint32_t base = P::RESIDENT ? block * cut.per_block : 0;
            const uint4* xs = x + base * (s.f16 ? 1 : 2) * P::NT * P::LANES;
            if (s.f16)
                multiply<K, N, true>(sum, reader, reader, xs, cut.per_block, pass.count, thread);
            else
                multiply<K, N, false>(sum, reader, reader, xs, cut.per_block, pass.count, thread);
        }
#pragma unroll
        for (int r = 0; r < P::ROWS; ++r)
            if (r < pass.count) finish<K, N>(a, pass, pass.group + r, sum[r], sums);
        unit += pass.count;
    }
}

// One row: every warp converts what it multiplies, and meets the others only to add up.
template <int K> DEVICE void consume_one(const DenseArgs& a, uint32_t first, uint32_t end, Reader reader, uint4* x, float* sums) {
    using P = Plan<K, 1>;
    const uint32_t thread = held_thread(), lane = thread % 32, warp = thread / 32, kw = warp % P::KW;
    uint4* const own = x + warp * P::OWN_GROUPS * P::LANES;
    const uint8_t* const ring = reader.ring;
    const float* held_x = nullptr;
    uint32_t held_f16 = 0, kept = first;
    if constexpr (P::OWNED) reader.slot = warp / P::KW;
    Held held;
    if (POST && a.streams != nullptr) hold<K>(held, a, first, end, thread);
    pdl_wait();
    for (uint32_t unit = first; unit < end; ++unit) {
        const Pass pass = pass_at(a, unit, end, 1);
        const Segment& s = a.segments[pass.segment];
        if (held_x != s.x || held_f16 != s.f16) {
            if (s.f16) convert_own<K, true>(s.x, own, kw, lane);
            else convert_own<K, false>(s.x, own, kw, lane);
            held_x = s.x, held_f16 = s.f16;
        }
        const Cut<K, 1> cut(s, pass.split);
        // Splits are whole rounds of the warps.
        const uint4* xs = own + cut.first_block * cut.per_block / P::KW * (s.f16 ? 1 : 2) * P::LANES;
        float sum[2] = {};
        if constexpr (P::OWNED) {
            if (s.f16) multiply_owned<K, true>(sum, reader, xs, cut.per_block, kw, lane);
            else multiply_owned<K, false>(sum, reader, xs, cut.per_block, kw, lane);
        } else {
            reader.ring = ring + warp * (s.f16 ? F16_PIECE : Q8_PIECE);
            if (s.f16) multiply_one<K, 1, true>(sum, reader, xs, cut.per_block, kw, lane);
            else multiply_one<K, 1, false>(sum, reader, xs, cut.per_block, kw, lane);
        }
        if (lane % 4 == 0) {
            float* to = sums + (unit - kept) * 16 * WARPS + 16 * warp + lane / 4;
            to[0] = sum[0];
            to[8] = sum[1];
        }
        if (unit + 1 - kept == KEPT || unit + 1 == end) {
            finish_kept<K>(a, kept, unit + 1, sums, thread, held, kept == first);
            kept = unit + 1;
        }
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
            mbar_init(empty + i, P::READERS);
        }
        mbar_fence_init();
    }
    __syncthreads();
    const uint32_t first = first_unit(a, blockIdx.x), end = blockIdx.x + 1 == gridDim.x ? a.units : first_unit(a, blockIdx.x + 1);
    if (threadIdx.x >= CONSUMERS) {
        produce<K, N>(a, first, end, ring, full, empty); // weights only: no need to wait
        pdl_wait();
    } else {
        pdl_trigger();
        const Reader reader = {ring, shared_address(full), shared_address(empty), 0, 0};
        if constexpr (N == 1) {
            consume_one<K>(a, first, end, reader, x, sums);
        } else {
            pdl_wait();
            consume<K, N>(a, first, end, reader, x, sums, arrived);
        }
    }
}

// One program for each K, so that they compile side by side: DENSE_NAME and DENSE_K are given, DENSE_POST where outputs go into
// the streams; DENSE_PACK makes the one that packs.
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
