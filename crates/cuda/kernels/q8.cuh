// Products of Q8_0 and F16 tiles with activations split in two f16: a fragment of weights, a fragment of values and remainders,
// and their sum for one or four rows.
#pragma once
#include "common.cuh"

constexpr int Q8_PIECE = 1088; // bytes of a tile of 16 x 64

// Warps that share the inputs of a product: every product of one K is summed alike, whichever kernel makes it.
template <int K> constexpr int ALONG_K = K <= 1024 ? 4 : 16;

// Eight values as f16 hi and lo.
DEVICE void split8_of(const float (&f)[8], uint4& hi, uint4& lo) {
    uint16_t h[8], l[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) f16_split(f[j], h[j], l[j]);
    hi = {h[0] | uint32_t(h[1]) << 16, h[2] | uint32_t(h[3]) << 16, h[4] | uint32_t(h[5]) << 16, h[6] | uint32_t(h[7]) << 16};
    lo = {l[0] | uint32_t(l[1]) << 16, l[2] | uint32_t(l[3]) << 16, l[4] | uint32_t(l[5]) << 16, l[6] | uint32_t(l[7]) << 16};
}
// The same of memory; not through the first-level cache: what it holds may be older.
DEVICE void split8(const float* from, uint4& hi, uint4& lo) {
    const float4 v[2] = {__ldcg(reinterpret_cast<const float4*>(from)), __ldcg(reinterpret_cast<const float4*>(from) + 1)};
    const float f[8] = {v[0].x, v[0].y, v[0].z, v[0].w, v[1].x, v[1].y, v[1].z, v[1].w};
    split8_of(f, hi, lo);
}

// Weights of one tile's or half tile's 32-group as a fragment, and its rows' scales.
struct Fragment {
    uint32_t a[2][4];
    float scale[2];
};
DEVICE uint32_t code_pair(uint32_t codes, uint32_t selector) { return hsub2(prmt(codes, 0x64646464u, selector), 0x64806480u); }
DEVICE void decode_q8(Fragment& f, const uint4& w, uint2 scales, int q) {
    f.a[0][0] = code_pair(w.x, 0x4140), f.a[0][1] = code_pair(w.z, 0x4140);
    f.a[0][2] = code_pair(w.x, 0x4342), f.a[0][3] = code_pair(w.z, 0x4342);
    f.a[1][0] = code_pair(w.y, 0x4140), f.a[1][1] = code_pair(w.w, 0x4140);
    f.a[1][2] = code_pair(w.y, 0x4342), f.a[1][3] = code_pair(w.w, 0x4342);
    f.scale[0] = q ? f16_hi(scales.x) : f16_lo(scales.x);
    f.scale[1] = q ? f16_hi(scales.y) : f16_lo(scales.y);
}
DEVICE void decode_f16(Fragment& f, const uint4& low, const uint4& high) {
    f.a[0][0] = low.x, f.a[0][1] = high.x, f.a[0][2] = low.y, f.a[0][3] = high.y;
    f.a[1][0] = low.z, f.a[1][1] = high.z, f.a[1][2] = low.w, f.a[1][3] = high.w;
    f.scale[0] = f.scale[1] = 1.f;
}
DEVICE void add(float (&sum)[2], const Fragment& f, const uint4& b) {
    float c[4] = {0, 0, 0, 0};
    mma_f16(c, f.a[0], b.x, b.y);
    mma_f16(c, f.a[1], b.z, b.w);
    sum[0] += f.scale[0] * (c[0] + c[1]);
    sum[1] += f.scale[1] * (c[2] + c[3]);
}
template <int LANES> DEVICE uint4 x_at(const uint4* x, uint32_t lane) {
    uint4 b = {0, 0, 0, 0};
    if (LANES == 32 || lane < LANES) b = x[lane];
    return b;
}
