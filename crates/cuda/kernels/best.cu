// best: the id of the highest logit of a row, the lowest id on ties; of a row with a logit that is not finite the lowest id of
// those. Both are the largest of 64-bit candidates: in the high half the logit as a number that grows with it, all ones if it is
// not finite, in the low half the id from above. Zero is below them all.
//   best_part: the best of a part of a row: of every gridDim.x-th run of 256 ids.   grid: (parts, rows), 256 threads
//   best_row: the best of the parts, with its logit.                                grid: rows, 32 threads
#include "common.cuh"

struct BestArgs {
    const float* logits;  // [rows][n_vocab]
    uint64_t* candidates; // [rows][parts]
    uint2* best;          // [rows] id, bits of the logit
    uint32_t n_vocab, parts;
};
static_assert(sizeof(BestArgs) == 32, "mirrored in best.rs");

constexpr uint32_t BATCH = 16; // logits that a thread loads at once

DEVICE uint64_t candidate(float logit, uint32_t id) {
    const uint32_t bits = __float_as_uint(logit), magnitude = bits & 0x7fffffff;
    uint32_t key = magnitude != bits ? 0x80000000u - magnitude : 0x80000000u + magnitude; // both zeros are 2^31
    if (magnitude >= 0x7f800000) key = 0xffffffffu;
    return uint64_t(key) << 32 | (0xffffffffu - id);
}

DEVICE uint64_t warp_best(uint64_t v) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) {
        const uint64_t other = __shfl_xor_sync(0xffffffffu, v, d);
        v = other > v ? other : v;
    }
    return v;
}

extern "C" __global__ void best_part(const BestArgs a) {
    __shared__ uint64_t warps[8];
    pdl_enter();
    const float* logits = a.logits + size_t(blockIdx.y) * a.n_vocab;
    uint64_t best = 0;
    const uint32_t stride = gridDim.x * 256, last = a.n_vocab - 1;
    for (uint32_t first = blockIdx.x * 256 + threadIdx.x; first <= last; first += BATCH * stride) {
        // All loads of a batch are on their way at once; past the end the last logit is looked at again, which changes nothing.
        float logit[BATCH];
#pragma unroll
        for (uint32_t i = 0; i < BATCH; ++i) logit[i] = logits[min(first + i * stride, last)];
#pragma unroll
        for (uint32_t i = 0; i < BATCH; ++i) {
            const uint64_t other = candidate(logit[i], min(first + i * stride, last));
            best = other > best ? other : best;
        }
    }
    best = warp_best(best);
    if (lane_id() == 0) warps[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    best = warp_best(lane_id() < 8 ? warps[lane_id()] : 0);
    if (threadIdx.x == 0) a.candidates[blockIdx.y * a.parts + blockIdx.x] = best;
}

extern "C" __global__ void best_row(const BestArgs a) {
    pdl_enter();
    uint64_t best = 0;
    for (uint32_t part = threadIdx.x; part < a.parts; part += 32) {
        const uint64_t other = a.candidates[blockIdx.x * a.parts + part];
        best = other > best ? other : best;
    }
    const uint32_t id = 0xffffffffu - uint32_t(warp_best(best));
    if (threadIdx.x == 0) a.best[blockIdx.x] = make_uint2(id, __float_as_uint(a.logits[size_t(blockIdx.x) * a.n_vocab + id]));
}
