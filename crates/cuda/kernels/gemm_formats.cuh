// Expert formats as operand A of gemm.cuh: tiles of 16 rows x 256 k (CONTRACT "weight tiles"); of a row a lane (4 g + t) owns
// k = 8 t .. 8 t + 7 of each group of 32. A format loads what a lane needs of one row for 128 k (`Row`: half `part` of the tile, row g + 8 r)
// and makes eight f16 of group j (0..3) of it: words 0..3 are its elements (0,1) (2,3) (4,5) (6,7).
// Values are taken times 1 / UNSCALE, so that products with small scales do not become subnormal; the sum is multiplied back.
#pragma once
#include "gemm.cuh"

// Fragments of a warp's 16 rows: rows 0..7 and 8..15 of one block, or (PAIRED) 8 rows of gate over the same 8 of up.
template <class Format, bool PAIRED> struct Halves {
    static constexpr uint32_t STEPS = 2; // of 128 k in a slot
    struct Raw {
        typename Format::Row low, high;
    };
    DEVICE Raw load(const Place& place, const uint8_t* slot, int mb, uint32_t part) {
        const uint32_t at = (place.warp / 4 * 2 + mb) * 4 + place.warp % 4; // of 16 sets of 16 rows
        if (PAIRED) {
            const uint8_t* gate = slot + at / 2 * Format::TILE;
            return Raw{Format::load(place, gate, at % 2, part), Format::load(place, gate + 8 * Format::TILE, at % 2, part)};
        }
        return Raw{Format::load(place, slot + at * Format::TILE, 0, part), Format::load(place, slot + at * Format::TILE, 1, part)};
    }
    DEVICE void decode(const Place&, const Raw& raw, int k, uint32_t (&a)[4][4]) {
#pragma unroll
        for (int q = 0; q < 2; ++q) {
            uint32_t low[4], high[4];
            Format::eight(raw.low, 2 * k + q, low);
            Format::eight(raw.high, 2 * k + q, high);
            a[2 * q][0] = low[0], a[2 * q][1] = high[0], a[2 * q][2] = low[1], a[2 * q][3] = high[1];
            a[2 * q + 1][0] = low[2], a[2 * q + 1][1] = high[2], a[2 * q + 1][2] = low[3], a[2 * q + 1][3] = high[3];
        }
    }
};

constexpr uint32_t MINUS_1024 = 0xe400e400, TIMES_256 = 0x5c005c00;
// d * code for a small code, rounded once: (1024 + code) d - 1024 d. |d| < 64.
DEVICE uint32_t scaled(uint32_t biased_code, uint32_t d) { return hfma2(biased_code, d, hmul2(d, MINUS_1024)); }

// d (0.5 + ls) / 4 * +-grid, grid 8, 25 or 43. Of the table only the levels matter: eight 4-bit selectors a row, whose bit 2 is the sign.
struct Iq2 {
    static constexpr uint32_t TILE = 1120;
    static constexpr float UNSCALE = 1.f / 256;
    struct Row {
        uint32_t index, sign, scales, d; // bytes; nibble = element, bit = group; nibbles (of groups 0..3); 32 d twice
    };
    DEVICE uint32_t* selectors() {
        __shared__ uint32_t table[256];
        return table;
    }
    DEVICE void prepare(const uint64_t* grid) {
        for (uint32_t i = threadIdx.x; i < 256; i += blockDim.x) {
            const uint64_t row = grid[i];
            uint32_t w = 0;
            for (int e = 0; e < 8; ++e) w |= uint32_t(row >> (8 * e + 4) & 3) << (4 * e); // 0x08, 0x19, 0x2b
            selectors()[i] = w;
        }
    }
    DEVICE Row load(const Place& at, const uint8_t* tile, uint32_t r, uint32_t part) {
        const uint4 w = *reinterpret_cast<const uint4*>(tile + 512 * r + 16 * at.lane);
        const uint32_t scales = *reinterpret_cast<const uint32_t*>(tile + 1024 + 4 * (at.g + 8 * r)) >> (16 * part);
        const uint32_t d = *reinterpret_cast<const uint16_t*>(tile + 1088 + 2 * (at.g + 8 * r));
        return Row{part ? w.y : w.x, part ? w.w : w.z, scales, hmul2(d * 0x10001, 0x50005000)};
    }
    DEVICE void eight(const Row& row, int j, uint32_t (&f)[4]) {
        const uint32_t at = j ? row.index >> (8 * j - 2) : row.index << 2;
        uint32_t select = *reinterpret_cast<const uint32_t*>(reinterpret_cast<const uint8_t*>(selectors()) + (at & 0x3fc));
        select ^= (j < 2 ? row.sign << (2 - j) : row.sign >> (j - 2)) & 0x44444444;
        // (1024 + 2 ls + 1) twice, then times 32 d.
        const uint32_t odd = (j ? row.scales >> (4 * j - 1) : row.scales << 1) & 0x1e;
        const uint32_t scale = scaled(odd * 0x10001 + 0x64016401, row.d);
        // Bytes 128 +- level; the sign bit of a selector's nibble chooses the second word.
        const uint32_t first = prmt(0x00ab9988, 0x00556778, select), second = prmt(0x00ab9988, 0x00556778, select >> 16);
        f[0] = hmul2(hsub2(biased<false>(first), 0x64806480), scale);
        f[1] = hmul2(hsub2(biased<true>(first), 0x64806480), scale);
        f[2] = hmul2(hsub2(biased<false>(second), 0x64806480), scale);
        f[3] = hmul2(hsub2(biased<true>(second), 0x64806480), scale);
    }
};

// d sc q - dmin mn by 16 k: q 2 bits, sc and mn 4.
struct Q2K {
    static constexpr uint32_t TILE = 1344;
    static constexpr float UNSCALE = 1.f / 256;
    struct Row {
        uint32_t codes[2], scales, mins, d, dmin; // of groups (0, 1) and (2, 3); a byte of each group; 256 d and -256 dmin, twice
    };
    DEVICE void prepare(const uint64_t*) {}
    DEVICE Row load(const Place& at, const uint8_t* tile, uint32_t r, uint32_t part) {
        const uint2 w = *reinterpret_cast<const uint2*>(tile + 512 * r + 16 * at.lane + 8 * part);
        const uint2 s = *reinterpret_cast<const uint2*>(tile + 1024 + 16 * (at.g + 8 * r) + 8 * part);
        const uint32_t d = *reinterpret_cast<const uint32_t*>(tile + 1280 + 4 * (at.g + 8 * r));
        const uint32_t mine = prmt(s.x, s.y, at.lane & 2 ? 0x7531 : 0x6420); // the 16 k of this lane in each group
        return Row{{w.x, w.y},
                   mine & 0x0f0f0f0f,
                   (mine >> 4) & 0x0f0f0f0f,
                   hmul2(prmt(d, 0, 0x1010), TIMES_256),
                   hmul2(prmt(d, 0, 0x3232), TIMES_256 | 0x80008000)};
    }
    DEVICE void eight(const Row& row, int j, uint32_t (&f)[4]) {
        const uint32_t choose = 0x7070 | j | j << 8; // byte j with 0x64 above, twice
        const uint32_t scale = scaled(prmt(row.scales, BIAS, choose), row.d), min = scaled(prmt(row.mins, BIAS, choose), row.dmin);
        const uint32_t w = row.codes[j / 2], low = prmt(w, 0, 0x4140), high = prmt(w, 0, 0x4342);
        // Field 2 (j % 2) + h of a byte, in place: 1024 + q 4^field.
        f[0] = code(low, j % 2 * 2, scale, min), f[1] = code(high, j % 2 * 2, scale, min);
        f[2] = code(low, j % 2 * 2 + 1, scale, min), f[3] = code(high, j % 2 * 2 + 1, scale, min);
    }
    DEVICE uint32_t code(uint32_t pair, int field, uint32_t scale, uint32_t min) {
        const uint32_t u = (pair & (0x00030003u << (2 * field))) | BIAS;
        const uint32_t shrink = (15u - 2 * field) << 10; // 4^-field
        const uint32_t minus = 0x8000 | (25u - 2 * field) << 10;
        return hfma2(hfma2(u, shrink * 0x10001, minus * 0x10001), scale, min);
    }
};

// Codes of Q4_K and MXFP4: byte e of a group's word is element e in its low nibble, element 4 + e in its high one.
// d sc q - dmin mn by 32 k: q 4 bits, sc and mn 6.
struct Q4K {
    static constexpr uint32_t TILE = 2304;
    static constexpr float UNSCALE = 1.f / 256;
    struct Row {
        uint32_t codes[4], scales, mins, d; // {256 d, -256 dmin}
    };
    DEVICE void prepare(const uint64_t*) {}
    DEVICE Row load(const Place& at, const uint8_t* tile, uint32_t r, uint32_t part) {
        const uint4 w = *reinterpret_cast<const uint4*>(tile + 1024 * r + 512 * part + 16 * at.lane);
        const uint32_t* s = reinterpret_cast<const uint32_t*>(tile + 2048 + 12 * (at.g + 8 * r));
        const uint32_t d = *reinterpret_cast<const uint32_t*>(tile + 2240 + 4 * (at.g + 8 * r));
        const uint32_t high = s[2];
        const uint32_t scales = part ? (high & 0x0f0f0f0f) | (s[0] >> 2 & 0x30303030) : s[0] & 0x3f3f3f3f;
        const uint32_t mins = part ? (high >> 4 & 0x0f0f0f0f) | (s[1] >> 2 & 0x30303030) : s[1] & 0x3f3f3f3f;
        return Row{{w.x, w.y, w.z, w.w},
                   scales,
                   mins,
                   hmul2(d, 0xdc005c00)};
    }
    DEVICE void eight(const Row& row, int j, uint32_t (&f)[4]) {
        const uint32_t choose = 0x4400 | j * 0x1111; // the scale's byte twice, then the minimum's
        const uint32_t both = scaled((prmt(row.scales, row.mins, choose) & 0x00ff00ff) | BIAS, row.d);
        const uint32_t scale = prmt(both, 0, 0x1010), min = prmt(both, 0, 0x3232);
        const uint32_t low = prmt(row.codes[j], 0, 0x4140), high = prmt(row.codes[j], 0, 0x4342);
        f[0] = hfma2(hsub2((low & 0x000f000f) | BIAS, BIAS), scale, min);
        f[1] = hfma2(hsub2((high & 0x000f000f) | BIAS, BIAS), scale, min);
        f[2] = hfma2(hfma2((low & 0x00f000f0) | BIAS, 0x2c002c00, 0xd400d400), scale, min); // 1024 + 16 q
        f[3] = hfma2(hfma2((high & 0x00f000f0) | BIAS, 0x2c002c00, 0xd400d400), scale, min);
    }
};

// E2M1 times a power of two by 32 k. The three bits below the sign, at the top of an f16's mantissa and the foot of its exponent,
// are the value times 2^-14, subnormal ones too. Exact for results from 2^-24 on; values below 2^15 in magnitude are expected.
struct Mxfp4 {
    static constexpr uint32_t TILE = 2176;
    static constexpr float UNSCALE = 1;
    struct Row {
        uint32_t codes[4], exponents;
    };
    DEVICE void prepare(const uint64_t*) {}
    DEVICE Row load(const Place& at, const uint8_t* tile, uint32_t r, uint32_t part) {
        const uint4 w = *reinterpret_cast<const uint4*>(tile + 1024 * r + 512 * part + 16 * at.lane);
        return Row{{w.x, w.y, w.z, w.w}, *reinterpret_cast<const uint32_t*>(tile + 2048 + 8 * (at.g + 8 * r) + 4 * part)};
    }
    DEVICE void eight(const Row& row, int j, uint32_t (&f)[4]) {
        const int e = min(int(row.exponents >> (8 * j) & 0xff), 128) - 113; // 2^(e - 127) * 2^14
        const uint32_t scale = uint32_t(f16_of(exp2_of(max(e, -30)))) * 0x10001;
        const uint32_t low = prmt(row.codes[j], 0, 0x1404), high = prmt(row.codes[j], 0, 0x3424); // codes in the upper byte of a half
        f[0] = code(low << 4, scale), f[1] = code(high << 4, scale), f[2] = code(low, scale), f[3] = code(high, scale);
    }
    DEVICE uint32_t code(uint32_t nibble, uint32_t scale) {
        return hmul2((nibble & 0x80008000) | (nibble >> 3 & 0x0e000e00), scale);
    }
};
