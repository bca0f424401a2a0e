// compress: gated pooling of the windows that close in this step, and the inputs that open windows keep in their rings.
//   pooled row = sum_j softmax_j(gate_j) value_j for every channel, over the window's tokens; with ratio 4 over the previous
//   window's first halves and this window's second halves. Then norm, rotation at the window's first position, rounding.
//   grid: (rows, 1 or 2, and ceil(heads / 4) if queries are finished here): attention rows, indexer rows, heads; 128 threads
// Inputs of positions from `first` on come from this step, earlier ones from the ring. `compress` keeps an input only where
// no pooling of the same launch can still read what it replaces; `compress_keep` stores the others.
#include "query.cuh"

struct Pool {
    const float* inputs; // [rows][value width][gate width]
    const float* norm;
    Rows frontier, out;
};
struct CompressArgs {
    const StepRow* step;
    const float* frequencies;
    Pool attention, index;
    uint32_t ratio;
    float rms_eps;
};
static_assert(sizeof(CompressArgs) == 120, "mirrored in compressor.rs");

template <int WIDTH> DEVICE uint32_t row_floats(uint32_t ratio) { return 2 * (ratio == 4 ? 2 * WIDTH : WIDTH); }

// Whether the ring place of `at` still holds an input that a window closing in this step reads.
DEVICE bool in_use(const Pool& p, const StepRow& at, uint32_t ratio) {
    const uint32_t reach = ratio == 4 ? 2 * ratio : ratio;
    return at.pos + reach >= at.first + p.frontier.per_slot;
}
template <int WIDTH> DEVICE void keep(const Pool& p, const StepRow& at, uint32_t row, uint32_t ratio) {
    if (at.end - at.pos > p.frontier.per_slot) return; // a later row of the step takes the place
    const uint32_t floats = row_floats<WIDTH>(ratio);
    float4* to = reinterpret_cast<float4*>(ring_at(p.frontier, at.slot, at.pos));
    const float4* from = reinterpret_cast<const float4*>(p.inputs + size_t(row) * floats);
    for (uint32_t i = threadIdx.x; i < floats / 4; i += 128) to[i] = from[i];
}

// Value and gate rows at position `q` of the sequence of step row `row`.
template <int WIDTH> DEVICE const float* input_at(const Pool& p, const StepRow& at, uint32_t row, uint32_t q, uint32_t ratio) {
    if (q >= at.first) return p.inputs + size_t(row - (at.pos - q)) * row_floats<WIDTH>(ratio);
    return reinterpret_cast<const float*>(ring_at(p.frontier, at.slot, q));
}

// Channels 4 threadIdx.x .. + 3 of the pooled row, online over the tokens.
template <int WIDTH> DEVICE void pool(const Pool& p, const StepRow& at, uint32_t row, uint32_t ratio, float (&v)[4]) {
    const uint32_t width = row_floats<WIDTH>(ratio) / 2, start = at.pos + 1 - ratio, d = 4 * threadIdx.x;
    const uint32_t from = ratio == 4 && start >= ratio ? start - ratio : start;
    float top[4], total[4] = {}, sum[4] = {};
    for (int i = 0; i < 4; ++i) top[i] = -__int_as_float(0x7f800000);
    for (int pass = 0; pass < 2; ++pass)
        for (uint32_t q = from; q <= at.pos; ++q) {
            const float* in = input_at<WIDTH>(p, at, row, q, ratio) + (ratio == 4 && q >= start ? WIDTH : 0) + d;
            const float4 g4 = *reinterpret_cast<const float4*>(in + width);
            const float g[4] = {g4.x, g4.y, g4.z, g4.w};
            if (pass == 0) {
                for (int i = 0; i < 4; ++i) top[i] = fmaxf(top[i], g[i]);
                continue;
            }
            const float4 x4 = *reinterpret_cast<const float4*>(in);
            const float x[4] = {x4.x, x4.y, x4.z, x4.w};
            for (int i = 0; i < 4; ++i) {
                const float w = expf(g[i] - top[i]);
                total[i] += w;
                sum[i] += w * x[i];
            }
        }
    for (int i = 0; i < 4; ++i) v[i] = sum[i] / total[i];
}

template <int WIDTH> DEVICE void close(const CompressArgs& a, const Pool& p, const StepRow& at, uint32_t row, float* scratch) {
    const bool mine = 4 * threadIdx.x < WIDTH;
    float v[4] = {}, sum = 0;
    if (mine) pool<WIDTH>(p, at, row, a.ratio, v);
    for (int i = 0; i < 4; ++i) sum += v[i] * v[i];
    const float scale = rsqrtf(block_sum(sum, scratch) / WIDTH + a.rms_eps);
    if (!mine) return;
    for (int i = 0; i < 4; ++i) v[i] = v[i] * scale * p.norm[4 * threadIdx.x + i];
    rotate4(v, 4 * threadIdx.x, WIDTH, a.frequencies, at.pos + 1 - a.ratio);
    uint8_t* to = row_at(p.out, at.slot, at.pos / a.ratio);
    if (WIDTH == HEAD) {
        encode_row(v, to);
    } else {
        hadamard4(v);
        encode_index_row(v, to);
    }
}

template <int WIDTH> DEVICE void compress_row(const CompressArgs& a, const Pool& p, const StepRow& at, uint32_t row, float* scratch) {
    if ((at.pos + 1) % a.ratio == 0) close<WIDTH>(a, p, at, row, scratch);
    if (!in_use(p, at, a.ratio)) keep<WIDTH>(p, at, row, a.ratio);
}

// After the two kinds of rows there may be heads of the stage before, which nothing here depends on.
struct CompressQueryArgs {
    CompressArgs compress;
    QueryArgs query;
    uint32_t kinds, pad;
};
static_assert(sizeof(CompressQueryArgs) == 168, "mirrored in compressor.rs");

extern "C" __global__ void __launch_bounds__(128) compress(const __grid_constant__ CompressQueryArgs both) {
    __shared__ float scratch[4];
    const CompressArgs& a = both.compress;
    pdl_enter();
    if (blockIdx.y >= both.kinds) {
        finish_head(both.query, blockIdx.x, (blockIdx.y - both.kinds) * 4 + threadIdx.x / 32);
        return;
    }
    const StepRow at = a.step[blockIdx.x];
    if (blockIdx.y == 0)
        compress_row<HEAD>(a, a.attention, at, blockIdx.x, scratch);
    else
        compress_row<INDEX>(a, a.index, at, blockIdx.x, scratch);
}

extern "C" __global__ void __launch_bounds__(128) compress_keep(const __grid_constant__ CompressQueryArgs both) {
    const CompressArgs& a = both.compress;
    pdl_enter();
    const StepRow at = a.step[blockIdx.x];
    const Pool& p = blockIdx.y == 0 ? a.attention : a.index;
    if (!in_use(p, at, a.ratio)) return;
    if (blockIdx.y == 0)
        keep<HEAD>(p, at, blockIdx.x, a.ratio);
    else
        keep<INDEX>(p, at, blockIdx.x, a.ratio);
}
