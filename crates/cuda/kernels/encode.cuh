// Cache rows as they are held (docs/model.md): a block of 128 threads, four neighbouring values a thread, encodes a row of 512;
// a warp, four values a lane, encodes an index row of 128.
#pragma once
#include "common.cuh"

// Sines and cosines for four neighbouring values, `at` the place of the first in a vector of `width`; they need no other kernel's
// results, so they can be had before the wait for them.
struct Rotation {
    float sine[2], cosine[2];
    bool tail; // the values lie in the part that is rotated
};
DEVICE Rotation rotation4(uint32_t at, uint32_t width, const float* frequencies, uint32_t pos) {
    Rotation r;
    r.tail = at >= width - ROT && at < width;
    if (r.tail)
#pragma unroll
        for (int i = 0; i < 2; ++i) rope_angle(frequencies[(at - (width - ROT)) / 2 + i], pos, r.sine[i], r.cosine[i]);
    return r;
}
// Rotates the pairs (v[0], v[1]), (v[2], v[3]).
DEVICE void rotate4(float (&v)[4], const Rotation& r) {
    if (!r.tail) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float x = v[2 * i], y = v[2 * i + 1];
        v[2 * i] = x * r.cosine[i] - y * r.sine[i];
        v[2 * i + 1] = x * r.sine[i] + y * r.cosine[i];
    }
}

// Rounds and stores values 4 threadIdx.x .. + 3 of a row: E4M3 codes and an exponent for each 64, then the tail as f16.
DEVICE void encode_row(const float (&v)[4], uint8_t* row) {
    const uint32_t at = 4 * threadIdx.x;
    float top = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
#pragma unroll
    for (int d = 8; d > 0; d >>= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, d)); // sixteen lanes: 64 values
    if (at < NOPE) {
        const int e = e4m3_exponent(top);
        const float inverse = exp2_of(-e);
        uint32_t codes = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) codes |= e4m3_code(v[i] * inverse) << (8 * i);
        *reinterpret_cast<uint32_t*>(row + at) = codes;
        if (at % 64 == 0) row[NOPE + at / 64] = uint8_t(e + 127);
    } else {
        uint32_t* tail = reinterpret_cast<uint32_t*>(row + NOPE + NOPE / 64 + 1 + 2 * (at - NOPE));
        tail[0] = f16x2_of(v[0], v[1]);
        tail[1] = f16x2_of(v[2], v[3]);
    }
}

// Orthonormal Walsh-Hadamard transform of 128 values, four a lane.
DEVICE void hadamard4(float (&v)[4]) {
    float a = v[0] + v[1], b = v[0] - v[1], c = v[2] + v[3], d = v[2] - v[3];
    v[0] = a + c, v[1] = b + d, v[2] = a - c, v[3] = b - d;
#pragma unroll
    for (uint32_t bit = 1; bit < 32; bit <<= 1) {
        const bool upper = lane_id() & bit;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float other = __shfl_xor_sync(0xffffffffu, v[i], bit);
            v[i] = upper ? other - v[i] : v[i] + other;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] *= 0.08838834764831845f; // 1 / sqrt(128)
}
// Exponent of the block of 32 that eight lanes hold.
DEVICE int e2m1_block_exponent(const float (&v)[4]) {
    float top = fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
#pragma unroll
    for (int d = 4; d > 0; d >>= 1) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, d));
    return e2m1_exponent(top);
}
// The round trip alone.
DEVICE void round_e2m1(float (&v)[4]) {
    const int e = e2m1_block_exponent(v);
    const float scale = exp2_of(e), inverse = exp2_of(-e);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = e2m1_value(e2m1_code(v[i] * inverse)) * scale;
}
DEVICE void encode_index_row(const float (&v)[4], uint8_t* row) {
    const int e = e2m1_block_exponent(v);
    const float inverse = exp2_of(-e);
    uint32_t codes = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) codes |= e2m1_code(v[i] * inverse) << (4 * i);
    const uint32_t at = 4 * lane_id();
    *reinterpret_cast<uint16_t*>(row + at / 2) = uint16_t(codes);
    if (at % 32 == 0) row[INDEX / 2 + at / 32] = uint8_t(e + 127);
}
