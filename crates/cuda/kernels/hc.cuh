// What the post step of a sublayer needs, from the products of its streams: a thread's work that takes longer than the
// collapse. Nobody reads it before the sublayer's end, so a recorded step leaves it to a CTA of a later, longer kernel.
#pragma once
#include "common.cuh"

struct MixArgs {
    const float* m;     // scaled products of each row, [rows][PARTIAL]: pre, post, matrix
    const float* scale; // [3]
    const float* base;  // [HC + MIX]
    float* mix;         // [rows][MIX]
    uint32_t sinkhorn_iters;
    float hc_eps;
};
static_assert(sizeof(MixArgs) == 40, "mirrored in hc.rs");

constexpr int PARTIAL = 32; // floats of a row's products, and of a part's

DEVICE float reciprocal(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
// Softmax over destinations, then alternating normalisation that ends on columns; c [source][destination].
DEVICE void sinkhorn(float (&c)[HC * HC], uint32_t iterations, float eps) {
#pragma unroll
    for (int a = 0; a < HC; ++a) {
        float* r = c + a * HC;
        const float top = fmaxf(fmaxf(r[0], r[1]), fmaxf(r[2], r[3]));
#pragma unroll
        for (int b = 0; b < HC; ++b) r[b] = expf(r[b] - top);
        const float inverse = reciprocal((r[0] + r[1]) + (r[2] + r[3]));
#pragma unroll
        for (int b = 0; b < HC; ++b) r[b] = r[b] * inverse + eps;
    }
    for (uint32_t i = 0; i < iterations; ++i) {
        if (i > 0) {
#pragma unroll
            for (int a = 0; a < HC; ++a) {
                float* r = c + a * HC;
                const float inverse = reciprocal((r[0] + r[1]) + (r[2] + r[3]) + eps);
#pragma unroll
                for (int b = 0; b < HC; ++b) r[b] *= inverse;
            }
        }
#pragma unroll
        for (int b = 0; b < HC; ++b) {
            const float inverse = reciprocal((c[b] + c[HC + b]) + (c[2 * HC + b] + c[3 * HC + b]) + eps);
#pragma unroll
            for (int a = 0; a < HC; ++a) c[a * HC + b] *= inverse;
        }
    }
}

// Post weights and Sinkhorn matrix of a row, by one thread. Not through the first-level cache: what it holds may be older.
DEVICE void write_mix(const MixArgs& a, uint32_t row) {
    const float4* from = reinterpret_cast<const float4*>(a.m + row * PARTIAL + HC);
    float m[MIX], c[HC * HC];
#pragma unroll
    for (int i = 0; i < MIX / 4; ++i) {
        const float4 v = __ldcg(from + i);
        m[4 * i] = v.x, m[4 * i + 1] = v.y, m[4 * i + 2] = v.z, m[4 * i + 3] = v.w;
    }
    const float* base = a.base + HC;
#pragma unroll
    for (int i = 0; i < HC * HC; ++i) c[i] = m[HC + i] * a.scale[2] + base[HC + i];
    sinkhorn(c, a.sinkhorn_iters, a.hc_eps);
    float* mix = a.mix + size_t(row) * MIX;
#pragma unroll
    for (int i = 0; i < HC; ++i) mix[i] = 2.f * sigmoid(m[i] * a.scale[1] + base[i]);
#pragma unroll
    for (int i = 0; i < HC * HC; ++i) mix[HC + i] = c[i];
}
