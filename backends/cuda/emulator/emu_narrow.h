// What __half and __nv_bfloat16 share: an operation is done in f32 and rounded once, which gives the correctly rounded
// result for + - * / and sqrt because f32 has more than twice their precision.
#pragma once

#define EMU_NARROW_OPERATORS(T)                                                                       \
    static inline T operator+(T a, T b) { return T((float)a + (float)b); }                            \
    static inline T operator-(T a, T b) { return T((float)a - (float)b); }                            \
    static inline T operator*(T a, T b) { return T((float)a * (float)b); }                            \
    static inline T operator/(T a, T b) { return T((float)a / (float)b); }                            \
    static inline T operator+(T a) { return a; }                                                      \
    static inline T operator-(T a) { return T::from_bits(a.bits ^ 0x8000); }                          \
    static inline T& operator+=(T& a, T b) { return a = a + b; }                                      \
    static inline T& operator-=(T& a, T b) { return a = a - b; }                                      \
    static inline T& operator*=(T& a, T b) { return a = a * b; }                                      \
    static inline T& operator/=(T& a, T b) { return a = a / b; }                                      \
    static inline bool operator==(T a, T b) { return (float)a == (float)b; }                          \
    static inline bool operator!=(T a, T b) { return (float)a != (float)b; }                          \
    static inline bool operator<(T a, T b) { return (float)a < (float)b; }                            \
    static inline bool operator>(T a, T b) { return (float)a > (float)b; }                            \
    static inline bool operator<=(T a, T b) { return (float)a <= (float)b; }                          \
    static inline bool operator>=(T a, T b) { return (float)a >= (float)b; }

#define EMU_NARROW_ARITHMETIC(T)                                                                      \
    static inline T __hadd(T a, T b) { return a + b; }                                                \
    static inline T __hsub(T a, T b) { return a - b; }                                                \
    static inline T __hmul(T a, T b) { return a * b; }                                                \
    static inline T __hdiv(T a, T b) { return a / b; }                                                \
    static inline T __hneg(T a) { return -a; }                                                        \
    static inline T __habs(T a) { return T::from_bits(a.bits & 0x7fff); }                             \
    static inline T __hfma(T a, T b, T c) { return T(fma((double)(float)a, (double)(float)b, (double)(float)c)); } \
    static inline T __hmin(T a, T b) { return T(fminf(a, b)); }                                       \
    static inline T __hmax(T a, T b) { return T(fmaxf(a, b)); }                                       \
    static inline bool __heq(T a, T b) { return a == b; }                                             \
    static inline bool __hne(T a, T b) { return a != b && !isnan((float)a) && !isnan((float)b); }     \
    static inline bool __hlt(T a, T b) { return a < b; }                                              \
    static inline bool __hle(T a, T b) { return a <= b; }                                             \
    static inline bool __hgt(T a, T b) { return a > b; }                                              \
    static inline bool __hge(T a, T b) { return a >= b; }                                             \
    static inline bool __hisnan(T a) { return isnan((float)a); }                                      \
    static inline int __hisinf(T a) { return isinf((float)a) ? ((float)a > 0 ? 1 : -1) : 0; }

#define EMU_NARROW_MATH(T)                                                                            \
    static inline T hexp(T a) { return T(expf(a)); }                                                  \
    static inline T hexp2(T a) { return T(exp2f(a)); }                                                \
    static inline T hexp10(T a) { return T(exp10f(a)); }                                              \
    static inline T hlog(T a) { return T(logf(a)); }                                                  \
    static inline T hlog2(T a) { return T(log2f(a)); }                                                \
    static inline T hlog10(T a) { return T(log10f(a)); }                                              \
    static inline T hsin(T a) { return T(sinf(a)); }                                                  \
    static inline T hcos(T a) { return T(cosf(a)); }                                                  \
    static inline T htanh(T a) { return T(tanhf(a)); }                                                \
    static inline T hsqrt(T a) { return T(sqrtf(a)); }                                                \
    static inline T hrsqrt(T a) { return T(1.f / sqrtf(a)); }                                         \
    static inline T hrcp(T a) { return T(1.f / (float)a); }                                           \
    static inline T hfloor(T a) { return T(floorf(a)); }                                              \
    static inline T hceil(T a) { return T(ceilf(a)); }                                                \
    static inline T hrint(T a) { return T(rintf(a)); }                                                \
    static inline T htrunc(T a) { return T(truncf(a)); }

// Pairs: lane by lane.
#define EMU_NARROW_PAIR(T, T2)                                                                        \
    static inline T2 __hadd2(T2 a, T2 b) { return {a.x + b.x, a.y + b.y}; }                           \
    static inline T2 __hsub2(T2 a, T2 b) { return {a.x - b.x, a.y - b.y}; }                           \
    static inline T2 __hmul2(T2 a, T2 b) { return {a.x * b.x, a.y * b.y}; }                           \
    static inline T2 __h2div(T2 a, T2 b) { return {a.x / b.x, a.y / b.y}; }                           \
    static inline T2 __hneg2(T2 a) { return {-a.x, -a.y}; }                                           \
    static inline T2 __hfma2(T2 a, T2 b, T2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
    static inline T2 __hmin2(T2 a, T2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }             \
    static inline T2 __hmax2(T2 a, T2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }             \
    static inline T2 h2exp(T2 a) { return {hexp(a.x), hexp(a.y)}; }                                   \
    static inline float __low2float(T2 a) { return (float)a.x; }                                      \
    static inline float __high2float(T2 a) { return (float)a.y; }                                     \
    static inline T2 operator+(T2 a, T2 b) { return __hadd2(a, b); }                                  \
    static inline T2 operator-(T2 a, T2 b) { return __hsub2(a, b); }                                  \
    static inline T2 operator*(T2 a, T2 b) { return __hmul2(a, b); }                                  \
    static inline T2 operator/(T2 a, T2 b) { return __h2div(a, b); }

// Conversions between T, called `name` in their names, and the other arithmetic types.
#define EMU_NARROW_CONVERSIONS(T, name)                                                               \
    static inline T __float2##name(float x) { return T(x); }                                          \
    static inline T __float2##name##_rn(float x) { return T(x); }                                     \
    static inline T __double2##name(double x) { return T(x); }                                        \
    static inline T __int2##name##_rn(int x) { return T((double)x); }                                 \
    static inline T __uint2##name##_rn(unsigned x) { return T((double)x); }                           \
    static inline T __short2##name##_rn(short x) { return T((float)x); }                              \
    static inline T __ushort2##name##_rn(unsigned short x) { return T((float)x); }                    \
    static inline float __##name##2float(T a) { return (float)a; }                                    \
    static inline int __##name##2int_rn(T a) { return __float2int_rn((float)a); }                     \
    static inline int __##name##2int_rz(T a) { return __float2int_rz((float)a); }                     \
    static inline int __##name##2int_rd(T a) { return __float2int_rd((float)a); }                     \
    static inline int __##name##2int_ru(T a) { return __float2int_ru((float)a); }                     \
    static inline unsigned __##name##2uint_rz(T a) { return __float2uint_rz((float)a); }              \
    static inline long long __##name##2ll_rz(T a) { return __float2ll_rz((float)a); }                 \
    static inline unsigned long long __##name##2ull_rz(T a) { return __float2ull_rz((float)a); }      \
    static inline unsigned short __##name##_as_ushort(T a) { return a.bits; }                         \
    static inline short __##name##_as_short(T a) { return (short)a.bits; }                            \
    static inline T __ushort_as_##name(unsigned short bits) { return T::from_bits(bits); }            \
    static inline T __short_as_##name(short bits) { return T::from_bits((unsigned short)bits); }
