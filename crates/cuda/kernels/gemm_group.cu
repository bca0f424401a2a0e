// Routing -> work lists of the grouped expert products (one block of 1024 threads). Pairs (token N_USED + i) are sorted by expert, stable;
// each expert's rows are padded to a multiple of 16 and cut into at most `largest` at a time, as evenly as 16 allows.
//   head     {tiles, packed rows}
//   order    [packed row] its pair, 0xffffffff in the padding
//   route    [packed row] the pair's weight, 0 in the padding
//   tiles    [tile] {expert, first packed row, rows, 0}, large ones first, those of an expert together
// Every warp owns a run of pairs: it counts them by expert, then places them in order; both passes are deterministic.
#include "common.cuh"

struct GroupArgs {
    const uint32_t* ids; // [n][N_USED]
    const float* weights;
    uint32_t *head, *order;
    float* route;
    uint4* tiles;
    uint32_t n, largest; // rows of a tile, a multiple of 16
};
static_assert(sizeof(GroupArgs) == 56, "mirrored in Rust");

constexpr uint32_t WARPS = N_EXPERT > 256 ? 16 : 32, BATCH = 8;
static_assert(N_EXPERT <= 32 * WARPS && WARPS * N_EXPERT * 4 + N_EXPERT * 4 <= 48 * 1024, "a thread for each expert, counts in shared memory");

// Experts of pairs at .. at + 32 BATCH - 1, one of each 32 for this lane; N_EXPERT beyond `end`.
DEVICE void load_ids(const GroupArgs& args, uint32_t at, uint32_t end, uint32_t (&id)[BATCH]) {
#pragma unroll
    for (uint32_t i = 0; i < BATCH; ++i) {
        const uint32_t pair = at + 32 * i + lane_id();
        id[i] = pair < end ? args.ids[pair] : N_EXPERT;
    }
}

DEVICE uint32_t tiles_of(uint32_t padded, uint32_t largest) { return (padded + largest - 1) / largest; }
// Rows of an expert's tiles, but for the last.
DEVICE uint32_t tile_rows(uint32_t padded, uint32_t largest) {
    const uint32_t tiles = tiles_of(padded, largest);
    return tiles ? (padded / 16 + tiles - 1) / tiles * 16 : 0;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 1) gemm_group(const __grid_constant__ GroupArgs args) {
    __shared__ uint32_t next[WARPS][N_EXPERT]; // counts, then the next packed row
    __shared__ uint32_t padded[N_EXPERT];
    const uint32_t e = threadIdx.x, warp = threadIdx.x / 32, pairs = args.n * N_USED;
    const uint32_t run = (pairs + WARPS * 32 - 1) / (WARPS * 32) * 32, begin = min(warp * run, pairs), end = min(begin + run, pairs);
    for (uint32_t i = threadIdx.x; i < WARPS * N_EXPERT; i += 32 * WARPS) (&next[0][0])[i] = 0;
    __syncthreads();
    pdl_wait();
    pdl_trigger();

    uint32_t id[BATCH];
    for (uint32_t at = begin; at < end; at += 32 * BATCH) {
        load_ids(args, at, end, id);
#pragma unroll
        for (uint32_t i = 0; i < BATCH; ++i)
            if (id[i] < N_EXPERT) atomicAdd(&next[warp][id[i]], 1); // integers: any order, one result
    }
    __syncthreads();

    uint32_t count = 0;
    if (e < N_EXPERT) {
        for (uint32_t w = 0; w < WARPS; ++w) {
            const uint32_t mine = next[w][e];
            next[w][e] = count;
            count += mine;
        }
        padded[e] = (count + 15) / 16 * 16;
    }
    __syncthreads();
    if (e < N_EXPERT) {
        const uint32_t rows = tile_rows(padded[e], args.largest);
        uint32_t first = 0, tile = 0, all = 0, all_tiles = 0;
        for (uint32_t o = 0; o < N_EXPERT; ++o) {
            const uint32_t other = padded[o], theirs = tile_rows(other, args.largest);
            all += other, all_tiles += tiles_of(other, args.largest);
            if (o < e) first += other;
            if (theirs > rows || (theirs == rows && o < e)) tile += tiles_of(other, args.largest);
        }
        for (uint32_t w = 0; w < WARPS; ++w) next[w][e] += first;
        for (uint32_t r = count; r < padded[e]; ++r) args.order[first + r] = 0xffffffffu, args.route[first + r] = 0;
        for (uint32_t r = 0; r < padded[e]; r += rows)
            args.tiles[tile++] = make_uint4(e, first + r, min(rows, padded[e] - r), 0);
        if (e == 0) args.head[0] = all_tiles, args.head[1] = all;
    }
    __syncthreads();

    for (uint32_t at = begin; at < end; at += 32 * BATCH) {
        load_ids(args, at, end, id);
#pragma unroll
        for (uint32_t i = 0; i < BATCH; ++i) {
            const uint32_t pair = at + 32 * i + lane_id();
            const bool valid = id[i] < N_EXPERT;
            const uint32_t same = __match_any_sync(0xffffffffu, id[i]);
            const uint32_t row = (valid ? next[warp][id[i]] : 0) + __popc(same & ((1u << lane_id()) - 1));
            __syncwarp();
            if (valid && lane_id() == 31 - __clz(same)) next[warp][id[i]] = row + 1;
            __syncwarp();
            if (valid) args.order[row] = pair, args.route[row] = args.weights[pair];
        }
    }
}
