// CUDA C as C++ for the CPU: the qualifiers, the built-in variables, barriers, warp operations, atomics and intrinsics.
//
// Every batch of kernels parses this, so it includes no system header and instantiates nothing by itself; what runs the
// threads is in runtime.cpp. The names are CUDA's own, their meaning that of the CUDA C++ Programming Guide and of
// the CUDA Math API. Not there: inline PTX, textures, cooperative groups, device-side launches.
#pragma once
#include "emu_abi.h"

#define __CUDA_EMU__ 1

#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
// Inlined into the function that runs one thread of it, and dropped when the batch does not offer it.
#define __global__ inline __attribute__((always_inline))

static emu_state emu_self;

#define threadIdx (emu_self.thread)
#define blockIdx (emu_self.block)
#define blockDim (emu_self.block_dim)
#define gridDim (emu_self.grid_dim)
#define warpSize 32

extern "C" void* memcpy(void*, const void*, size_t);
extern "C" void* memset(void*, int, size_t);
extern "C" int printf(const char*, ...);

// Follows the declaration of shared memory, a static variable here: the first thread of a block to pass poisons it.
#define EMU_SHARED(name)                                             \
    static unsigned long long emu_serial_of_##name;                  \
    if (emu_serial_of_##name != emu_self.block_serial) {             \
        emu_serial_of_##name = emu_self.block_serial;                \
        emu_self.shared_bytes += sizeof name;                        \
        memset(&name, 0xff, sizeof name);                            \
    }

template <class To, class From>
static inline To emu_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast between types of different sizes");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

template <class T>
struct emu_same {  // keeps an argument out of type deduction
    typedef T type;
};

#include "emu_math.h"
#include "emu_vector.h"

// ---- barriers and warps ---------------------------------------------------------------------------------------------

#define EMU_LINE unsigned emu_line = __builtin_LINE()

static inline void __syncthreads(EMU_LINE) { emu_self.runtime->block_sync(emu_line, 0); }
static inline int __syncthreads_count(int p, EMU_LINE) { return emu_self.runtime->block_sync(emu_line, p != 0); }
static inline int __syncthreads_or(int p, EMU_LINE) { return emu_self.runtime->block_sync(emu_line, p != 0) != 0; }
static inline int __syncthreads_and(int p, EMU_LINE) { return emu_self.runtime->block_sync(emu_line, p == 0) == 0; }

static inline void __syncwarp(unsigned mask = ~0u, EMU_LINE) {
    emu_self.runtime->warp(EMU_WARP_SYNC, emu_line, mask, 0, 0);
}
static inline unsigned __ballot_sync(unsigned mask, int p, EMU_LINE) {
    return (unsigned)emu_self.runtime->warp(EMU_WARP_BALLOT, emu_line, mask, p != 0, 0);
}
static inline int __any_sync(unsigned mask, int p, EMU_LINE) { return __ballot_sync(mask, p, emu_line) != 0; }
static inline int __all_sync(unsigned mask, int p, EMU_LINE) { return __ballot_sync(mask, !p, emu_line) == 0; }
static inline unsigned __activemask() { return emu_self.runtime->active_lanes(); }

static inline unsigned emu_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <class T>
static inline T emu_shuffle(unsigned mask, T value, unsigned source, unsigned line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = emu_self.runtime->warp(EMU_WARP_SHUFFLE, line, mask, bits, source);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMU_LINE) {
    return emu_shuffle(mask, value, (emu_lane() & ~(width - 1)) + (source & (width - 1)), emu_line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMU_LINE) {
    unsigned lane = emu_lane(), source = lane ^ lanes;
    return emu_shuffle(mask, value, source < (lane & ~(width - 1)) + width ? source : lane, emu_line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_LINE) {
    unsigned lane = emu_lane();
    return emu_shuffle(mask, value, (lane & (width - 1)) >= delta ? lane - delta : lane, emu_line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_LINE) {
    unsigned lane = emu_lane();
    return emu_shuffle(mask, value, (lane & (width - 1)) + delta < (unsigned)width ? lane + delta : lane, emu_line);
}
template <class T>
static inline unsigned __match_any_sync(unsigned mask, T value, EMU_LINE) {
    unsigned equal = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1 && emu_shuffle(mask, value, lane, emu_line) == value) equal |= 1u << lane;
    return equal;
}

#define EMU_WARP_REDUCE(name, T, expression)                                              \
    static inline T name(unsigned mask, T value, EMU_LINE) {                              \
        unsigned first = __builtin_ctz(mask);                                             \
        T a = emu_shuffle(mask, value, first, emu_line);                                  \
        for (unsigned lane = first + 1; lane < 32; lane++) {                              \
            if (!(mask >> lane & 1)) continue;                                            \
            T b = emu_shuffle(mask, value, lane, emu_line);                               \
            a = expression;                                                               \
        }                                                                                 \
        return a;                                                                         \
    }
EMU_WARP_REDUCE(__reduce_add_sync, int, a + b)
EMU_WARP_REDUCE(__reduce_min_sync, int, a < b ? a : b)
EMU_WARP_REDUCE(__reduce_max_sync, int, a > b ? a : b)
EMU_WARP_REDUCE(__reduce_add_sync, unsigned, a + b)
EMU_WARP_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
EMU_WARP_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
EMU_WARP_REDUCE(__reduce_and_sync, unsigned, a & b)
EMU_WARP_REDUCE(__reduce_or_sync, unsigned, a | b)
EMU_WARP_REDUCE(__reduce_xor_sync, unsigned, a ^ b)

static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
static inline void __trap() { emu_self.runtime->fail("__trap()"); }
#define assert(condition) ((condition) ? (void)0 : emu_self.runtime->fail("a failed assert(" #condition ")"))

// ---- memory ---------------------------------------------------------------------------------------------------------

// One thread runs at a time, and no atomic waits for another thread: a plain read and write is atomic.
#define EMU_ATOMIC(name, expression)                                  \
    template <class T>                                                \
    static inline T name(T* address, typename emu_same<T>::type b) {  \
        T a = *address;                                               \
        *address = expression;                                        \
        return a;                                                     \
    }
EMU_ATOMIC(atomicAdd, a + b)
EMU_ATOMIC(atomicSub, a - b)
EMU_ATOMIC(atomicExch, b)
EMU_ATOMIC(atomicMin, b < a ? b : a)
EMU_ATOMIC(atomicMax, b > a ? b : a)
EMU_ATOMIC(atomicAnd, a & b)
EMU_ATOMIC(atomicOr, a | b)
EMU_ATOMIC(atomicXor, a ^ b)
EMU_ATOMIC(atomicInc, a >= b ? 0 : a + 1)
EMU_ATOMIC(atomicDec, a == 0 || a > b ? b : a - 1)

template <class T>
static inline T atomicCAS(T* address, typename emu_same<T>::type expected, typename emu_same<T>::type desired) {
    T old = *address;
    if (__builtin_memcmp(&old, &expected, sizeof old) == 0) *address = desired;
    return old;
}

template <class T>
static inline T __ldg(const T* address) {
    return *address;
}
template <class T>
static inline T __ldcs(const T* address) {
    return *address;
}
template <class T>
static inline void __stcs(T* address, typename emu_same<T>::type value) {
    *address = value;
}
