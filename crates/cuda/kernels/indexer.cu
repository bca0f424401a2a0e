// select: score(c) = sum_h w_h max(0, q_h . key_c) for every visible row, then the exact TOP_K of each query, ascending, ties to
// the lower row (model.md 7). Queries that see no more than TOP_K rows are left alone. Prefill scores in indexer_prefill.cu.
#include "indexer.cuh"

// grid (blocks of 256 keys, strided, rows), 256 threads: a warp scores 32 keys at a time, as rows of products whose columns are heads.
extern "C" __global__ __launch_bounds__(256, 2) void index_score(const SelectArgs a) {
    __shared__ uint4 heads[INDEX_TILES][4][32]; // [tile][word][lane]: both steps of a word
    __shared__ float weights[INDEX_HEADS];
    const uint32_t tid = threadIdx.x, warp = tid / 32, g = lane_id() / 4, t = lane_id() % 4, row = blockIdx.y;
    const uint32_t visible = candidates_of(a, row), slot = a.step[a.first_row + row].slot;
    pdl_enter();
    if (256 * blockIdx.x >= visible) return;
    const size_t query = size_t(a.first_row + row) * N_INDEX_HEAD;
    for (uint32_t i = tid; i < INDEX_TILES * 128; i += 256) {
        const uint32_t head = i / 128 * 8 + i % 32 / 4;
        float4 x = make_float4(0, 0, 0, 0), y = x;
        if (head < N_INDEX_HEAD) {
            const float4* from = reinterpret_cast<const float4*>(a.q + (query + head) * INDEX + 32 * (i % 4) + i % 128 / 32 * 8);
            x = from[0], y = from[1];
        }
        heads[i / 128][i % 128 / 32][i % 32] =
            make_uint4(f16x2_of(x.x, y.x), f16x2_of(x.y, y.y), f16x2_of(x.z, y.z), f16x2_of(x.w, y.w));
    }
    if (tid < INDEX_HEADS) weights[tid] = tid < N_INDEX_HEAD ? a.weights[query + tid] : 0.f;
    __syncthreads();
    for (uint32_t key = 256 * blockIdx.x + 32 * warp; key < visible; key += 256 * gridDim.x) {
        uint32_t f[2][8][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            const uint32_t low = key + 16 * m + g;
            load_keys(a.keys, slot, min(low, visible - 1), min(low + 8, visible - 1), f[m]);
        }
        float score[2][2] = {};
#pragma unroll 2
        for (uint32_t tile = 0; tile < INDEX_TILES; ++tile) {
            float c[2][4] = {};
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const uint4 b = heads[tile][j][lane_id()];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    mma_f16(c[m], f[m][2 * j], b.x, b.y);
                    mma_f16(c[m], f[m][2 * j + 1], b.z, b.w);
                }
            }
            const float2 w = *reinterpret_cast<const float2*>(&weights[8 * tile + 2 * t]);
#pragma unroll
            for (int m = 0; m < 2; ++m)
#pragma unroll
                for (int r = 0; r < 2; ++r)
                    score[m][r] = fmaf(w.y, fmaxf(c[m][2 * r + 1], 0.f), fmaf(w.x, fmaxf(c[m][2 * r], 0.f), score[m][r]));
        }
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                score[m][r] += __shfl_xor_sync(0xffffffffu, score[m][r], 1);
                score[m][r] += __shfl_xor_sync(0xffffffffu, score[m][r], 2);
            }
        const float mine = t == 0 ? score[0][0] : t == 1 ? score[0][1] : t == 2 ? score[1][0] : score[1][1];
        if (key + 8 * t + g < visible) a.scores[size_t(row) * a.stride + key + 8 * t + g] = mine;
    }
}

constexpr uint32_t PER_THREAD = 16, SLICE = 1024 * PER_THREAD;

// Scores as unsigned numbers of the same order, -0 below +0; none of a number is 0.
DEVICE uint32_t ordered(float x) {
    const uint32_t bits = __float_as_uint(x);
    return bits ^ (uint32_t(int32_t(bits) >> 31) | 0x80000000u);
}

// Sum over the block; `sums` alternates between two rows, so one barrier is enough.
DEVICE uint32_t block_count(uint32_t count, uint32_t (&sums)[32]) {
    count = __reduce_add_sync(0xffffffffu, count);
    if (lane_id() == 0) sums[threadIdx.x / 32] = count;
    __syncthreads();
    return __reduce_add_sync(0xffffffffu, lane_id() < blockDim.x / 32 ? sums[lane_id()] : 0);
}

// The `k` largest of the block's keys, a thread's 16 following those of the thread before, 0 where there is none: calls
// emit(place, i) for key i of this thread, places ascending with the keys' order. The k-th largest is found bit by bit.
template <class Emit> DEVICE void choose(const uint32_t (&keys)[PER_THREAD], uint32_t k, Emit emit) {
    __shared__ uint32_t sums[2][32], bounds[2][32], before[32];
    const uint32_t warp = threadIdx.x / 32, warps = blockDim.x / 32;
    uint32_t highest = 0, lowest = 0xffffffffu;
#pragma unroll
    for (uint32_t i = 0; i < PER_THREAD; ++i) {
        highest = max(highest, keys[i]);
        lowest = keys[i] ? min(lowest, keys[i]) : lowest;
    }
    highest = __reduce_max_sync(0xffffffffu, highest), lowest = __reduce_min_sync(0xffffffffu, lowest);
    if (lane_id() == 0) bounds[0][warp] = highest, bounds[1][warp] = lowest;
    __syncthreads();
    highest = __reduce_max_sync(0xffffffffu, lane_id() < warps ? bounds[0][lane_id()] : 0);
    lowest = __reduce_min_sync(0xffffffffu, lane_id() < warps ? bounds[1][lane_id()] : 0xffffffffu);
    // All keys share the bits above the highest one in which these two differ.
    uint32_t bit = highest == lowest ? 0 : 0x80000000u >> __clz(highest ^ lowest);
    uint32_t limit = bit ? highest & ~(2 * bit - 1) : highest;
    for (uint32_t pass = 0; bit; bit >>= 1, pass ^= 1) {
        const uint32_t higher = limit | bit;
        uint32_t count = 0;
#pragma unroll
        for (uint32_t i = 0; i < PER_THREAD; ++i) count += keys[i] >= higher;
        count = block_count(count, sums[pass]);
        if (count >= k) limit = higher;
        if (count == k) break;
    }
    uint32_t own = 0; // low half: above the limit; high half: equal to it
#pragma unroll
    for (uint32_t i = 0; i < PER_THREAD; ++i) own += keys[i] > limit ? 1u : keys[i] == limit ? 0x10000u : 0u;
    uint32_t scan = own;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        const uint32_t other = __shfl_up_sync(0xffffffffu, scan, d);
        if (lane_id() >= d) scan += other;
    }
    if (lane_id() == 31) before[warp] = scan;
    __syncthreads();
    const uint32_t others = lane_id() < warps ? before[lane_id()] : 0;
    const uint32_t start = __reduce_add_sync(0xffffffffu, lane_id() < warp ? others : 0) + scan - own;
    const uint32_t equals = k - (__reduce_add_sync(0xffffffffu, others) & 0xffff); // that are wanted, the first ones
    uint32_t above = start & 0xffff, equal = start >> 16;
#pragma unroll
    for (uint32_t i = 0; i < PER_THREAD; ++i) {
        if (keys[i] > limit) emit(above++ + min(equal, equals), i);
        if (keys[i] == limit && equal++ < equals) emit(above + equal - 1, i);
    }
}

// This thread's scores from `base` on, of which there are `count`.
DEVICE void load_scores(const float* scores, uint32_t count, uint32_t (&keys)[PER_THREAD]) {
#pragma unroll
    for (uint32_t i = 0; i < PER_THREAD; i += 4) {
        const uint32_t at = PER_THREAD * threadIdx.x + i;
        float4 x = make_float4(0, 0, 0, 0);
        if (at < count) x = *reinterpret_cast<const float4*>(scores + at);
        keys[i] = at < count ? ordered(x.x) : 0, keys[i + 1] = at + 1 < count ? ordered(x.y) : 0;
        keys[i + 2] = at + 2 < count ? ordered(x.z) : 0, keys[i + 3] = at + 3 < count ? ordered(x.w) : 0;
    }
}

// grid (slices, rows), 1024 threads: the best of each SLICE scores, ascending. Only if somebody may see more than one slice.
extern "C" __global__ __launch_bounds__(1024) void index_slice(const SelectArgs a) {
    const uint32_t row = blockIdx.y, base = SLICE * blockIdx.x;
    const uint32_t visible = candidates_of(a, row);
    pdl_enter();
    if (base >= visible) return;
    const uint32_t count = min(SLICE, visible - base);
    uint32_t keys[PER_THREAD];
    load_scores(a.scores + size_t(row) * a.stride + base, count, keys);
    uint32_t* out = a.candidates + (size_t(row) * a.slices + blockIdx.x) * TOP_K;
    choose(keys, min(count, uint32_t(TOP_K)), [&](uint32_t place, uint32_t i) { out[place] = base + PER_THREAD * threadIdx.x + i; });
}

// grid (rows), 16 keys per thread of the scores (slices = 1) or of the slices' best: these ascend too, so ties still go to the lower row.
extern "C" __global__ __launch_bounds__(1024) void index_top(const SelectArgs a) {
    const uint32_t row = blockIdx.x;
    const uint32_t visible = candidates_of(a, row);
    pdl_enter();
    if (visible == 0) return;
    const float* scores = a.scores + size_t(row) * a.stride;
    const uint32_t* candidates = a.candidates + size_t(row) * a.slices * TOP_K;
    uint32_t* out = a.selected + size_t(a.first_row + row) * TOP_K;
    const bool sliced = a.slices > 1;
    uint32_t keys[PER_THREAD];
    if (sliced) {
        const uint32_t count = visible / SLICE * TOP_K + min(visible % SLICE, uint32_t(TOP_K));
#pragma unroll
        for (uint32_t i = 0; i < PER_THREAD; ++i) {
            const uint32_t at = PER_THREAD * threadIdx.x + i;
            keys[i] = at < count ? ordered(scores[candidates[at]]) : 0;
        }
    } else {
        load_scores(scores, visible, keys);
    }
    choose(keys, TOP_K, [&](uint32_t place, uint32_t i) {
        const uint32_t at = PER_THREAD * threadIdx.x + i;
        out[place] = sliced ? candidates[at] : at;
    });
}
