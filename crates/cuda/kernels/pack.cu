// Activations for the products of prefill: float32 rows -> f16 in atoms of 8 rows x 64 k, 1024 bytes, in the order that wgmma reads with
// a 128-byte swizzle: atom (k / 64) * (tpad / 8) + row / 8; row r at 128 r; 16-byte chunk c of a row at c ^ (r % 8). Chunk
// c = 4 q + 2 s + h holds k = 32 q + 8 t + 4 s + 2 h + e at its half 2 t + e: the order in which weights are decoded.
//
// pack:        grid (tpad / 8, ceil(K / 256)), 256 threads: rows of a matrix, zero beyond `rows`.
// pack_gather: the same grid; row i is row order[i] / N_USED, zero where order[i] is 0xffffffff; blocks beyond the packed rows leave.
#include "common.cuh"

struct PackArgs {
    const float* x;
    uint8_t* packed;
    const uint32_t* order; // pack_gather
    const uint32_t* head;  // pack_gather: {tiles, packed rows} of gemm_group
    uint32_t rows, ld, offset, k, tpad, pad;
};
static_assert(sizeof(PackArgs) == 56, "mirrored in Rust");

constexpr uint32_t NO_ROW = 0xffffffffu;

// The chunk of this thread, of row `from` of x.
DEVICE void pack_chunk(const PackArgs& args, uint32_t row, uint32_t from) {
    const uint32_t c = threadIdx.x % 8, block = blockIdx.y * 4 + threadIdx.x / 64;
    if (block * 64 >= args.k) return;
    uint32_t w[4] = {0, 0, 0, 0};
    if (from != NO_ROW) {
        const float* x = args.x + size_t(from) * args.ld + args.offset + block * 64 + 32 * (c / 4) + 2 * (c % 4);
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            const float2 v = *reinterpret_cast<const float2*>(x + 8 * t);
            w[t] = f16x2_of(f16_max(v.x), f16_max(v.y));
        }
    }
    uint8_t* atom = args.packed + (size_t(block) * (args.tpad / 8) + row / 8) * 1024;
    *reinterpret_cast<uint4*>(atom + (row % 8) * 128 + (c ^ (row % 8)) * 16) = make_uint4(w[0], w[1], w[2], w[3]);
}

extern "C" __global__ void __launch_bounds__(256) pack(const __grid_constant__ PackArgs args) {
    pdl_wait();
    pdl_trigger();
    const uint32_t row = blockIdx.x * 8 + threadIdx.x / 8 % 8;
    pack_chunk(args, row, row < args.rows ? row : NO_ROW);
}

extern "C" __global__ void __launch_bounds__(256) pack_gather(const __grid_constant__ PackArgs args) {
    pdl_wait();
    pdl_trigger();
    const uint32_t row = blockIdx.x * 8 + threadIdx.x / 8 % 8;
    if (row >= args.head[1]) return;
    const uint32_t pair = args.order[row];
    pack_chunk(args, row, pair == NO_ROW ? NO_ROW : pair / N_USED);
}
