// File blocks of expert tensors to the tiles of the decode and prefill kernels, once at load. A chunk is whole row blocks of
// 16 rows; file rows are K / 256 blocks (MXFP4: K / 32) one after the other. Tile of 16 rows x 256 k, [row block][k tile].
// A warp makes a tile: lane 4 g + t writes, for rows g and g + 8, its weights k = 32 j + 8 t .. + 7 of the groups j = 0..7.
// Grid: any; 256 threads. `src` is aligned to 16 bytes.
#include "common.cuh"

struct RepackArgs {
    const uint8_t* src;
    uint8_t* dst;
    uint32_t row_blocks, k;
};
static_assert(sizeof(RepackArgs) == 24, "mirrored in weights.rs");

DEVICE uint32_t word16(const uint8_t* p) { // aligned to 2
    const uint16_t* h = reinterpret_cast<const uint16_t*>(p);
    return h[0] | uint32_t(h[1]) << 16;
}
DEVICE uint32_t word32(const uint8_t* p) { return *reinterpret_cast<const uint32_t*>(p); }
// Bit e of a byte to bit 4 e.
DEVICE uint32_t spread(uint32_t x) {
    x = (x | x << 12) & 0x000f000f;
    x = (x | x << 6) & 0x03030303;
    return (x | x << 3) & 0x11111111;
}

struct Iq2File {
    static constexpr uint32_t BLOCK = 66, TILE = 1120;
    DEVICE void codes(const uint8_t* b, uint8_t* tile, uint32_t r, uint32_t lane) {
        const uint32_t t = lane % 4;
        uint32_t index[2] = {}, sign[2] = {};
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const uint32_t seven = (word16(b + 6 + 8 * j) >> (7 * t)) & 127;
            const uint32_t signs = seven | (__popc(seven) & 1) << 7; // an even number of minus signs
            index[j / 4] |= uint32_t(b[2 + 8 * j + t]) << (8 * (j % 4));
            sign[j / 4] |= spread(signs) << (j % 4);
        }
        reinterpret_cast<uint4*>(tile + 512 * r)[lane] = {index[0], index[1], sign[0], sign[1]};
    }
    DEVICE void scales(const uint8_t* b, uint8_t* tile, uint32_t row) {
        uint32_t scales = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) scales |= uint32_t(b[9 + 8 * j] >> 4) << (4 * j);
        reinterpret_cast<uint32_t*>(tile + 1024)[row] = scales;
        reinterpret_cast<uint16_t*>(tile + 1088)[row] = *reinterpret_cast<const uint16_t*>(b);
    }
};

struct Q2kFile {
    static constexpr uint32_t BLOCK = 84, TILE = 1344;
    DEVICE void codes(const uint8_t* b, uint8_t* tile, uint32_t r, uint32_t lane) {
        uint32_t out[4] = {};
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const uint32_t four = word32(b + 16 + 32 * (j / 4) + 8 * (lane % 4) + 4 * h);
                out[j / 2] |= ((four >> (2 * (j % 4))) & 0x03030303) << (2 * (2 * (j % 2) + h));
            }
        reinterpret_cast<uint4*>(tile + 512 * r)[lane] = {out[0], out[1], out[2], out[3]};
    }
    DEVICE void scales(const uint8_t* b, uint8_t* tile, uint32_t row) {
        for (int i = 0; i < 4; ++i) reinterpret_cast<uint32_t*>(tile + 1024)[4 * row + i] = word32(b + 4 * i);
        reinterpret_cast<uint32_t*>(tile + 1280)[row] = word32(b + 80);
    }
};

struct Q4kFile {
    static constexpr uint32_t BLOCK = 144, TILE = 2304;
    DEVICE void codes(const uint8_t* b, uint8_t* tile, uint32_t r, uint32_t lane) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            uint32_t out[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int j = 4 * half + i;
                const uint8_t* at = b + 16 + 32 * (j / 2) + 8 * (lane % 4);
                const uint32_t low = word32(at) >> (4 * (j % 2)), high = word32(at + 4) >> (4 * (j % 2));
                out[i] = (low & 0x0f0f0f0f) | (high & 0x0f0f0f0f) << 4;
            }
            reinterpret_cast<uint4*>(tile + 1024 * r + 512 * half)[lane] = {out[0], out[1], out[2], out[3]};
        }
    }
    DEVICE void scales(const uint8_t* b, uint8_t* tile, uint32_t row) {
        for (int i = 0; i < 3; ++i) reinterpret_cast<uint32_t*>(tile + 2048)[3 * row + i] = word32(b + 4 + 4 * i);
        reinterpret_cast<uint32_t*>(tile + 2240)[row] = word32(b);
    }
};

// Eight file blocks of 17 bytes in a tile's row: exponent, then low nibbles elements 0..15, high nibbles 16..31.
struct Mxfp4File {
    static constexpr uint32_t BLOCK = 8 * 17, TILE = 2176;
    DEVICE void codes(const uint8_t* b, uint8_t* tile, uint32_t r, uint32_t lane) {
        const uint32_t t = lane % 4, shift = 4 * (t / 2);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            uint32_t out[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const uint8_t* at = b + 17 * (4 * half + i) + 1 + 8 * (t % 2);
                out[i] = 0;
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const uint32_t low = (at[e] >> shift) & 15, high = (at[4 + e] >> shift) & 15;
                    out[i] |= (low | high << 4) << (8 * e);
                }
            }
            reinterpret_cast<uint4*>(tile + 1024 * r + 512 * half)[lane] = {out[0], out[1], out[2], out[3]};
        }
    }
    DEVICE void scales(const uint8_t* b, uint8_t* tile, uint32_t row) {
        for (int j = 0; j < 8; ++j) tile[2048 + 8 * row + j] = b[17 * j];
    }
};

template <class F> DEVICE void repack(const RepackArgs& a) {
    const uint32_t lane = lane_id(), per_row = a.k / 256, warps = gridDim.x * (blockDim.x / 32);
    for (uint32_t i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < a.row_blocks * per_row; i += warps) {
        const uint32_t block = i / per_row, at = i % per_row;
        uint8_t* tile = a.dst + size_t(i) * F::TILE;
        auto from = [&](uint32_t row) { return a.src + ((size_t(block) * 16 + row) * per_row + at) * F::BLOCK; };
        for (uint32_t r = 0; r < 2; ++r) F::codes(from(lane / 4 + 8 * r), tile, r, lane);
        if (lane < 16) F::scales(from(lane), tile, lane);
    }
}

extern "C" __global__ void __launch_bounds__(256) repack_iq2(RepackArgs a) { repack<Iq2File>(a); }
extern "C" __global__ void __launch_bounds__(256) repack_q2k(RepackArgs a) { repack<Q2kFile>(a); }
extern "C" __global__ void __launch_bounds__(256) repack_q4k(RepackArgs a) { repack<Q4kFile>(a); }
extern "C" __global__ void __launch_bounds__(256) repack_mxfp4(RepackArgs a) { repack<Mxfp4File>(a); }
