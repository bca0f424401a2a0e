// query, where nothing else runs beside it (query.cuh).   grid: (rows, ceil(heads / 4)), 128 threads
#include "query.cuh"

extern "C" __global__ void __launch_bounds__(128) query_finish(const QueryArgs a) {
    finish_head(a, blockIdx.x, blockIdx.y * 4 + threadIdx.x / 32);
}
