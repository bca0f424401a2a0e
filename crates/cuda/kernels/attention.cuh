// The cache as one query sees it (model.md 5.3), shared by the attend kernels. Visible rows are numbered: first the window,
// oldest first, then compressed rows, ascending. A row is 584 bytes at a multiple of 8:
//   [0, 448) E4M3 codes, [448, 455) exponents of each 64 (value = code * 2^(byte - 127)), one pad, [456, 584) f16 tail.
#pragma once
#include "hc.cuh"
#include "rows.cuh"

constexpr uint32_t EXPONENTS_AT = NOPE, TAIL_AT = NOPE + 8;
constexpr float SCORE_SCALE = 0.044194173824159216f * 1.4426950408889634f; // 1 / sqrt(512), in powers of two
constexpr float LOG2E = 1.4426950408889634f;
#define NO_SCORE __int_as_float(0xff800000) // minus infinity

struct AttendArgs {
    const StepRow* step;
    const float* q;           // [rows][N_HEAD][HEAD], normed and rotated
    const float* sinks;       // [N_HEAD]
    const float* frequencies; // [ROT / 2] of this layer's kind
    const uint32_t* selected; // [rows][TOP_K]
    Rows window, compressed;  // `compressed` unused if ratio is 0
    float* heads;             // [rows][N_HEAD][HEAD]
    float* parts;             // [n][part_stride][N_HEAD][HEAD] unnormed sums of the split kernel
    float* stats;             // [n][part_stride][N_HEAD][2] their maxima (powers of two) and totals
    uint32_t n, first_row;    // the launch serves rows first_row .. first_row + n
    uint32_t ratio;           // 0, 4 or 128
    uint32_t part_stride, chunks_per_part, pad;
    MixArgs mix;              // split kernel: one more CTA makes the rows' mixing weights, if they are given
};
static_assert(sizeof(AttendArgs) == 160, "mirrored in attention.rs");

struct View {
    uint32_t slot, first_raw, raw, total;
    bool chosen;
};
DEVICE View view_of(const StepRow& s, uint32_t ratio) {
    View v;
    const uint32_t compressed = visible_rows(s.pos, ratio);
    v.slot = s.slot;
    v.first_raw = s.pos + 1 > WINDOW ? s.pos + 1 - WINDOW : 0;
    v.raw = s.pos + 1 - v.first_raw;
    v.chosen = ratio == 4 && compressed > TOP_K;
    v.total = v.raw + (v.chosen ? uint32_t(TOP_K) : compressed);
    return v;
}
// Row number, in its table, of visible row `j`.
DEVICE uint32_t place_of(const AttendArgs& a, const View& v, uint32_t row, uint32_t j) {
    if (j >= v.total) return 0;
    if (j < v.raw) return (v.first_raw + j) % a.window.per_slot;
    return v.chosen ? a.selected[size_t(row) * TOP_K + j - v.raw] : j - v.raw;
}
// Its bytes; null past the last.
DEVICE const uint8_t* bytes_of(const AttendArgs& a, const View& v, uint32_t j, uint32_t place) {
    return j >= v.total ? nullptr : row_at(j < v.raw ? a.window : a.compressed, v.slot, place);
}

DEVICE float ex2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// `rope_angle` without calls: quadrants are taken off in float64, series give the rest to 1e-16. For angles below 2^22.
DEVICE void quadrant_angle(float frequency, uint32_t pos, float& sine, float& cosine) {
    const double x = double(__fmul_rn(float(pos), frequency));
    const double k = rint(x * 0.63661977236758134);
    const double r = fma(-k, 6.123233995736766e-17, fma(-k, 1.5707963267948966, x)), z = r * r;
    double s = -1.0 / 1307674368000.0, c = 1.0 / 20922789888000.0;
    s = fma(s, z, 1.0 / 6227020800.0), c = fma(c, z, -1.0 / 87178291200.0);
    s = fma(s, z, -1.0 / 39916800.0), c = fma(c, z, 1.0 / 479001600.0);
    s = fma(s, z, 1.0 / 362880.0), c = fma(c, z, -1.0 / 3628800.0);
    s = fma(s, z, -1.0 / 5040.0), c = fma(c, z, 1.0 / 40320.0);
    s = fma(s, z, 1.0 / 120.0), c = fma(c, z, -1.0 / 720.0);
    s = fma(s, z, -1.0 / 6.0), c = fma(c, z, 1.0 / 24.0);
    s = fma(s * z, r, r), c = fma(fma(c, z, -0.5), z, 1.0);
    const int quadrant = int(k) & 3;
    const double a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
    sine = float(quadrant & 2 ? -a : a);
    cosine = float(quadrant == 1 || quadrant == 2 ? -b : b);
}
