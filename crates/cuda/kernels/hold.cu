// hold: keeps the stream busy until a time has passed, so that what is enqueued meanwhile runs without gaps afterwards.
#include "common.cuh"

struct HoldArgs {
    uint64_t nanoseconds;
};
static_assert(sizeof(HoldArgs) == 8, "mirrored in clock.rs");

DEVICE uint64_t now() {
    uint64_t t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}

extern "C" __global__ void hold(const HoldArgs a) {
    pdl_wait();
    const uint64_t start = now();
    while (now() - start < a.nanoseconds) __nanosleep(1000);
}
