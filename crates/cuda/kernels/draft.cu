// keep_streams and draft_embed: the states a draft block starts from, and its input.
//   keep_streams: streams of each row to the ring row of its `state`; of a long span only the last rows.   grid: rows
//   draft_norm: the token's row and the kept streams, each normed, as inputs of two products.               grid: (rows, 1 + HC)
//   draft_add: streams[row][h] += e[row].                                                                 grid: rows
#include "common.cuh"

struct KeepArgs {
    const StepRow* step;
    const float* streams;
    Rows hidden;
};
static_assert(sizeof(KeepArgs) == 32, "mirrored in draft.rs");

extern "C" __global__ void keep_streams(const KeepArgs a) {
    pdl_enter();
    const StepRow at = a.step[blockIdx.x];
    if (at.end - at.pos > a.hidden.per_slot) return;
    float4* to = reinterpret_cast<float4*>(ring_at(a.hidden, at.slot, at.state));
    const float4* from = reinterpret_cast<const float4*>(a.streams + size_t(blockIdx.x) * HC * N_EMBD);
    for (uint32_t i = threadIdx.x; i < HC * N_EMBD / 4; i += blockDim.x) to[i] = from[i];
}

struct DraftNormArgs {
    const StepRow* step;
    const uint16_t* table; // [N_VOCAB][N_EMBD] f16
    const float* enorm;
    const float* hnorm;
    float* token;          // [rows][N_EMBD]
    float* state;          // [rows][HC][N_EMBD]
    Rows hidden;
    float rms_eps;
    uint32_t pad;
};
static_assert(sizeof(DraftNormArgs) == 72, "mirrored in draft.rs");

extern "C" __global__ void draft_norm(const DraftNormArgs a) {
    __shared__ float scratch[32];
    pdl_enter();
    const StepRow at = a.step[blockIdx.x];
    const bool token = blockIdx.y == 0;
    const uint16_t* embedded = a.table + size_t(at.token) * N_EMBD;
    const uint32_t h = token ? 0 : blockIdx.y - 1;
    const float* kept = reinterpret_cast<const float*>(ring_at(a.hidden, at.slot, at.pos)) + h * N_EMBD;
    float sum = 0;
    for (uint32_t d = threadIdx.x; d < N_EMBD; d += blockDim.x) {
        const float x = token ? f32_of(embedded[d]) : kept[d];
        sum += x * x;
    }
    const float scale = rsqrtf(block_sum(sum, scratch) / N_EMBD + a.rms_eps);
    const float* norm = token ? a.enorm : a.hnorm;
    float* to = token ? a.token + size_t(blockIdx.x) * N_EMBD : a.state + (size_t(blockIdx.x) * HC + h) * N_EMBD;
    for (uint32_t d = threadIdx.x; d < N_EMBD; d += blockDim.x) to[d] = (token ? f32_of(embedded[d]) : kept[d]) * scale * norm[d];
}

struct DraftAddArgs {
    const float* e; // [rows][N_EMBD]
    float* streams; // [rows][HC][N_EMBD]
};
static_assert(sizeof(DraftAddArgs) == 16, "mirrored in draft.rs");

extern "C" __global__ void draft_add(const DraftAddArgs a) {
    pdl_enter();
    const float* e = a.e + size_t(blockIdx.x) * N_EMBD;
    float* streams = a.streams + size_t(blockIdx.x) * HC * N_EMBD;
    for (uint32_t i = threadIdx.x; i < HC * N_EMBD; i += blockDim.x) streams[i] += e[i % N_EMBD];
}
