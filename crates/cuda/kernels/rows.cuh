// Codes of cache rows as f16 (model.md 2.3, 2.4): exact unless a block's scale leaves what f16 holds.
#pragma once
#include "common.cuh"

// 2^(byte - 127) twice, as f16; what f16 cannot hold becomes 0, or 2^15.
DEVICE uint32_t scale_pair(uint32_t byte) {
    const uint32_t h = f16_of(fminf(exp2_of(int(byte) - 127), 32768.f));
    return h | h << 16;
}
// Eight codes as eight f16.
DEVICE void decode8(uint2 codes, uint32_t scale, uint32_t* out) {
    e4m3_to_f16(codes.x, out[0], out[1]);
    e4m3_to_f16(codes.y, out[2], out[3]);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = hmul2(out[i], scale);
}
// Eight E2M1 codes, element i in bits 4 i: pair i of the result is elements i and i + 4. The low bits of an f16 exponent and the
// top bit of its fraction are such a code's magnitude, 2^-14 times too small.
DEVICE void decode_e2m1(uint32_t codes, uint32_t scale, uint32_t (&out)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint32_t top = codes << (12 - 4 * i);
        out[i] = hmul2(hmul2(((top >> 3) & 0x0e000e00u) | (top & 0x80008000u), 0x74007400u), scale);
    }
}
