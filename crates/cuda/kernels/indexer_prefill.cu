// select, prefill, on Hopper: the scores of indexer.cu for many queries. `index_pack` brings each query's heads into slabs (wgmma.cuh);
// `index_score_prefill` keeps 256 keys in registers, 64 to a warpgroup, and lets 64 queries pass through a ring in shared memory:
// products of 64 keys x all heads x 128. Elsewhere the launcher runs `index_score`. Both are followed by `index_top`.
#include "indexer.cuh"
#include "wgmma.cuh"

// grid (rows), 256 threads.
extern "C" __global__ __launch_bounds__(256) void index_pack(const SelectArgs a) {
    __shared__ float q[INDEX_HEADS][INDEX + 4];
    const uint32_t row = blockIdx.x;
    const bool wanted = candidates_of(a, row) > 0;
    pdl_enter();
    if (!wanted) return;
    const size_t query = size_t(a.first_row + row) * N_INDEX_HEAD;
    for (uint32_t i = threadIdx.x; i < INDEX_HEADS * INDEX / 4; i += 256) {
        const uint32_t head = i / 32;
        float4 x = make_float4(0, 0, 0, 0);
        if (head < N_INDEX_HEAD) x = reinterpret_cast<const float4*>(a.q + (query + head) * INDEX)[i % 32];
        *reinterpret_cast<float4*>(&q[head][i % 32 * 4]) = x;
    }
    __syncthreads();
    uint8_t* out = a.packed + size_t(row) * PACKED_ROW;
    for (uint32_t i = threadIdx.x; i < INDEX_HEADS * 16; i += 256) { // 16-byte chunks: 2 step + half, four lanes' pairs in each
        const uint32_t head = i / 16, chunk = i % 16, half = chunk % 2, step = chunk / 2;
        const float* from = &q[head][step / 2 * 8 + step % 2 * 2 + half];
        *reinterpret_cast<uint4*>(out + INDEX_SLAB * (chunk / 8) + 128 * head + 16 * ((chunk % 8) ^ (head & 7))) =
            make_uint4(f16x2_of(from[0], from[4]), f16x2_of(from[32], from[36]), f16x2_of(from[64], from[68]),
                       f16x2_of(from[96], from[100]));
    }
}

constexpr uint32_t KEYS = 256, QUERIES = 64, STAGES = 6, WARPS = KEYS / 16;

// grid (blocks of 256 keys, blocks of 64 rows), 544 threads: four warpgroups of 64 keys and a warp that fills the ring. All skip the
// queries that see none of the keys. `memory`: STAGES stages on a 1024-byte bound, then the barriers.
extern "C" __global__ __launch_bounds__(544, 1) void index_score_prefill(const SelectArgs a) {
#if HAS_WGMMA
    extern __shared__ __align__(16) uint8_t memory[];
    uint8_t* ring = memory + (-shared_address(memory) & 1023);
    uint64_t *full = reinterpret_cast<uint64_t*>(ring + STAGES * PACKED_ROW), *empty = full + STAGES;
    const uint32_t warp = threadIdx.x / 32, key0 = KEYS * blockIdx.x;
    const uint32_t first = QUERIES * blockIdx.y, last = min(a.n, first + QUERIES);
    if (threadIdx.x == 0) {
        for (uint32_t s = 0; s < STAGES; ++s) mbar_init(&full[s], 1), mbar_init(&empty[s], WARPS);
        mbar_fence_init();
    }
    __syncthreads();
    pdl_enter();
    uint32_t stage = 0, turn = 0;
    auto step = [&] { stage = stage + 1 == STAGES ? (turn ^= 1, 0) : stage + 1; };
    if (warp == WARPS) {
        for (uint32_t row = first; row < last; ++row) {
            if (candidates_of(a, row) <= key0) continue;
            mbar_wait(&empty[stage], turn ^ 1);
            fill_begin(&full[stage], PACKED_ROW);
            fill(&full[stage], ring + PACKED_ROW * stage, a.packed + size_t(row) * PACKED_ROW, PACKED_ROW);
            fill_end(&full[stage]);
            step();
        }
        return;
    }
    const uint32_t g = lane_id() / 4, t = lane_id() % 4, key = key0 + 16 * warp + g; // and key + 8
    uint32_t f[8][4], slot = 0xffffffffu;
    for (uint32_t row = first; row < last; ++row) {
        const uint32_t visible = candidates_of(a, row), row_slot = a.step[a.first_row + row].slot;
        if (visible <= key0) continue;
        if (slot != row_slot) {
            slot = row_slot;
            load_keys(a.keys, slot, min(key, a.keys.per_slot - 1), min(key + 8, a.keys.per_slot - 1), f);
        }
        // Of two neighbouring heads each, as the sums below lie.
        float2 weights[INDEX_TILES];
        const float* of_row = a.weights + size_t(a.first_row + row) * N_INDEX_HEAD;
#pragma unroll
        for (uint32_t j = 0; j < INDEX_TILES; ++j) {
            const uint32_t head = 8 * j + 2 * t;
            weights[j] = head < N_INDEX_HEAD ? *reinterpret_cast<const float2*>(of_row + head) : make_float2(0, 0);
        }
        mbar_wait(&full[stage], turn);
        const uint8_t* heads = ring + PACKED_ROW * stage;
        const uint64_t b = operand(shared_address(heads), 16);
        float c[4 * INDEX_TILES];
        wgmma_fence();
#pragma unroll
        for (uint32_t s = 0; s < 8; ++s) wgmma_by_registers(c, f[s], b + (INDEX_SLAB * (s / 4) + 32 * (s % 4)) / 16, s > 0);
        wgmma_commit();
        wgmma_wait<0>();
        float low = 0, high = 0;
#pragma unroll
        for (uint32_t j = 0; j < INDEX_TILES; ++j) {
            const float2 w = weights[j];
            low = fmaf(w.y, fmaxf(c[4 * j + 1], 0.f), fmaf(w.x, fmaxf(c[4 * j], 0.f), low));
            high = fmaf(w.y, fmaxf(c[4 * j + 3], 0.f), fmaf(w.x, fmaxf(c[4 * j + 2], 0.f), high));
        }
        __syncwarp();
        if (lane_id() == 0) mbar_arrive(&empty[stage]);
        step();
        low += __shfl_xor_sync(0xffffffffu, low, 1), high += __shfl_xor_sync(0xffffffffu, high, 1);
        low += __shfl_xor_sync(0xffffffffu, low, 2), high += __shfl_xor_sync(0xffffffffu, high, 2);
        const uint32_t mine = key + 8 * t;
        if (t < 2 && mine < visible) a.scores[size_t(row) * a.stride + mine] = t ? high : low;
    }
#endif
}
