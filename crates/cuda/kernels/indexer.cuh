// What the kernels of stage select share (model.md 7). A key row is 68 bytes: 64 of E2M1 codes, low nibble first, then the exponents
// of each 32. All products put the 128 columns in one order: lane t of a quad owns columns 32 t .. 32 t + 31, eight to a word of
// codes; step 2 j + h takes of word j the pairs (2 h, 2 h + 4) as k = 2 t, 2 t + 1 and (2 h + 1, 2 h + 5) as k = 2 t + 8, 2 t + 9.
// Codes times powers of two are exact in f16, so are their products; only the sums are rounded.
#pragma once
#include "rows.cuh"

constexpr uint32_t INDEX_RATIO = 4, INDEX_TILES = (N_INDEX_HEAD + 7) / 8, INDEX_HEADS = 8 * INDEX_TILES;
constexpr uint32_t INDEX_SLAB = INDEX_HEADS * 128, PACKED_ROW = 2 * INDEX_SLAB;
static_assert(PACKED_ROW % 1024 == 0 && N_INDEX_HEAD % 2 == 0, "slabs lie on 1024-byte bounds, weights are read in pairs");

struct SelectArgs {
    const StepRow* step;
    const float* q;       // [rows][N_INDEX_HEAD][INDEX], rotated, transformed and rounded
    const float* weights; // [rows][N_INDEX_HEAD], scaled
    Rows keys;
    uint8_t* packed;      // prefill: [n][PACKED_ROW] two slabs of heads (wgmma.cuh)
    float* scores;        // [n][stride]
    uint32_t* candidates; // [n][slices][TOP_K], if slices > 1
    uint32_t* selected;   // [rows][TOP_K]
    uint32_t n, first_row; // the launch serves rows first_row .. first_row + n
    uint32_t stride;       // of scores: a multiple of 16, no less than the rows anybody sees
    uint32_t slices;       // of SLICE scores
};
static_assert(sizeof(SelectArgs) == 88, "mirrored in indexer.rs");

// Rows to choose from; 0 where all are selected.
DEVICE uint32_t candidates_of(const SelectArgs& a, uint32_t row) {
    const uint32_t visible = visible_rows(a.step[a.first_row + row].pos, INDEX_RATIO);
    return visible > TOP_K ? visible : 0;
}

// This lane's share of keys `low` and `high`, rows g and g + 8 of a product's 16, for all eight steps.
DEVICE void load_keys(const Rows& keys, uint32_t slot, uint32_t low, uint32_t high, uint32_t (&f)[8][4]) {
    const uint32_t t = lane_id() % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const uint8_t* from = row_at(keys, slot, r ? high : low);
        const uint32_t scale = scale_pair(from[INDEX / 2 + t]);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            uint32_t x[4];
            decode_e2m1(reinterpret_cast<const uint32_t*>(from + 16 * t)[j], scale, x);
            f[2 * j][r] = x[0], f[2 * j][r + 2] = x[1], f[2 * j + 1][r] = x[2], f[2 * j + 1][r + 2] = x[3];
        }
    }
}
