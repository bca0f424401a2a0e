// query: what follows the products of the low-rank query: heads are normed and rotated, indexer heads rotated, transformed and
// rounded. In place.   A warp takes a head; with an indexer N_INDEX_HEAD more follow.
#pragma once
#include "encode.cuh"

struct QueryArgs {
    const StepRow* step;
    const float* frequencies;
    float* heads; // [rows][N_HEAD][HEAD]
    float* index; // [rows][N_INDEX_HEAD][INDEX], or null
    float rms_eps;
    uint32_t pad;
};
static_assert(sizeof(QueryArgs) == 40, "mirrored in query.rs");

// Waits for the products itself.
DEVICE void finish_head(const QueryArgs& a, uint32_t row, uint32_t head) {
    const uint32_t lane = lane_id(), pos = a.step[row].pos;
    if (head < N_HEAD) {
        float* q = a.heads + (size_t(row) * N_HEAD + head) * HEAD;
        const Rotation rotation = rotation4(384 + 4 * lane, HEAD, a.frequencies, pos);
        pdl_enter();
        float v[4][4], sum = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float4 x = *reinterpret_cast<const float4*>(q + 128 * i + 4 * lane);
            v[i][0] = x.x, v[i][1] = x.y, v[i][2] = x.z, v[i][3] = x.w;
            sum += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
        }
        const float scale = rsqrtf(warp_sum(sum) / HEAD + a.rms_eps);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            for (int j = 0; j < 4; ++j) v[i][j] *= scale;
            if (i == 3) rotate4(v[i], rotation);
            *reinterpret_cast<float4*>(q + 128 * i + 4 * lane) = float4{v[i][0], v[i][1], v[i][2], v[i][3]};
        }
        return;
    }
    const Rotation rotation = rotation4(4 * lane, INDEX, a.frequencies, pos);
    pdl_enter();
    head -= N_HEAD;
    if (a.index == nullptr || head >= N_INDEX_HEAD) return;
    float* q = a.index + (size_t(row) * N_INDEX_HEAD + head) * INDEX + 4 * lane;
    const float4 x = *reinterpret_cast<const float4*>(q);
    float v[4] = {x.x, x.y, x.z, x.w};
    rotate4(v, rotation);
    hadamard4(v);
    round_e2m1(v);
    *reinterpret_cast<float4*>(q) = float4{v[0], v[1], v[2], v[3]};
}
