// attend, decode: one softmax over the visible rows of a query with a sink, then the inverse rotation (model.md 5.2, 5.3).
// A query's rows are cut in chunks, four chunks are a group; sums are folded in that order, blocks of 32 into a chunk, chunks
// into a group, groups into the whole, all from the query's own position. Whether a CTA serves a chunk or a group
// (chunks_per_part 1 or 4) changes who folds, not what is folded: the bits are the same.
#include "attention.cuh"

constexpr uint32_t BLOCK = 32, MAX_CHUNKS = 33, GROUP = 4, MAX_PARTS = 36, HEADS = 16;

// Rows of a chunk: 32, doubled until MAX_CHUNKS suffice.
DEVICE uint32_t chunk_rows(uint32_t total) {
    uint32_t rows = BLOCK;
    while (rows * MAX_CHUNKS < total) rows *= 2;
    return rows;
}

// Transposes an 8 x 8 tile of halves held as fragments.
DEVICE uint32_t transposed(uint32_t x) {
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

struct SplitShared {
    uint4 q[8][256];                   // [4 hi, 4 lo][thread]: each thread's own fragments, step by step
    float scores[8][HEADS][BLOCK + 8]; // by warp, summed over its columns alone
    uint32_t p[HEADS][BLOCK / 2 + 4];  // pairs of f16
    float shrink[HEADS], total[HEADS];
    float2 fold[HEADS];
    float2 group[HEADS]; // maximum and total of the chunks folded so far
};

// Sixteen columns 64 warp + 16 t .. of row `from`: eight pairs. Not through the first-level cache: what it holds may be older.
DEVICE void load_slice(const uint8_t* from, uint32_t warp, uint32_t t, uint32_t (&k)[8]) {
    if (from == nullptr) {
#pragma unroll
        for (int i = 0; i < 8; ++i) k[i] = 0;
    } else if (warp < 7) {
        const uint2* codes = reinterpret_cast<const uint2*>(from + 64 * warp + 16 * t);
        const uint2 first = __ldcg(codes), second = __ldcg(codes + 1);
        const uint32_t scale = scale_pair(__ldcg(from + EXPONENTS_AT + warp));
        decode8(first, scale, k);
        decode8(second, scale, k + 4);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint2 tail = __ldcg(reinterpret_cast<const uint2*>(from + TAIL_AT + 32 * t) + i);
            k[2 * i] = tail.x, k[2 * i + 1] = tail.y;
        }
    }
}

// grid (parts of the longest row, groups of 16 heads, and one more for the mixing weights, rows), 256 threads. A warp owns 64 columns: of the scores' sum over
// columns, and of the mix. Lane 4 g + t holds, of rows g, g + 8 .., columns 16 t .. 16 t + 15: as they come, the scores'
// operand; transposed in 8 x 8 tiles, the mix's, with column 16 (n / 2) + 2 i + n % 2 as column n of tile i.
extern "C" __global__ __launch_bounds__(256, 2) void attend_split(const AttendArgs a) {
    extern __shared__ __align__(16) uint8_t memory[];
    SplitShared& sh = *reinterpret_cast<SplitShared*>(memory);
    const uint32_t tid = threadIdx.x, warp = tid / 32, g = lane_id() / 4, t = lane_id() % 4;
    const uint32_t row = a.first_row + blockIdx.z, head0 = HEADS * blockIdx.y;
    if (head0 >= N_HEAD) { // older than the kernel before: no need to wait
        if (blockIdx.x == 0 && blockIdx.z == 0 && tid < a.n) write_mix(a.mix, a.first_row + tid);
        return;
    }
    const View v = view_of(a.step[row], a.ratio); // the step comes from the host: no kernel writes it
    const uint32_t per_chunk = chunk_rows(v.total);
    const uint32_t first = blockIdx.x * a.chunks_per_part * per_chunk;
    const uint32_t last = min(v.total, first + a.chunks_per_part * per_chunk);
    // The kernel before may still choose rows and append compressed ones. Window rows are older: it waits for them before it
    // lets this one start.
    const uint32_t closed = a.ratio ? a.step[row].first / a.ratio : 0; // compressed rows that are older than the step
    uint32_t place[4], k[4][8];
    bool early[4];
#pragma unroll
    for (int b = 0; b < 4; ++b) {
        const uint32_t j = first + 8 * b + g;
        early[b] = j < v.raw || (!v.chosen && j < v.raw + closed);
        if (early[b]) load_slice(bytes_of(a, v, j, place_of(a, v, row, j)), warp, t, k[b]);
    }
    pdl_enter();
    if (first >= v.total) return;
#pragma unroll
    for (int b = 0; b < 4; ++b) {
        const uint32_t j = first + 8 * b + g;
        if (!early[b]) load_slice(bytes_of(a, v, j, place_of(a, v, row, j)), warp, t, k[b]);
        place[b] = place_of(a, v, row, j + BLOCK);
    }
#pragma unroll
    for (int s = 0; s < 4; ++s) {
        uint32_t hi[4], lo[4];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const uint32_t head = head0 + g + 8 * r;
            float4 x = make_float4(0, 0, 0, 0);
            if (head < N_HEAD)
                x = *reinterpret_cast<const float4*>(a.q + (size_t(row) * N_HEAD + head) * HEAD + 64 * warp + 16 * t + 4 * s);
            hi[r] = f16x2_of(x.x, x.y), hi[r + 2] = f16x2_of(x.z, x.w);
            lo[r] = f16x2_of(x.x - f16_lo(hi[r]), x.y - f16_hi(hi[r]));
            lo[r + 2] = f16x2_of(x.z - f16_lo(hi[r + 2]), x.w - f16_hi(hi[r + 2]));
        }
        sh.q[s][tid] = make_uint4(hi[0], hi[1], hi[2], hi[3]);
        sh.q[4 + s][tid] = make_uint4(lo[0], lo[1], lo[2], lo[3]);
    }

    const uint32_t head = tid / 16, pair = tid % 16; // of the softmax: a head, two rows of a block
    float max = NO_SCORE;
    if (pair == 0) sh.group[head] = make_float2(NO_SCORE, 0), sh.total[head] = 0;
    float all[8][4] = {}, sum[8][4] = {};
    for (uint32_t at = first; at < last; at += BLOCK) { // chunks begin at multiples of per_chunk, a power of two
        if (at != first) {
#pragma unroll
            for (int b = 0; b < 4; ++b) load_slice(bytes_of(a, v, at + 8 * b + g, place[b]), warp, t, k[b]);
#pragma unroll
            for (int b = 0; b < 4; ++b) place[b] = place_of(a, v, row, at + BLOCK + 8 * b + g);
        }
        float c[4][4] = {};
#pragma unroll
        for (int s = 0; s < 8; ++s) {
            const uint4 x = sh.q[s][tid];
            const uint32_t f[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int b = 0; b < 4; ++b) mma_f16(c[b], f, k[b][2 * (s % 4)], k[b][2 * (s % 4) + 1]);
        }
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            *reinterpret_cast<float2*>(&sh.scores[warp][g][8 * b + 2 * t]) = make_float2(c[b][0], c[b][1]);
            *reinterpret_cast<float2*>(&sh.scores[warp][g + 8][8 * b + 2 * t]) = make_float2(c[b][2], c[b][3]);
        }
        __syncthreads();
        float s0 = 0, s1 = 0;
#pragma unroll
        for (int w = 0; w < 8; ++w) {
            const float2 s = *reinterpret_cast<const float2*>(&sh.scores[w][head][2 * pair]);
            s0 += s.x, s1 += s.y;
        }
        s0 = at + 2 * pair < last ? s0 * SCORE_SCALE : NO_SCORE;
        s1 = at + 2 * pair + 1 < last ? s1 * SCORE_SCALE : NO_SCORE;
        float highest = fmaxf(max, fmaxf(s0, s1));
#pragma unroll
        for (int d = 8; d > 0; d >>= 1) highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, d));
        const float shrink = ex2(max - highest);
        const uint32_t p = f16x2_of(ex2(s0 - highest), ex2(s1 - highest));
        float added = f16_lo(p) + f16_hi(p);
#pragma unroll
        for (int d = 8; d > 0; d >>= 1) added += __shfl_xor_sync(0xffffffffu, added, d);
        max = highest;
        sh.p[head][pair] = p;
        if (pair == 0) sh.shrink[head] = shrink, sh.total[head] = __fmaf_rn(sh.total[head], shrink, added);
        const bool closes = ((at + BLOCK) & (per_chunk - 1)) == 0 || at + BLOCK >= last;
        if (closes) { // fold the chunk into the group; the first fold is an exact copy
            if (pair == 0) {
                const float2 group = sh.group[head];
                highest = fmaxf(group.x, max);
                const float keep = ex2(group.x - highest), add = ex2(max - highest);
                sh.group[head] = make_float2(highest, __fmaf_rn(group.y, keep, __fmul_rn(sh.total[head], add)));
                sh.fold[head] = make_float2(keep, add), sh.total[head] = 0;
            }
            max = NO_SCORE;
        }
        __syncthreads();
        const float shrink0 = sh.shrink[g], shrink1 = sh.shrink[g + 8];
        uint32_t f[2][4];
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            f[s][0] = sh.p[g][8 * s + t], f[s][1] = sh.p[g + 8][8 * s + t];
            f[s][2] = sh.p[g][8 * s + 4 + t], f[s][3] = sh.p[g + 8][8 * s + 4 + t];
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            sum[i][0] *= shrink0, sum[i][1] *= shrink0, sum[i][2] *= shrink1, sum[i][3] *= shrink1;
            mma_f16(sum[i], f[0], transposed(k[0][i]), transposed(k[1][i]));
            mma_f16(sum[i], f[1], transposed(k[2][i]), transposed(k[3][i]));
        }
        if (closes) {
            const float2 f0 = sh.fold[g], f1 = sh.fold[g + 8];
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const float2 f = e < 2 ? f0 : f1;
                    all[i][e] = __fmaf_rn(all[i][e], f.x, __fmul_rn(sum[i][e], f.y));
                    sum[i][e] = 0;
                }
        }
    }
    const size_t part = (size_t(blockIdx.z) * a.part_stride + blockIdx.x) * N_HEAD;
    if (pair == 0 && head0 + head < N_HEAD)
        *reinterpret_cast<float2*>(a.stats + 2 * (part + head0 + head)) = sh.group[head];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if (head0 + g + 8 * r >= N_HEAD) continue;
        float4* to = reinterpret_cast<float4*>(a.parts + (part + head0 + g + 8 * r) * HEAD + 64 * warp + 16 * t);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            to[i] = make_float4(all[2 * i][2 * r], all[2 * i][2 * r + 1], all[2 * i + 1][2 * r], all[2 * i + 1][2 * r + 1]);
    }
}

// How a part enters its group's sum, and, at a group's end, the group the whole.
struct __align__(16) Fold {
    float keep, add, total, max; // `max` of all parts
    float group_keep, group_add, pad[2];
};

// By one warp, from the parts' maxima and totals; a lane has parts `lane` and `lane + 32`. Places past the last part get folds that
// change nothing: those of a group behind its last part close it.
DEVICE void make_folds(Fold* folds, const float2* stats, uint32_t parts, bool whole) {
    const uint32_t lane = lane_id(), group = whole ? 1 : GROUP;
    float above = NO_SCORE, all = NO_SCORE; // maxima of the parts before these 32, of all
    float2 s[2];
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t p = 32 * i + lane;
        s[i] = p < parts ? stats[p * N_HEAD] : make_float2(NO_SCORE, 0);
        all = fmaxf(all, s[i].x);
    }
    all = warp_max(all);
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t p = 32 * i + lane, start = lane / group * group;
        float through = s[i].x; // maximum of lanes 0 to here
#pragma unroll
        for (uint32_t d = 1; d < 32; d *= 2) {
            const float other = __shfl_up_sync(0xffffffffu, through, d);
            if (lane >= d) through = fmaxf(through, other);
        }
        const float preceding = __shfl_sync(0xffffffffu, through, start - 1); // of the groups before
        const float earlier = start == 0 ? above : fmaxf(above, preceding);
        float before = NO_SCORE; // of the group's parts before this one
#pragma unroll
        for (uint32_t d = 1; d < GROUP; ++d) {
            const float other = __shfl_up_sync(0xffffffffu, s[i].x, d);
            if (lane >= start + d) before = fmaxf(before, other);
        }
        above = fmaxf(above, __shfl_sync(0xffffffffu, through, 31));
        if (p >= MAX_PARTS) continue;
        const float here = fmaxf(before, s[i].x), top = fmaxf(earlier, here);
        const bool there = p < parts, begun = p / group * group < parts;
        folds[p] = Fold{there ? ex2(before - here) : 1.f, there ? ex2(s[i].x - here) : 0.f, s[i].y, all,
                        begun ? ex2(earlier - top) : 1.f, begun ? ex2(here - top) : 0.f, {}};
    }
}

// grid (2 N_HEAD, rows), 256 threads: half of a head's columns. Folds the parts, adds the sink, divides, rotates back.
extern "C" __global__ __launch_bounds__(256) void attend_combine(const AttendArgs a) {
    __shared__ Fold folds[MAX_PARTS];
    const uint32_t tid = threadIdx.x, head = blockIdx.x / 2, column = 256 * (blockIdx.x % 2) + tid;
    const uint32_t row = a.first_row + blockIdx.y;
    const StepRow step = a.step[row];
    const uint32_t rows = view_of(step, a.ratio).total;
    const uint32_t per_part = a.chunks_per_part * chunk_rows(rows), parts = (rows + per_part - 1) / per_part;
    float sine = 0, cosine = 1;
    if (column >= NOPE) quadrant_angle(a.frequencies[(column - NOPE) / 2], step.pos, sine, cosine);
    const float sink = a.sinks[head] * LOG2E;
    pdl_enter();
    const size_t at = size_t(blockIdx.y) * a.part_stride * N_HEAD + head;
    float values[MAX_PARTS];
#pragma unroll
    for (uint32_t p = 0; p < MAX_PARTS; ++p)
        values[p] = p < parts ? a.parts[(at + p * N_HEAD) * HEAD + column] : 0.f;
    const bool whole = a.chunks_per_part == GROUP; // a part is a group
    if (tid < 32) make_folds(folds, reinterpret_cast<const float2*>(a.stats) + at, parts, whole);
    __syncthreads();
    float total = 0, sum = 0;
#pragma unroll
    for (uint32_t first = 0; first < MAX_PARTS; first += GROUP) {
        if (first >= parts) break;
        float group_total = 0, group_sum = 0;
#pragma unroll
        for (uint32_t p = first; p < first + GROUP; ++p) { // past the last part nothing is added
            const Fold f = folds[p];
            group_sum = __fmaf_rn(group_sum, f.keep, __fmul_rn(values[p], f.add));
            group_total = __fmaf_rn(group_total, f.keep, __fmul_rn(f.total, f.add));
            if (whole || p + 1 == first + GROUP) {
                sum = __fmaf_rn(sum, f.group_keep, __fmul_rn(group_sum, f.group_add));
                total = __fmaf_rn(total, f.group_keep, __fmul_rn(group_total, f.group_add));
            }
        }
    }
    const float max = folds[0].max;
    const float highest = fmaxf(max, sink), shrink = ex2(max - highest);
    float out = sum * shrink / __fmaf_rn(total, shrink, ex2(sink - highest));
    if (column >= NOPE) { // whole warps: lanes 2 i and 2 i + 1 hold a pair
        const float other = __shfl_xor_sync(0xffffffffu, out, 1);
        out = tid & 1 ? out * cosine - other * sine : out * cosine + other * sine;
    }
    a.heads[(size_t(row) * N_HEAD + head) * HEAD + column] = out;
}
