// CUDA's half precision: 16 bits of storage, rounded after every operation.
#pragma once
#include "cuda_emu.h"
#include "emu_narrow.h"

struct __half {
    unsigned short bits;

    __half() = default;
    __half(float x) : bits(emu_bits<unsigned short>((_Float16)x)) {}
    explicit __half(double x) : bits(emu_bits<unsigned short>((_Float16)x)) {}
    explicit __half(int x) : __half((double)x) {}
    explicit __half(unsigned x) : __half((double)x) {}
    explicit __half(long long x) : __half((float)x) {}
    explicit __half(unsigned long long x) : __half((float)x) {}
    operator float() const { return (float)emu_bits<_Float16>(bits); }

    static __half from_bits(unsigned short bits) {
        __half half;
        half.bits = bits;
        return half;
    }
};
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half half;
typedef __half2 half2;

EMU_NARROW_OPERATORS(__half)
EMU_NARROW_ARITHMETIC(__half)
EMU_NARROW_MATH(__half)
EMU_NARROW_PAIR(__half, __half2)
EMU_NARROW_CONVERSIONS(__half, half)

static inline __half __low2half(__half2 a) { return a.x; }
static inline __half __high2half(__half2 a) { return a.y; }
static inline __half2 make_half2(__half x, __half y) { return {x, y}; }
static inline __half2 __half2half2(__half a) { return {a, a}; }
static inline __half2 __halves2half2(__half a, __half b) { return {a, b}; }
static inline __half2 __float2half2_rn(float x) { return {x, x}; }
static inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
static inline __half2 __float22half2_rn(float2 a) { return {a.x, a.y}; }
static inline float2 __half22float2(__half2 a) { return {a.x, a.y}; }
