// Matrix products of prefill: out[token][row] = sum over k of W[row][k] * x[token][k], weights decoded in registers (operand A),
// packed f16 activations from shared memory (operand B, CONTRACT "packed activations"), float32 sums.
//
// A CTA is two consumer warpgroups and one producer warp. A warpgroup owns MB blocks of 64 rows, a warp 16 of each; all share N tokens.
// Two rings of bulk copies: weights (a slot = STEPS steps of 128 k of every row block) and activations (a slot = 128 k of N tokens).
// Two sets of fragments take turns, so 64 k are decoded while the tensor cores work on the 64 before.
// Without wgmma the same slots feed mma.sync: a warp's sums lie in the same registers.
#pragma once
#include "common.cuh"

constexpr int CONSUMERS = 256, THREADS = CONSUMERS + 128; // only one producer warp works; its warpgroup gives registers away
constexpr int STEP = 128;                                // k of one step

#if HAS_WGMMA
// Operand lists: sums are %0.., then the four registers of A, then the descriptor of B.
#define SUMS_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define SUMS_16 SUMS_8 "," "%8,%9,%10,%11,%12,%13,%14,%15"
#define SUMS_24 SUMS_16 "," "%16,%17,%18,%19,%20,%21,%22,%23"
#define SUMS_32 SUMS_24 "," "%24,%25,%26,%27,%28,%29,%30,%31"
#define SUMS_40 SUMS_32 "," "%32,%33,%34,%35,%36,%37,%38,%39"
#define SUMS_48 SUMS_40 "," "%40,%41,%42,%43,%44,%45,%46,%47"
#define SUMS_56 SUMS_48 "," "%48,%49,%50,%51,%52,%53,%54,%55"
#define SUMS_64 SUMS_56 "," "%56,%57,%58,%59,%60,%61,%62,%63"
#define OUT_8(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define OUT_LIST_8 OUT_8(0)
#define OUT_LIST_16 OUT_LIST_8, OUT_8(8)
#define OUT_LIST_24 OUT_LIST_16, OUT_8(16)
#define OUT_LIST_32 OUT_LIST_24, OUT_8(24)
#define OUT_LIST_40 OUT_LIST_32, OUT_8(32)
#define OUT_LIST_48 OUT_LIST_40, OUT_8(40)
#define OUT_LIST_56 OUT_LIST_48, OUT_8(48)
#define OUT_LIST_64 OUT_LIST_56, OUT_8(56)
// c += A * B: 64 rows x N tokens x 16 k of f16.
template <int N> struct Wgmma;
#define WGMMA(N, COUNT, A0, A1, A2, A3, B)                                                                              \
    template <> struct Wgmma<N> {                                                                                      \
        static __device__ __forceinline__ void run(float (&c)[COUNT], const uint32_t (&a)[4], uint64_t b) {            \
            asm volatile("{ .reg .pred p; setp.eq.b32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n" #N                   \
                         "k16.f32.f16.f16 {" SUMS_##COUNT "}, {%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 "}, %" #B             \
                         ", p, 1, 1, 0; }"                                                                             \
                         : OUT_LIST_##COUNT                                                                            \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                        \
        }                                                                                                              \
    };
WGMMA(16, 8, 8, 9, 10, 11, 12)
WGMMA(32, 16, 16, 17, 18, 19, 20)
WGMMA(48, 24, 24, 25, 26, 27, 28)
WGMMA(64, 32, 32, 33, 34, 35, 36)
WGMMA(80, 40, 40, 41, 42, 43, 44)
WGMMA(96, 48, 48, 49, 50, 51, 52)
WGMMA(112, 56, 56, 57, 58, 59, 60)
WGMMA(128, 64, 64, 65, 66, 67, 68)
#endif

// First in each role: registers move from the producer's warpgroup to the consumers (168 each at the launch; 2 x 232 + 40 fit).
DEVICE void producer_registers() {
#if HAS_WGMMA
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
#endif
}
DEVICE void consumer_registers() {
#if HAS_WGMMA
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
#endif
}

// An index and parity that walk round a ring. `full` counts the producer's arrival, `empty` one of each consumer warp.
struct Ring {
    uint64_t *full, *empty;
    uint8_t* slots;
    uint32_t bytes, count, at, parity;

    __device__ __forceinline__ uint8_t* slot() const { return slots + at * bytes; }
    __device__ __forceinline__ void advance() {
        if (++at == count) at = 0, parity ^= 1;
    }
    __device__ __forceinline__ void wait_full() const { mbar_wait(full + at, parity); }
    __device__ __forceinline__ void wait_empty() const { mbar_wait(empty + at, parity ^ 1); }
};
constexpr int MAX_SLOTS = 12;

DEVICE void ring_init(Ring& ring, uint64_t (&bars)[2 * MAX_SLOTS], uint8_t* slots, uint32_t bytes, uint32_t count) {
    ring = Ring{bars, bars + MAX_SLOTS, slots, bytes, count, 0, 0};
    if (threadIdx.x == 0) {
        for (uint32_t i = 0; i < count; ++i) mbar_init(ring.full + i, 1), mbar_init(ring.empty + i, CONSUMERS / 32);
    }
}
// One arrival of this warp, after all its lanes have read the slot, unless `skip`. Predicated: a branch amid wgmma serialises it.
DEVICE void release(const Ring& ring, uint32_t slot, bool skip = false) {
    __syncwarp();
    asm volatile("{ .reg .pred p; .reg .b64 state; setp.eq.u32 p, %1, 0; @p mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(
                     shared_address(ring.empty + slot)),
                 "r"(lane_id() | uint32_t(skip))
                 : "memory");
}

// Dynamic shared memory from its first address that a swizzled slot may have; the host asks for 1024 bytes more than the slots.
DEVICE uint8_t* aligned_shared() {
    extern __shared__ uint8_t dynamic_shared[];
    return dynamic_shared + (-shared_address(dynamic_shared) & 1023);
}

// N rows of packed activations, from `row` on (a multiple of 8), blocks of 64 k `block` and `block` + 1.
DEVICE void fill_tokens(Ring& ring, const uint8_t* packed, uint32_t tpad, uint32_t row, uint32_t block, uint32_t n) {
    ring.wait_empty();
    uint64_t* full = ring.full + ring.at;
    fill_begin(full, 2 * n * 128);
    for (uint32_t i = 0; i < 2; ++i)
        fill(full, ring.slot() + i * n * 128, packed + (size_t(block + i) * (tpad / 8) + row / 8) * 1024, n * 128);
    fill_end(full);
    ring.advance();
}

// The sums of one 64 x N block += fragments of 64 k * one block of 64 k of tokens.
template <int N> DEVICE void multiply(float (&c)[N / 2], uint32_t (&a)[4][4], const uint8_t* tokens) {
#if HAS_WGMMA
#pragma unroll
    for (int i = 0; i < 16; ++i) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory"); // decoded before the fence
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    // K-major, 128-byte swizzle: groups of eight tokens are 1024 bytes apart, a step of 16 k is 32 bytes further.
    const uint64_t b = (uint64_t(1) << 62) | (uint64_t(1024 >> 4) << 32) | (uint64_t(1) << 16) | ((shared_address(tokens) & 0x3ffff) >> 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) Wgmma<N>::run(c, a[i], b + 2 * i);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
    const uint32_t g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
    for (int j = 0; j < N / 8; ++j) {
        float d[4] = {c[4 * j], c[4 * j + 1], c[4 * j + 2], c[4 * j + 3]};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint8_t* row = tokens + j * 1024 + g * 128 + 4 * t;
            mma_f16(d, a[i], *reinterpret_cast<const uint32_t*>(row + ((2 * i) ^ g) * 16),
                    *reinterpret_cast<const uint32_t*>(row + ((2 * i + 1) ^ g) * 16));
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) c[4 * j + i] = d[i];
    }
#endif
}
// All but the latest LEFT calls of `multiply` are done.
template <int LEFT> DEVICE void multiplied() {
#if HAS_WGMMA
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
#endif
}

// Where a thread stands, read anew for each product: what is derived from it stays out of the registers of other code.
struct Place {
    uint32_t lane, g, warp; // lane / 4; of the block
};
DEVICE Place place() {
    uint32_t thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return Place{thread % 32, thread % 32 / 4, thread / 32};
}

// One product of a consumer: acc[mb][4 j + i] is, of this warp's 16 rows in block mb, row g + 8 (i / 2) and token 8 j + 2 t + i % 2.
// `Source` decodes: load(at, slot, mb, part) reads what a warp needs of part `part` of a weight slot, decode(raw, k, a) makes 64 k of it.
template <class Source, int MB, int N> DEVICE void product(Ring& weights, Ring& tokens, float (&acc)[MB][N / 2], uint32_t steps) {
    uint32_t a[2][4][4];
    uint32_t last = 0;
    const Place at = place();
#pragma unroll
    for (int i = 0; i < MB * N / 2; ++i) acc[i / (N / 2)][i % (N / 2)] = 0;
    for (uint32_t step = 0; step < steps; ++step) {
        const uint32_t part = step % Source::STEPS;
        if (part == 0) weights.wait_full();
        tokens.wait_full();
        const uint8_t* slot = weights.slot();
#pragma unroll
        for (int mb = 0; mb < MB; ++mb) {
            const typename Source::Raw raw = Source::load(at, slot, mb, part);
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                Source::decode(at, raw, k, a[k]);
                multiply<N>(acc[mb], a[k], tokens.slot() + k * N * 128);
                multiplied<1>();
                if (mb == 0 && k == 0) release(tokens, last, step == 0);
            }
        }
        if (part == Source::STEPS - 1) {
            release(weights, weights.at);
            weights.advance();
        }
        last = tokens.at;
        tokens.advance();
    }
    multiplied<0>();
#pragma unroll
    for (int i = 0; i < MB * N / 2; ++i) asm volatile("" : "+f"(acc[i / (N / 2)][i % (N / 2)])::"memory"); // read only now
    release(tokens, last);
}

// ---- decoding helpers: pairs of small unsigned codes as f16, by 1024 + u

constexpr uint32_t BIAS = 0x64006400; // 1024, twice
// Bytes 0, 1 (HIGH: 2, 3) of `w` as 1024 + byte.
template <bool HIGH> DEVICE uint32_t biased(uint32_t w) { return prmt(w, BIAS, HIGH ? 0x7372 : 0x7170); }
