// embed: the token's row, copied into each hyper-connection stream.
//   table [N_VOCAB][N_EMBD] f16        streams [rows][HC][N_EMBD] f32        row = blockIdx.x
#include "common.cuh"

struct EmbedArgs {
    const StepRow* step;
    const uint16_t* table;
    float* streams;
};
static_assert(sizeof(EmbedArgs) == 24, "mirrored in embed.rs");

extern "C" __global__ void embed(const EmbedArgs a) {
    pdl_enter();
    const uint16_t* from = a.table + size_t(a.step[blockIdx.x].token) * N_EMBD;
    float* to = a.streams + size_t(blockIdx.x) * HC * N_EMBD;
    for (uint32_t d = threadIdx.x; d < N_EMBD; d += blockDim.x) {
        const float x = f32_of(from[d]);
        for (int h = 0; h < HC; ++h) to[h * N_EMBD + d] = x;
    }
}
