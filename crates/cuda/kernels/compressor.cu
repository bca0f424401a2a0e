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

// Value and gate rows of the `count` tokens up to that of step row `row`: the last ones of this step, earlier ones of the ring.
template <int WIDTH> struct Inputs {
    uint64_t step, ring; // addresses of the first token's, each as if it were there
    uint32_t in_ring, place, per_slot, row_bytes;
    DEVICE_METHOD Inputs(const Pool& p, const StepRow& at, uint32_t row, uint32_t count, uint32_t ratio) {
        const uint32_t first = at.pos + 1 - count;
        row_bytes = 4 * row_floats<WIDTH>(ratio);
        step = uint64_t(p.inputs) + (int64_t(row) + 1 - int64_t(count)) * row_bytes;
        ring = uint64_t(row_at(p.frontier, at.slot, 0));
        in_ring = first < at.first ? at.first - first : 0;
        per_slot = p.frontier.per_slot, place = first % per_slot;
    }
    // Of token `i`; without a branch, so that many loads can be on their way at once.
    DEVICE_METHOD const float* at(uint32_t i) const {
        const uint32_t wrapped = place + i - (place + i >= per_slot ? per_slot : 0);
        const uint64_t there = ring + uint64_t(wrapped) * row_bytes, here = step + uint64_t(i) * row_bytes;
        return reinterpret_cast<const float*>(i < in_ring ? there : here);
    }
};

// Channels 4 threadIdx.x .. + 3 of the pooled row: the largest gates, then the sums in the order of the tokens.
template <int WIDTH> DEVICE void pool(const Pool& p, const StepRow& at, uint32_t row, uint32_t ratio, float (&v)[4]) {
    constexpr uint32_t BATCH = 8;
    const uint32_t width = row_floats<WIDTH>(ratio) / 2, d = 4 * threadIdx.x;
    const uint32_t count = ratio == 4 && at.pos + 1 >= 2 * ratio ? 2 * ratio : ratio, second = count - ratio;
    const Inputs<WIDTH> inputs(p, at, row, count, ratio);
    // Of ratio 4 the window before enters by its first halves, this one by its second.
    auto input = [&](uint32_t i) { return inputs.at(i) + (ratio == 4 && i >= second ? WIDTH : 0) + d; };
    float top[4], total[4] = {}, sum[4] = {};
    for (int i = 0; i < 4; ++i) top[i] = -__int_as_float(0x7f800000);
    const float least = -__int_as_float(0x7f800000);
    for (uint32_t first = 0; first < count; first += BATCH) {
        float4 g[BATCH];
#pragma unroll
        for (uint32_t j = 0; j < BATCH; ++j)
            g[j] = first + j < count ? *reinterpret_cast<const float4*>(input(first + j) + width) : float4{least, least, least, least};
#pragma unroll
        for (uint32_t j = 0; j < BATCH; ++j)
            top[0] = fmaxf(top[0], g[j].x), top[1] = fmaxf(top[1], g[j].y), top[2] = fmaxf(top[2], g[j].z), top[3] = fmaxf(top[3], g[j].w);
    }
    for (uint32_t first = 0; first < count; first += BATCH) {
        float4 g4[BATCH], x4[BATCH];
#pragma unroll
        for (uint32_t j = 0; j < BATCH; ++j) {
            const float* in = input(min(first + j, count - 1));
            g4[j] = *reinterpret_cast<const float4*>(in + width), x4[j] = *reinterpret_cast<const float4*>(in);
        }
#pragma unroll
        for (uint32_t j = 0; j < BATCH; ++j) {
            const float g[4] = {g4[j].x, g4[j].y, g4[j].z, g4[j].w}, x[4] = {x4[j].x, x4[j].y, x4[j].z, x4[j].w};
            if (first + j >= count) break;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float w = expf(g[i] - top[i]);
                total[i] += w;
                sum[i] = __fmaf_rn(w, x[i], sum[i]);
            }
        }
    }
    for (int i = 0; i < 4; ++i) v[i] = sum[i] / total[i];
}

// Waits for the inputs itself.
template <int WIDTH> DEVICE void close(const CompressArgs& a, const Pool& p, const StepRow& at, uint32_t row, float* scratch) {
    const bool mine = 4 * threadIdx.x < WIDTH;
    const Rotation rotation = rotation4(4 * threadIdx.x, WIDTH, a.frequencies, at.pos + 1 - a.ratio);
    float norm[4] = {}, v[4] = {}, sum = 0;
    for (int i = 0; mine && i < 4; ++i) norm[i] = p.norm[4 * threadIdx.x + i];
    pdl_enter();
    if (mine) pool<WIDTH>(p, at, row, a.ratio, v);
    for (int i = 0; i < 4; ++i) sum += v[i] * v[i];
    const float scale = rsqrtf(block_sum(sum, scratch) / WIDTH + a.rms_eps);
    if (!mine) return;
    for (int i = 0; i < 4; ++i) v[i] = v[i] * scale * norm[i];
    rotate4(v, rotation);
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
    else pdl_enter();
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
