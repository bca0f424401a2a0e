// attend, prefill, on Hopper: one query at a time, all its heads as the 64 rows of a product (model.md 5.2, 5.3). Elsewhere the
// launcher runs the decode kernels. A CTA takes rows blockIdx.x, + gridDim.x ..; its third warpgroup decodes tiles of 64 visible rows
// into two buffers of 8 slabs (wgmma.cuh); the other two score 32 rows of a tile each, share maxima and weights, and mix all
// 64 rows into 256 columns each:  s = q k^T,  p = 2^(s - m),  o = o 2^(m' - m) + p k.
#include "attention.cuh"
#include "wgmma.cuh"

constexpr uint32_t TILE = 64, SLABS = HEAD / 64, SLAB = TILE * 128, BARRIER = 1, CONSUMERS = 256;

struct PrefillShared { // on a 1024-byte bound
    uint8_t q[SLABS][SLAB];       // [slab][head]
    uint8_t kv[2][SLABS][SLAB];   // [buffer][slab][row]
    uint8_t p[SLAB];              // [head][row]
    float2 angle[2][ROT / 2];     // cosine, sine; by parity of the query
    float exchange[2][64];        // [warpgroup][head]
    uint64_t full[2], empty[2];
};

// Place of 16-byte chunk `c` of row `r` in a slab.
DEVICE uint32_t chunk_at(uint32_t r, uint32_t c) { return 128 * r + 16 * (c ^ (r & 7)); }

// The rows a producer lane decodes, two of each tile, one query after the other.
struct Cursor {
    View v;
    uint32_t row, base, lane_row, half;
};
DEVICE void open_query(const AttendArgs& a, Cursor& c) {
    c.base = c.half = 0;
    if (c.row < a.n) c.v = view_of(a.step[a.first_row + c.row], a.ratio);
}
DEVICE const uint8_t* next_bytes(const AttendArgs& a, Cursor& c) {
    if (c.row >= a.n) return nullptr;
    const uint32_t j = c.base + c.lane_row + 8 * c.half;
    const uint8_t* bytes = bytes_of(a, c.v, j, place_of(a, c.v, a.first_row + c.row, j));
    c.base += c.half ? TILE : 0;
    c.half ^= 1;
    if (c.base >= c.v.total) c.row += gridDim.x, open_query(a, c);
    return bytes;
}

// Lane 4 r + p of producer warp w decodes rows 16 w + 8 half + r, of every slab the columns 16 p .. 16 p + 15.
DEVICE void produce(const AttendArgs& a, PrefillShared& sh) {
    const uint32_t warp = threadIdx.x / 32 - CONSUMERS / 32, p = lane_id() % 4;
    Cursor c;
    c.row = blockIdx.x, c.lane_row = 16 * warp + lane_id() / 4;
    open_query(a, c);
    const uint8_t *now = next_bytes(a, c), *then = next_bytes(a, c);
    uint2 codes[7][2], tail[4], exponents = make_uint2(0, 0);
    auto load = [&](const uint8_t* from, int s) {
        const uint2* at = reinterpret_cast<const uint2*>(from + (s < 7 ? 64 * s + 16 * p : TAIL_AT + 32 * p));
        const uint2 zero = make_uint2(0, 0);
        if (s < 7) {
            codes[s][0] = from ? at[0] : zero, codes[s][1] = from ? at[1] : zero;
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) tail[i] = from ? at[i] : zero;
        }
    };
#pragma unroll
    for (int s = 0; s < 8; ++s) load(now, s);
    if (now) exponents = *reinterpret_cast<const uint2*>(now + EXPONENTS_AT);
    uint32_t turn = 0; // tiles so far
    for (uint32_t row = blockIdx.x; row < a.n; row += gridDim.x) {
        const uint32_t tiles = (view_of(a.step[a.first_row + row], a.ratio).total + TILE - 1) / TILE;
        for (uint32_t tile = 0; tile < tiles; ++tile, ++turn) {
            const uint32_t buffer = turn & 1;
            mbar_wait(&sh.empty[buffer], ((turn >> 1) & 1) ^ 1);
            for (uint32_t half = 0; half < 2; ++half) {
                const uint8_t* later = next_bytes(a, c);
                const uint32_t r = 16 * warp + 8 * half + lane_id() / 4;
                const uint2 e = exponents;
                if (then) exponents = *reinterpret_cast<const uint2*>(then + EXPONENTS_AT);
#pragma unroll
                for (int s = 0; s < 8; ++s) {
                    uint32_t x[8];
                    if (s < 7) {
                        const uint32_t scale = scale_pair(((s < 4 ? e.x : e.y) >> (8 * (s % 4))) & 0xff);
                        decode8(codes[s][0], scale, x);
                        decode8(codes[s][1], scale, x + 4);
                    } else {
#pragma unroll
                        for (int i = 0; i < 4; ++i) x[2 * i] = tail[i].x, x[2 * i + 1] = tail[i].y;
                    }
                    load(then, s);
                    uint8_t* slab = sh.kv[buffer][s];
                    *reinterpret_cast<uint4*>(slab + chunk_at(r, 2 * p)) = make_uint4(x[0], x[1], x[2], x[3]);
                    *reinterpret_cast<uint4*>(slab + chunk_at(r, 2 * p + 1)) = make_uint4(x[4], x[5], x[6], x[7]);
                }
                then = later;
            }
            fence_async();
            __syncwarp();
            if (lane_id() == 0) mbar_arrive(&sh.full[buffer]);
        }
    }
}

// The query's heads as f16, and its angles.
DEVICE void load_query(const AttendArgs& a, PrefillShared& sh, uint32_t row, uint32_t pos, uint32_t parity) {
    const float* q = a.q + size_t(row) * N_HEAD * HEAD;
#pragma unroll 8
    for (uint32_t i = threadIdx.x; i < 64 * HEAD / 8; i += CONSUMERS) {
        const uint32_t head = i / 64, c = i % 64;
        float4 x = make_float4(0, 0, 0, 0), y = x;
        if (head < N_HEAD) {
            x = *reinterpret_cast<const float4*>(q + head * HEAD + 8 * c);
            y = *reinterpret_cast<const float4*>(q + head * HEAD + 8 * c + 4);
        }
        *reinterpret_cast<uint4*>(sh.q[c / 8] + chunk_at(head, c % 8)) =
            make_uint4(f16x2_of(x.x, x.y), f16x2_of(x.z, x.w), f16x2_of(y.x, y.y), f16x2_of(y.z, y.w));
    }
    if (threadIdx.x < ROT / 2) {
        float sine, cosine;
        quadrant_angle(a.frequencies[threadIdx.x], pos, sine, cosine);
        sh.angle[parity][threadIdx.x] = make_float2(cosine, sine);
    }
}

// s = q k^T for this warpgroup's 32 rows of a tile; under way when it returns.
DEVICE void score_tile(PrefillShared& sh, uint32_t group, uint32_t buffer, float (&s)[16]) {
    const uint64_t q = operand(shared_address(sh.q), 16);
    const uint64_t k = operand(shared_address(sh.kv[buffer]) + 32 * 128 * group, 16);
    wgmma_fence();
#pragma unroll
    for (uint32_t i = 0; i < HEAD / 16; ++i) {
        const uint32_t at = (SLAB * (i / 4) + 32 * (i % 4)) / 16; // addresses count by 16
        wgmma_n32(s, q + at, k + at, i > 0);
    }
    wgmma_commit();
}

// Maxima of two heads over both warpgroups' columns.
DEVICE void share_max(PrefillShared& sh, uint32_t group, uint32_t head, float& x, float& y) {
#pragma unroll
    for (int d = 1; d < 4; d *= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
        y = fmaxf(y, __shfl_xor_sync(0xffffffffu, y, d));
    }
    if (lane_id() % 4 == 0) sh.exchange[group][head] = x, sh.exchange[group][head + 8] = y;
    named_barrier(BARRIER, CONSUMERS);
    x = fmaxf(x, sh.exchange[group ^ 1][head]), y = fmaxf(y, sh.exchange[group ^ 1][head + 8]);
}

DEVICE void consume(const AttendArgs& a, PrefillShared& sh) {
    const uint32_t group = threadIdx.x / 128, g = lane_id() / 4, t = lane_id() % 4;
    const uint32_t head = 16 * (threadIdx.x / 32 % 4) + g; // and head + 8
    uint32_t turn = 0, parity = 0;
    for (uint32_t i = blockIdx.x; i < a.n; i += gridDim.x, parity ^= 1) {
        const uint32_t row = a.first_row + i, pos = a.step[row].pos;
        const uint32_t total = view_of(a.step[row], a.ratio).total, tiles = (total + TILE - 1) / TILE;
        load_query(a, sh, row, pos, parity);
        // The sink is the first entry: it has a score and no value.
        float m0 = head < N_HEAD ? a.sinks[head] * LOG2E : 0.f, m1 = head + 8 < N_HEAD ? a.sinks[head + 8] * LOG2E : 0.f;
        float l0 = t == 0 && group == 0, l1 = l0;
        float s[16], o[128];
#pragma unroll
        for (int j = 0; j < 128; ++j) o[j] = 0;
        fence_async();
        named_barrier(BARRIER, CONSUMERS);
        mbar_wait(&sh.full[turn & 1], (turn >> 1) & 1);
        score_tile(sh, group, turn & 1, s);
        wgmma_wait<0>();
        for (uint32_t tile = 0; tile < tiles; ++tile, ++turn) {
            const uint32_t first = TILE * tile + 32 * group + 2 * t;
            float x = NO_SCORE, y = NO_SCORE;
#pragma unroll
            for (int j = 0; j < 16; ++j) {
                if (first + 8 * (j / 4) + j % 2 >= total) s[j] = NO_SCORE;
                (j & 2 ? y : x) = fmaxf(j & 2 ? y : x, s[j]);
            }
            share_max(sh, group, head, x, y);
            x = fmaxf(m0, x * SCORE_SCALE), y = fmaxf(m1, y * SCORE_SCALE);
            const float shrink0 = ex2(m0 - x), shrink1 = ex2(m1 - y);
            m0 = x, m1 = y, l0 *= shrink0, l1 *= shrink1;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float p0 = ex2(fmaf(s[4 * j], SCORE_SCALE, -m0)), p1 = ex2(fmaf(s[4 * j + 1], SCORE_SCALE, -m0));
                const float p2 = ex2(fmaf(s[4 * j + 2], SCORE_SCALE, -m1)), p3 = ex2(fmaf(s[4 * j + 3], SCORE_SCALE, -m1));
                l0 += p0 + p1, l1 += p2 + p3;
                *reinterpret_cast<uint32_t*>(sh.p + chunk_at(head, 4 * group + j) + 4 * t) = f16x2_of(p0, p1);
                *reinterpret_cast<uint32_t*>(sh.p + chunk_at(head + 8, 4 * group + j) + 4 * t) = f16x2_of(p2, p3);
            }
            if (__any_sync(0xffffffffu, shrink0 != 1.f || shrink1 != 1.f))
#pragma unroll
                for (int j = 0; j < 128; ++j) o[j] *= j & 2 ? shrink1 : shrink0;
            fence_async();
            named_barrier(BARRIER, CONSUMERS);
            const uint32_t p = shared_address(sh.p), v = shared_address(sh.kv[turn & 1]) + 4 * SLAB * group;
            wgmma_fence();
#pragma unroll
            for (uint32_t k = 0; k < TILE / 16; ++k)
                wgmma_n256_across(o, operand(p + 32 * k, 16), operand(v + 16 * 128 * k, SLAB), 1);
            wgmma_commit();
            if (tile + 1 < tiles) { // the next scores follow the mix without a gap
                const uint32_t next = turn + 1;
                mbar_wait(&sh.full[next & 1], (next >> 1) & 1);
                score_tile(sh, group, next & 1, s);
                wgmma_wait<1>();
            } else {
                wgmma_wait<0>();
            }
            if (lane_id() == 0) mbar_arrive(&sh.empty[turn & 1]);
            wgmma_wait<0>();
        }
#pragma unroll
        for (int d = 1; d < 4; d *= 2) l0 += __shfl_xor_sync(0xffffffffu, l0, d), l1 += __shfl_xor_sync(0xffffffffu, l1, d);
        if (t == 0) sh.exchange[group][head] = l0, sh.exchange[group][head + 8] = l1;
        named_barrier(BARRIER, CONSUMERS); // also: nobody reads this query any more
        const float scale0 = 1.f / (sh.exchange[0][head] + sh.exchange[1][head]);
        const float scale1 = 1.f / (sh.exchange[0][head + 8] + sh.exchange[1][head + 8]);
        float* out = a.heads + (size_t(row) * N_HEAD + head) * HEAD + 256 * group + 2 * t;
#pragma unroll
        for (int j = 0; j < 32; ++j) {
            float2 x = make_float2(o[4 * j] * scale0, o[4 * j + 1] * scale0);
            float2 y = make_float2(o[4 * j + 2] * scale1, o[4 * j + 3] * scale1);
            if (j >= 24 && group == 1) {
                const float2 w = sh.angle[parity][4 * (j - 24) + t];
                x = make_float2(x.x * w.x + x.y * w.y, x.y * w.x - x.x * w.y);
                y = make_float2(y.x * w.x + y.y * w.y, y.y * w.x - y.x * w.y);
            }
            if (head < N_HEAD) *reinterpret_cast<float2*>(out + 8 * j) = x;
            if (head + 8 < N_HEAD) *reinterpret_cast<float2*>(out + 8 * HEAD + 8 * j) = y;
        }
    }
}

// grid min(rows, SMs), 384 threads: warpgroups 0 and 1 consume, 2 produces.
extern "C" __global__ __launch_bounds__(384, 1) void attend_prefill(const AttendArgs a) {
#if HAS_WGMMA
    extern __shared__ __align__(16) uint8_t memory[];
    PrefillShared& sh = *reinterpret_cast<PrefillShared*>(memory + (-shared_address(memory) & 1023));
    if (threadIdx.x == 0) {
        for (int b = 0; b < 2; ++b) mbar_init(&sh.full[b], 4), mbar_init(&sh.empty[b], CONSUMERS / 32);
        mbar_fence_init();
    }
    __syncthreads();
    pdl_enter();
    if (threadIdx.x < CONSUMERS) {
        registers_up<192>();
        consume(a, sh);
    } else {
        registers_down<120>();
        produce(a, sh);
    }
#endif
}
