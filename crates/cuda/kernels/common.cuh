// Shared by every kernel: types, the step, warp sums, f16 without headers, tensor-core fragments, asynchronous copies.
// NVRTC compiles this text alone: no include beside the project's own. Sizes that never change are constants here; counts
// are arguments.
#pragma once

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef short int16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#else
#include <cstdint>
#endif

#define DEVICE static __device__ __forceinline__
#define DEVICE_METHOD __device__ __forceinline__

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA 1
#else
#define HAS_WGMMA 0
#endif
#if __CUDA_ARCH__ >= 900
#define HAS_BULK 1
#else
#define HAS_BULK 0
#endif

constexpr int HC = 4;             // hyper-connection streams
constexpr int MIX = HC + HC * HC; // post weights and Sinkhorn matrix of a row
constexpr int HEAD = 512;         // width of a head, of a window row and of a compressed row
constexpr int ROT = 64;           // its rotated tail
constexpr int NOPE = HEAD - ROT;
constexpr int INDEX = 128;        // width of an indexer head and row
constexpr int WINDOW = 128;       // raw rows that a query sees
constexpr uint32_t NO_LOGITS = 0xffffffffu;

// One row of a step (model/src/batch.rs).
struct StepRow {
    uint32_t token, pos, slot, first, end, logits, state, pad;
};
static_assert(sizeof(StepRow) == 32, "mirrored in batch.rs");

// A table of equal rows for each slot: append-only by row number, or a ring by position (model/src/kv.rs).
struct Rows {
    uint8_t* data;
    uint32_t per_slot, row_bytes;
};
static_assert(sizeof(Rows) == 16, "mirrored in launch.rs");

DEVICE uint8_t* row_at(const Rows& t, uint32_t slot, uint32_t row) {
    return t.data + (size_t(slot) * t.per_slot + row) * t.row_bytes;
}
DEVICE uint8_t* ring_at(const Rows& t, uint32_t slot, uint32_t pos) { return row_at(t, slot, pos % t.per_slot); }

// Compressed rows visible to the query at `pos`.
DEVICE uint32_t visible_rows(uint32_t pos, uint32_t ratio) { return ratio ? (pos + 1) / ratio : 0; }

// ---- programmatic dependent launch: `pdl_trigger` lets the next kernel of the stream start, `pdl_wait` waits until all
// earlier kernels have finished and their writes are seen. Every kernel waits before it touches anything but weights.

DEVICE void pdl_trigger() {
#if HAS_BULK
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
DEVICE void pdl_wait() {
#if HAS_BULK
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Both, for kernels that have nothing to fetch before. The successor starts when this kernel does: were it to start earlier, it
// would take room on multiprocessors from the products still running there.
DEVICE void pdl_enter() {
    pdl_wait();
    pdl_trigger();
}

// The same the other way round, where products follow whose fetching should begin with the predecessor.
DEVICE void pdl_enter_early() {
    pdl_trigger();
    pdl_wait();
}

// ---- warps

DEVICE uint32_t lane_id() { return threadIdx.x & 31; }
// The thread's number in a register for good: the compiler would rather read the slow special register again in every loop.
DEVICE uint32_t held_thread() {
    uint32_t r;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(r));
    return r;
}
DEVICE float warp_sum(float v) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
    return v;
}
DEVICE float warp_max(float v) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}
// Sum over the block, the same in every thread; `scratch` holds a float per warp. Ends with every thread past a barrier.
DEVICE float block_sum(float v, float* scratch) {
    const uint32_t warps = (blockDim.x + 31) / 32;
    v = warp_sum(v);
    __syncthreads();
    if (lane_id() == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (uint32_t w = 0; w < warps; ++w) v += scratch[w];
    return v;
}

// ---- f16, as bits

DEVICE uint16_t f16_of(float x) {
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
DEVICE float f32_of(uint16_t h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}
// Two values in one word, `lo` in the low half.
DEVICE uint32_t f16x2_of(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
DEVICE float f16_lo(uint32_t h2) { return f32_of(uint16_t(h2 & 0xffff)); }
DEVICE float f16_hi(uint32_t h2) { return f32_of(uint16_t(h2 >> 16)); }
DEVICE float f16_max(float x) { return fminf(fmaxf(x, -65504.f), 65504.f); }
// What f16 keeps of `x`, and what it leaves: two halves that together are `x` to 22 bits.
DEVICE void f16_split(float x, uint16_t& hi, uint16_t& lo) {
    x = f16_max(x);
    hi = f16_of(x);
    lo = f16_of(x - f32_of(hi));
}
DEVICE uint32_t hmul2(uint32_t a, uint32_t b) {
    uint32_t r;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
DEVICE uint32_t hsub2(uint32_t a, uint32_t b) {
    uint32_t r;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
DEVICE uint32_t hfma2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
// Bytes of `a` (0..3) and `b` (4..7) chosen by the nibbles of `selector`; bit 3 of a nibble repeats the sign bit.
DEVICE uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
    uint32_t r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
    return r;
}

// ---- scalar functions of the model

DEVICE float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }
DEVICE float swiglu(float gate, float up, float clamp) {
    gate = fminf(gate, clamp);
    up = fminf(fmaxf(up, -clamp), clamp);
    return gate * sigmoid(gate) * up;
}
DEVICE float softplus(float x) { return x > 20.f ? x : (x < -20.f ? expf(x) : log1pf(expf(x))); }
// Sine and cosine of a rotation: the angle is one float32 product, its functions are taken in more precision.
DEVICE void rope_angle(float frequency, uint32_t pos, float& sine, float& cosine) {
    double s, c;
    sincos(double(__fmul_rn(float(pos), frequency)), &s, &c);
    sine = float(s);
    cosine = float(c);
}

// ---- roundings of the model (docs/model.md)

DEVICE float exp2_of(int e) { return __int_as_float(e == -127 ? 1 << 22 : (e + 127) << 23); }
DEVICE int ceil_log2(float t) {
    const int bits = __float_as_int(t);
    return ((bits >> 23) & 0xff) - 127 + ((bits & 0x7fffff) != 0);
}
DEVICE int e4m3_exponent(float largest) {
    return min(max(ceil_log2(__fmul_rn(fmaxf(largest, 1e-4f), 1.f / 448.f)), -127), 127);
}
// Nearest code of `x` in units of the scale, ties to the even code.
DEVICE uint32_t e4m3_code(float x) {
    const uint32_t sign = (__float_as_uint(x) >> 24) & 0x80;
    const float magnitude = fminf(fabsf(x), 448.f);
    uint32_t code;
    if (magnitude < 0.015625f) {
        code = uint32_t(rintf(magnitude * 512.f));
    } else {
        const uint32_t bits = __float_as_uint(magnitude);
        code = ((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - (120 << 3);
    }
    return sign | min(code, 0x7eu);
}
DEVICE float e4m3_value(uint32_t code) {
    const uint32_t m = code & 0x7f;
    const float v = m < 8 ? float(m) * 0.001953125f : __uint_as_float((m << 20) + (120u << 23));
    return code & 0x80 ? -v : v;
}
// Four codes (bytes of `codes`) as two words of f16 pairs, exact.
DEVICE void e4m3_to_f16(uint32_t codes, uint32_t& first, uint32_t& second) {
#if __CUDA_ARCH__ >= 890
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.rn.f16x2.e4m3x2 %0, a; cvt.rn.f16x2.e4m3x2 %1, b; }"
        : "=r"(first), "=r"(second)
        : "r"(codes));
#else
    first = f16x2_of(e4m3_value(codes & 0xff), e4m3_value((codes >> 8) & 0xff));
    second = f16x2_of(e4m3_value((codes >> 16) & 0xff), e4m3_value(codes >> 24));
#endif
}
DEVICE int e2m1_exponent(float largest) {
    return min(max(ceil_log2(__fmul_rn(fmaxf(largest, 6.f * exp2_of(-126)), 1.f / 6.f)), -127), 127);
}
DEVICE uint32_t e2m1_code(float x) {
    const float m = fminf(fabsf(x), 6.f);
    // Middles go to the even code.
    const uint32_t code = (m > 0.25f) + (m >= 0.75f) + (m > 1.25f) + (m >= 1.75f) + (m > 2.5f) + (m >= 3.5f) + (m > 5.f);
    return code | ((__float_as_uint(x) >> 28) & 8);
}
DEVICE float e2m1_value(uint32_t code) {
    const uint32_t m = code & 7;
    const float v = m < 2 ? 0.5f * float(m) : __uint_as_float(((126 + (m >> 1)) << 23) | ((m & 1) << 22));
    return code & 8 ? -v : v;
}

// ---- tensor-core fragments. In m16n8 tiles lane 4 g + t holds rows (columns) g, g + 8 and columns 2 t, 2 t + 1 of the sum.

// c += a * b, a 16 x 16 and b 16 x 8 of f16, c float32.
DEVICE void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// c += a * b, a 16 x 32 and b 32 x 8 of int8, c int32.
DEVICE void mma_s8(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// ---- shared memory, barriers, copies

DEVICE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

DEVICE void mbar_init(uint64_t* bar, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(arrivals) : "memory");
}
// After all `mbar_init`, before a barrier of the block.
DEVICE void mbar_fence_init() {
#if HAS_BULK
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
DEVICE void mbar_arrive_at(uint32_t at) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(at) : "memory");
}
DEVICE void mbar_arrive(uint64_t* bar) { mbar_arrive_at(shared_address(bar)); }
DEVICE void mbar_wait_at(uint32_t at, uint32_t parity) {
    uint32_t done = 0;
    while (!done) {
#if HAS_BULK
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
#else
        asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
#endif
    }
}

DEVICE void mbar_wait(uint64_t* bar, uint32_t parity) { mbar_wait_at(shared_address(bar), parity); }

// A whole warp (the producer) fills a slot of a ring whose `full` barrier counts ONE arrival:
//   fill_begin(full, total); fill(full, dst, src, bytes) ...; fill_end(full);
// Bytes and addresses are multiples of 16. On Hopper and later one lane asks the copy engine; before, the warp copies.
DEVICE void fill_begin(uint64_t* full, uint32_t total) {
#if HAS_BULK
    if (lane_id() == 0) {
        uint64_t state;
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 %0, [%1], %2;"
                     : "=l"(state)
                     : "r"(shared_address(full)), "r"(total)
                     : "memory");
    }
    __syncwarp();
#endif
}
DEVICE void fill(uint64_t* full, void* dst, const void* src, uint32_t bytes) {
#if HAS_BULK
    if (lane_id() == 0) {
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         shared_address(dst)),
                     "l"(src), "r"(bytes), "r"(shared_address(full))
                     : "memory");
    }
#else
    for (uint32_t at = 16 * lane_id(); at < bytes; at += 512)
        *reinterpret_cast<uint4*>(static_cast<char*>(dst) + at) =
            *reinterpret_cast<const uint4*>(static_cast<const char*>(src) + at);
#endif
}
// The same for what is read once in a step: it is the first to leave the second-level cache, and lets activations, arguments and
// instructions stay.
DEVICE void fill_once(uint64_t* full, void* dst, const void* src, uint32_t bytes) {
#if HAS_BULK
    if (lane_id() == 0) {
        uint64_t policy;
        asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
                shared_address(dst)),
            "l"(src), "r"(bytes), "r"(shared_address(full)), "l"(policy)
            : "memory");
    }
#else
    fill(full, dst, src, bytes);
#endif
}
DEVICE void fill_end(uint64_t* full) {
#if !HAS_BULK
    __syncwarp();
    if (lane_id() == 0) mbar_arrive(full);
#endif
}

// A barrier among `threads` threads of the block, one of sixteen by number; 0 is __syncthreads.
DEVICE void named_barrier(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
