// Expert tiles times int8 activations (decode path): the four stored formats as operand A of m16n8k32, decoded in registers.
//
// An activation block is 256 values of up to four tokens: x = s (h + l / 254), h = round(x / s), l = round(254 (x / s - h)),
// both int8; token i has h in mma column 2 i and l in column 2 i + 1. So lane 4 g + t ends with both sums of token t, for
// rows g and g + 8. All sums are integers until the block ends (MXFP4: until the 32-group ends).
// Inside a group of 32 lane t of a quad owns k = 8 t .. 8 t + 7: one grid row of IQ2_XXS, half a sub-block of Q2_K.
#pragma once
#include "common.cuh"

constexpr float LOW = 1.f / 254.f; // what a unit of l is worth

// Activations of one 256-block, written by one warp and read by the same warp.
template <class F> struct __align__(16) Block {
    uint4 codes[4][32];             // [pair of 32-groups][lane as it reads]: 8 bytes of the even group, 8 of the odd one
    uint2 sums[F::MINS ? 32 : 2];   // [lane]: sums over sub-blocks 4 t .. 4 t + 3 of its column as low + 128 high, bytes
    float scale[4];                 // s of a token
};

DEVICE uint4 weight16(const uint8_t* p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
DEVICE uint2 weight8(const uint8_t* p) {
    uint2 v;
    asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}
DEVICE uint32_t weight4(const uint8_t* p) {
    uint32_t v;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}
DEVICE uint16_t weight2(const uint8_t* p) {
    uint16_t v;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p));
    return v;
}
DEVICE uint32_t byte_of(uint32_t w, int i) { return prmt(w, 0, 0x4440 + i); }
// c + byte i of `w` times `by`: one instruction, and on the multiplier's pipe, where the permutes are not.
DEVICE uint32_t add_byte(uint32_t c, uint32_t w, int i, uint32_t by) {
    uint32_t r;
    asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(w), "r"(by << (8 * i)), "r"(c));
    return r;
}
DEVICE uint32_t shared4(uint32_t at) {
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at)); // volatile: stays behind the barrier
    return v;
}
DEVICE uint32_t word_of(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// c += a * b, a 16 x 16 and b 16 x 8 of int8.
DEVICE void mma_s8_k16(int32_t (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a0), "r"(a1), "r"(b));
}
DEVICE void scaled(int32_t (&sum)[4], const int32_t (&c)[4], uint32_t s0, uint32_t s1) {
    sum[0] += c[0] * int32_t(s0);
    sum[1] += c[1] * int32_t(s0);
    sum[2] += c[2] * int32_t(s1);
    sum[3] += c[3] * int32_t(s1);
}
// Sum over sub-blocks of (minimum x activation sum): `m0` and `m1` are the minima 4 t .. 4 t + 3 of rows g and g + 8.
DEVICE void minima(int32_t (&c)[4], uint32_t m0, uint32_t m1, uint2 sums) {
    mma_s8_k16(c, m0, m1, sums.y);
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] *= 128;
    mma_s8_k16(c, m0, m1, sums.x);
}

// What belongs to a row is loaded by one lane of the quad, for two tiles together: lane t has tile t / 2, row g + 8 (t % 2).
DEVICE uint32_t own_row() { return lane_id() / 4 + 8 * (lane_id() % 2); }
DEVICE uint32_t of_row(uint32_t v, int tile, int r) { return __shfl_sync(0xffffffffu, v, (lane_id() & ~3u) + 2 * tile + r); }

// Each format: Raw is a lane's share of two tiles (only loads, so that it can be in flight while the last ones are decoded),
// and `dot` adds two tiles times one block to sum[tile][row g, g + 8]; the tiles share the activation fragments.

// value = d / 8 * (2 ls + 1) * (+-grid)
struct Iq2 {
    static constexpr uint32_t BYTES = 1120;
    static constexpr bool MINS = false, TABLE = true, INTERLEAVED = false;
    struct Raw {
        uint4 row[2][2]; // [tile][r]
        uint32_t scales;
        uint16_t d;
    };
    DEVICE void load(Raw& w, const uint8_t* first, const uint8_t* second) {
        const uint32_t lane = lane_id();
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            w.row[0][r] = weight16(first + 512 * r + 16 * lane);
            w.row[1][r] = weight16(second + 512 * r + 16 * lane);
        }
        const uint8_t* own = lane % 4 < 2 ? first : second;
        w.scales = weight4(own + 1024 + 4 * own_row());
        w.d = weight2(own + 1088 + 2 * own_row());
    }
    // Selectors of a grid row: nibble e is the level (0, 1, 2 for 8, 25, 43) of element e.
    DEVICE uint32_t selectors(uint64_t grid) {
        const uint32_t lo = (uint32_t(grid) >> 4) & 0x03030303, hi = (uint32_t(grid >> 32) >> 4) & 0x03030303;
        const uint32_t a = lo | (lo >> 4), b = hi | (hi >> 4);
        return prmt(a, b, 0x6420);
    }
    // The levels lie in the free second word of the table: as a constant they would be moved to a register at every permute.
    static constexpr uint32_t PLUS = 8 | 25 << 8 | 43 << 16, MINUS = 0xf8 | 0xe7 << 8 | 0xd5 << 16;
    // Weights of group j: bit 2 of a selector nibble chooses the negative level.
    DEVICE void decode(uint32_t& first, uint32_t& second, const uint4& row, int j, uint32_t table, uint32_t plus) {
        const uint32_t at = add_byte(table, j < 4 ? row.x : row.y, j % 4, 12), bits = j < 4 ? row.z : row.w;
        const uint32_t sign = j % 4 == 0 ? bits * 4 : j % 4 == 1 ? bits * 2 : j % 4 == 2 ? bits : bits >> 1;
        const uint32_t s = shared4(at) | (sign & 0x44444444);
        first = prmt(plus, MINUS, s);
        second = prmt(plus, MINUS, s >> 16);
    }
    DEVICE void dot(const Raw& w, const Block<Iq2>& x, uint32_t table, float (&sum)[2][2]) {
        const uint32_t plus = shared4(table + 12 * lane_id() + 4); // by lane, else it would be a uniform register
        int32_t acc[2][4] = {};
        uint32_t scales[2][2];
#pragma unroll
        for (int i = 0; i < 4; ++i) scales[i / 2][i % 2] = of_row(w.scales, i / 2, i % 2);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const uint4 b = x.codes[j / 2][lane_id()];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t a[4], s[2];
                int32_t c[4] = {};
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    decode(a[r], a[2 + r], w.row[i][r], j, table, plus);
                    s[r] = add_byte(1, (j % 2 ? scales[i][r] >> 4 : scales[i][r]) & 0x0f0f0f0f, j / 2, 2);
                }
                mma_s8(c, a, j % 2 ? b.z : b.x, j % 2 ? b.w : b.y);
                scaled(acc[i], c, s[0], s[1]);
            }
        }
        const float s = x.scale[lane_id() % 4] * 0.125f;
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int r = 0; r < 2; ++r)
                sum[i][r] += (float(acc[i][2 * r]) + float(acc[i][2 * r + 1]) * LOW) * (f32_of(uint16_t(of_row(w.d, i, r))) * s);
    }
};

// value = d * scale * code - dmin * min, scale and min 4 bits per 16: scale x code is at most 45, a byte.
struct Q2k {
    static constexpr uint32_t BYTES = 1344;
    static constexpr bool MINS = true, TABLE = false, INTERLEAVED = false;
    struct Raw {
        uint4 row[2][2];       // [tile][r]
        uint32_t scales[2][2]; // sub-blocks 4 t .. 4 t + 3; the quad shares them by shuffles
        uint32_t d;            // d, dmin
    };
    DEVICE void load(Raw& w, const uint8_t* first, const uint8_t* second) {
        const uint32_t lane = lane_id();
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            w.row[0][r] = weight16(first + 512 * r + 16 * lane);
            w.row[1][r] = weight16(second + 512 * r + 16 * lane);
            w.scales[0][r] = weight4(first + 1024 + 128 * r + 4 * lane); // 16 bytes a row: lane 4 g + t has word t of row g
            w.scales[1][r] = weight4(second + 1024 + 128 * r + 4 * lane);
        }
        w.d = weight4((lane % 4 < 2 ? first : second) + 1280 + 4 * own_row());
    }
    DEVICE void dot(const Raw& w, const Block<Q2k>& x, uint32_t, float (&sum)[2][2]) {
        const uint32_t lane = lane_id(), t = lane % 4, quad = lane & ~3u;
        int32_t acc[2][4] = {};
#pragma unroll
        for (int p = 0; p < 4; ++p) { // groups 2 p and 2 p + 1
            const uint4 b = x.codes[p][lane];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t even[4], odd[4];
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const uint32_t scales = __shfl_sync(0xffffffffu, w.scales[i][r] & 0x0f0f0f0f, quad + p);
                    const uint32_t s0 = prmt(scales, 0, 0x4440 + t / 2), s1 = prmt(scales, 0, 0x4442 + t / 2);
                    const uint32_t codes = word_of(w.row[i][r], p);
                    even[r] = (codes & 0x03030303) * s0;
                    even[2 + r] = ((codes >> 2) & 0x03030303) * s0;
                    odd[r] = ((codes >> 4) & 0x03030303) * s1;
                    odd[2 + r] = ((codes >> 6) & 0x03030303) * s1;
                }
                mma_s8(acc[i], even, b.x, b.y);
                mma_s8(acc[i], odd, b.z, b.w);
            }
        }
        const float s = x.scale[t] * LOW;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int32_t m[4] = {};
            minima(m, (w.scales[i][0] >> 4) & 0x0f0f0f0f, (w.scales[i][1] >> 4) & 0x0f0f0f0f, x.sums[lane]);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float product = float(acc[i][2 * r] * 254 + acc[i][2 * r + 1]);
                const float least = float(m[2 * r] * 254 + m[2 * r + 1]);
                const uint32_t d = of_row(w.d, i, r);
                sum[i][r] += (f16_lo(d) * product - f16_hi(d) * least) * s;
            }
        }
    }
};

// value = d * scale * code - dmin * min, scale and min 6 bits per 32.
struct Q4k {
    static constexpr uint32_t BYTES = 2304;
    static constexpr bool MINS = true, TABLE = false, INTERLEAVED = false;
    struct Raw {
        uint4 row[2][4]; // [tile][2 r + half of the groups]
        uint32_t packed[3], d;
    };
    DEVICE void load(Raw& w, const uint8_t* first, const uint8_t* second) {
        const uint32_t lane = lane_id();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            w.row[0][i] = weight16(first + 512 * i + 16 * lane);
            w.row[1][i] = weight16(second + 512 * i + 16 * lane);
        }
        const uint8_t* own = lane % 4 < 2 ? first : second;
#pragma unroll
        for (int i = 0; i < 3; ++i) w.packed[i] = weight4(own + 2048 + 12 * own_row() + 4 * i);
        w.d = weight4(own + 2240 + 4 * own_row());
    }
    DEVICE uint32_t scales(const uint32_t (&p)[3], int half) {
        return half ? (p[2] & 0x0f0f0f0f) | ((p[0] >> 2) & 0x30303030) : p[0] & 0x3f3f3f3f;
    }
    DEVICE uint32_t mins(const uint32_t (&p)[3], int half) {
        return half ? ((p[2] >> 4) & 0x0f0f0f0f) | ((p[1] >> 2) & 0x30303030) : p[1] & 0x3f3f3f3f;
    }
    // Minima of groups 2 t, 2 t, 2 t + 1, 2 t + 1: the sub-blocks 4 t .. 4 t + 3.
    DEVICE uint32_t four_mins(const Raw& w, int i, int r) {
        const uint32_t low = of_row(mins(w.packed, 0), i, r), high = of_row(mins(w.packed, 1), i, r);
        return prmt(lane_id() % 4 < 2 ? low : high, 0, lane_id() % 2 ? 0x3322 : 0x1100);
    }
    DEVICE void dot(const Raw& w, const Block<Q4k>& x, uint32_t, float (&sum)[2][2]) {
        const uint32_t lane = lane_id(), t = lane % 4;
        int32_t acc[2][4] = {};
        uint32_t four[2][2]; // scales of half of the groups
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const uint4 b = x.codes[j / 2][lane];
            if (j % 4 == 0)
#pragma unroll
                for (int i = 0; i < 4; ++i) four[i / 2][i % 2] = of_row(scales(w.packed, j / 4), i / 2, i % 2);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t a[4], s[2];
                int32_t c[4] = {};
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const uint32_t codes = word_of(w.row[i][2 * r + j / 4], j % 4);
                    a[r] = codes & 0x0f0f0f0f;
                    a[2 + r] = (codes >> 4) & 0x0f0f0f0f;
                    s[r] = byte_of(four[i][r], j % 4);
                }
                mma_s8(c, a, j % 2 ? b.z : b.x, j % 2 ? b.w : b.y);
                scaled(acc[i], c, s[0], s[1]);
            }
        }
        const float s = x.scale[t];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int32_t m[4] = {};
            minima(m, four_mins(w, i, 0), four_mins(w, i, 1), x.sums[lane]);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float product = float(acc[i][2 * r]) + float(acc[i][2 * r + 1]) * LOW;
                const float least = float(m[2 * r] * 254 + m[2 * r + 1]) * LOW;
                const uint32_t d = of_row(w.d, i, r);
                sum[i][r] += (f16_lo(d) * product - f16_hi(d) * least) * s;
            }
        }
    }
};

// value = 2^(e - 127) / 2 * (0, 1, 2, 3, 4, 6, 8, 12 and their negatives), e per 32.
// A permute by a nibble with bit 3 set repeats the sign of the byte. So one permute gives (value + 1 or 0 | 0) for codes
// (positive | negative), one with bit 3 flipped (-1 or 0 | value): two mma, one after the other, add them up.
// Nibbles come out as elements 0, 4, 1, 5 and 2, 6, 3, 7: activations are interleaved alike.
struct Mxfp4 {
    static constexpr uint32_t BYTES = 2176;
    static constexpr bool MINS = false, TABLE = false, INTERLEAVED = true;
    struct Raw {
        uint4 row[2][4]; // [tile][2 r + half of the groups]
        uint32_t exponents[2];
    };
    DEVICE void load(Raw& w, const uint8_t* first, const uint8_t* second) {
        const uint32_t lane = lane_id();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            w.row[0][i] = weight16(first + 512 * i + 16 * lane);
            w.row[1][i] = weight16(second + 512 * i + 16 * lane);
        }
        const uint8_t* own = (lane % 4 < 2 ? first : second) + 2048 + 8 * own_row();
        w.exponents[0] = weight4(own);
        w.exponents[1] = weight4(own + 4);
    }
    DEVICE void dot(const Raw& w, const Block<Mxfp4>& x, uint32_t, float (&sum)[2][2]) {
        constexpr uint32_t PLUS0 = 0x04030200, PLUS1 = 0x0d090705, MINUS0 = 0xfdfeff00, MINUS1 = 0xf4f8fafc;
        float part[2][2] = {};
        uint32_t four[2][2]; // exponents of half of the groups
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const uint4 b = x.codes[j / 2][lane_id()];
            if (j % 4 == 0)
#pragma unroll
                for (int i = 0; i < 4; ++i) four[i / 2][i % 2] = of_row(w.exponents[j / 4], i / 2, i % 2);
            const uint32_t b0 = j % 2 ? b.z : b.x, b1 = j % 2 ? b.w : b.y;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                uint32_t plus[4], minus[4];
                int32_t c[4] = {};
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const uint32_t codes = word_of(w.row[i][2 * r + j / 4], j % 4), flipped = codes ^ 0x88888888;
                    plus[r] = prmt(PLUS0, PLUS1, codes);
                    plus[2 + r] = prmt(PLUS0, PLUS1, codes >> 16);
                    minus[r] = prmt(MINUS0, MINUS1, flipped);
                    minus[2 + r] = prmt(MINUS0, MINUS1, flipped >> 16);
                }
                mma_s8(c, plus, b0, b1);
                mma_s8(c, minus, b0, b1);
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const uint32_t top = prmt(four[i][r], 0, 0x0444 + ((j % 4) << 12));
                    const float e = __uint_as_float(max(top >> 1, 1u << 22)); // exponent 0 means 2^-127
                    part[i][r] += e * float(c[2 * r] * 254 + c[2 * r + 1]);
                }
            }
        }
        const float s = x.scale[lane_id() % 4] * (0.5f * LOW);
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int r = 0; r < 2; ++r) sum[i][r] += part[i][r] * s;
    }
};

// ---- activations to int8

DEVICE uint32_t pack4(int a, int b, int c, int d) { return prmt(prmt(a, b, 0x0040), prmt(c, d, 0x0040), 0x5410); }

// One warp: token `token` (0..3) of a block from eight values a lane, k = 8 lane .. 8 lane + 7.
template <class F> DEVICE void quantise(Block<F>& block, uint32_t token, const float4& first, const float4& second) {
    const float v[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
    const uint32_t lane = lane_id(), group = lane / 4, t = lane % 4;
    float most = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) most = fmaxf(most, fabsf(v[i]));
    most = warp_max(most);
    const float inverse = most > 0 ? 127.f / most : 0.f;
    int h[8], l[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float y = __fmul_rn(v[i], inverse);
        h[i] = __float2int_rn(y);
        l[i] = __float2int_rn((y - float(h[i])) * 254.f);
    }
    if (lane == 0) block.scale[token] = most * (1.f / 127.f);
#pragma unroll
    for (int part = 0; part < 2; ++part) { // codes, remainders
        const int(&q)[8] = part ? l : h;
        const uint32_t column = 2 * token + part;
        uint2 w = {pack4(q[0], q[1], q[2], q[3]), pack4(q[4], q[5], q[6], q[7])};
        if (F::MINS) {
            int sum = q[0] + q[1] + q[2] + q[3] + q[4] + q[5] + q[6] + q[7];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            const int high = (sum + 64) >> 7;
            const uint32_t sub = lane / 2;
            int8_t* at = reinterpret_cast<int8_t*>(&block.sums[4 * column + sub / 4]) + sub % 4;
            if (lane % 2) at[4] = int8_t(high);
            else at[0] = int8_t(sum - 128 * high);
        }
        if (F::INTERLEAVED) w = {prmt(w.x, w.y, 0x5140), prmt(w.x, w.y, 0x7362)};
        reinterpret_cast<uint2*>(&block.codes[group / 2][4 * column + t])[group % 2] = w;
    }
}
