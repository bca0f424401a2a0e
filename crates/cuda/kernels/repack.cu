// Weights from the file's layout to tiles of 16 rows, once at load. Inside 32 consecutive k lane t of a quad owns k = 8 t .. 8 t + 7;
// lane 4 g + t holds rows g and g + 8. Grid: row blocks of the chunk; threads walk the block.
#include "common.cuh"

struct RepackArgs {
    const uint8_t* from; // rows of the file, from a multiple of 16 on
    uint8_t* to;         // tiles
    uint32_t rows, k;    // rows in this chunk; missing ones of the last block are zero
};
static_assert(sizeof(RepackArgs) == 24, "mirrored in upload.rs");

// Q8_0 blocks (f16 scale, 32 codes) to tiles of 16 x 64: codes with their top bit flipped, then four scales for each g.
extern "C" __global__ void repack_q8(const RepackArgs a) {
    const uint32_t tiles = a.k / 64, row_bytes = a.k / 32 * 34;
    uint8_t* to = a.to + size_t(blockIdx.x) * tiles * 1088;
    for (uint32_t i = threadIdx.x; i < tiles * 64; i += blockDim.x) { // (tile, 32-group, lane)
        const uint32_t tile = i / 64, q = i / 32 % 2, lane = i % 32, g = lane / 4, t = lane % 4;
        uint8_t codes[16];
        uint16_t scale[2];
        for (int r = 0; r < 2; ++r) {
            const uint32_t row = 16 * blockIdx.x + g + 8 * r;
            const uint8_t* block = a.from + size_t(row) * row_bytes + (2 * tile + q) * 34;
            scale[r] = row < a.rows ? block[0] | block[1] << 8 : 0;
            for (int j = 0; j < 8; ++j) codes[8 * r + j] = (row < a.rows ? block[2 + 8 * t + j] : 0) ^ 0x80;
        }
        uint8_t* out = to + tile * 1088;
        for (int j = 0; j < 16; ++j) out[512 * q + 16 * lane + j] = codes[j];
        if (t == 0)
            for (int r = 0; r < 2; ++r) *reinterpret_cast<uint16_t*>(out + 1024 + 8 * g + 4 * r + 2 * q) = scale[r];
    }
}

// F16 rows to tiles of 16 x 64.
extern "C" __global__ void repack_f16(const RepackArgs a) {
    const uint32_t tiles = a.k / 64;
    uint16_t* to = reinterpret_cast<uint16_t*>(a.to + size_t(blockIdx.x) * tiles * 2048);
    const uint16_t* from = reinterpret_cast<const uint16_t*>(a.from);
    for (uint32_t i = threadIdx.x; i < tiles * 128; i += blockDim.x) { // (tile, 32-group, row half, lane)
        const uint32_t tile = i / 128, q = i / 64 % 2, r = i / 32 % 2, lane = i % 32;
        const uint32_t row = 16 * blockIdx.x + lane / 4 + 8 * r;
        const uint16_t* values = from + size_t(row) * a.k + 64 * tile + 32 * q + 8 * (lane % 4);
        for (int j = 0; j < 8; ++j) to[tile * 1024 + 256 * (2 * q + r) + 8 * lane + j] = row < a.rows ? values[j] : 0;
    }
}
