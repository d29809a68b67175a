// CUDA's bfloat16: the upper half of an f32, rounded to nearest even after every operation; a NaN becomes 0x7fff.
#pragma once
#include "cuda_emu.h"
#include "emu_narrow.h"

struct __nv_bfloat16 {
    unsigned short bits;

    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        unsigned wide = emu_bits<unsigned>(x);
        bits = isnan(x) ? 0x7fff : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
    }
    // To odd in f32 first: the second rounding then decides as if it were the only one.
    explicit __nv_bfloat16(double x) {
        float near = (float)x;
        unsigned wide = emu_bits<unsigned>(near);
        if (isfinite(near) && near != x) wide = (fabs((double)near) > fabs(x) ? wide - 1 : wide) | 1;
        *this = emu_bits<float>(wide);
    }
    explicit __nv_bfloat16(int x) : __nv_bfloat16((double)x) {}
    explicit __nv_bfloat16(unsigned x) : __nv_bfloat16((double)x) {}
    explicit __nv_bfloat16(long long x) : __nv_bfloat16((float)x) {}
    explicit __nv_bfloat16(unsigned long long x) : __nv_bfloat16((float)x) {}
    operator float() const { return emu_bits<float>((unsigned)bits << 16); }

    static __nv_bfloat16 from_bits(unsigned short bits) {
        __nv_bfloat16 narrow;
        narrow.bits = bits;
        return narrow;
    }
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

EMU_NARROW_OPERATORS(__nv_bfloat16)
EMU_NARROW_ARITHMETIC(__nv_bfloat16)
EMU_NARROW_MATH(__nv_bfloat16)
EMU_NARROW_PAIR(__nv_bfloat16, __nv_bfloat162)
EMU_NARROW_CONVERSIONS(__nv_bfloat16, bfloat16)

static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 a) { return a.x; }
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 a) { return a.y; }
static inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
static inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 a) { return {a, a}; }
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) { return {a, b}; }
static inline __nv_bfloat162 __float2bfloat162_rn(float x) { return {x, x}; }
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
static inline __nv_bfloat162 __float22bfloat162_rn(float2 a) { return {a.x, a.y}; }
static inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {a.x, a.y}; }
