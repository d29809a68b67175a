// The CUDA Math API over the C library: f32 and f64 functions, C++ overloads, and the bit and rounding intrinsics.
#pragma once

// ---- functions of <math.h>, declared here since the header itself costs more to parse than a kernel -----------------

#define EMU_MATH_1(name)                 \
    extern "C" double name(double);      \
    extern "C" float name##f(float);     \
    static inline float name(float x) { return name##f(x); }
#define EMU_MATH_2(name)                        \
    extern "C" double name(double, double);     \
    extern "C" float name##f(float, float);     \
    static inline float name(float x, float y) { return name##f(x, y); }
#define EMU_MATH_3(name)                                \
    extern "C" double name(double, double, double);     \
    extern "C" float name##f(float, float, float);      \
    static inline float name(float x, float y, float z) { return name##f(x, y, z); }
// A function whose other types differ from its floating one: its result, then its second parameter.
#define EMU_MATH_TO(R, name)         \
    extern "C" R name(double);       \
    extern "C" R name##f(float);     \
    static inline R name(float x) { return name##f(x); }
#define EMU_MATH_WITH(name, P)              \
    extern "C" double name(double, P);      \
    extern "C" float name##f(float, P);     \
    static inline float name(float x, P p) { return name##f(x, p); }

EMU_MATH_1(acos) EMU_MATH_1(acosh) EMU_MATH_1(asin) EMU_MATH_1(asinh) EMU_MATH_1(atan) EMU_MATH_1(atanh)
EMU_MATH_1(cbrt) EMU_MATH_1(ceil) EMU_MATH_1(cos) EMU_MATH_1(cosh) EMU_MATH_1(erf) EMU_MATH_1(erfc) EMU_MATH_1(exp)
EMU_MATH_1(exp10) EMU_MATH_1(exp2) EMU_MATH_1(expm1) EMU_MATH_1(fabs) EMU_MATH_1(floor) EMU_MATH_1(j0) EMU_MATH_1(j1)
EMU_MATH_1(lgamma) EMU_MATH_1(log) EMU_MATH_1(log10) EMU_MATH_1(log1p) EMU_MATH_1(log2) EMU_MATH_1(logb)
EMU_MATH_1(nearbyint) EMU_MATH_1(rint) EMU_MATH_1(round) EMU_MATH_1(sin) EMU_MATH_1(sinh) EMU_MATH_1(sqrt)
EMU_MATH_1(tan) EMU_MATH_1(tanh) EMU_MATH_1(tgamma) EMU_MATH_1(trunc) EMU_MATH_1(y0) EMU_MATH_1(y1)
EMU_MATH_2(atan2) EMU_MATH_2(copysign) EMU_MATH_2(fdim) EMU_MATH_2(fmax) EMU_MATH_2(fmin) EMU_MATH_2(fmod)
EMU_MATH_2(hypot) EMU_MATH_2(nextafter) EMU_MATH_2(pow) EMU_MATH_2(remainder)
EMU_MATH_3(fma)
EMU_MATH_TO(int, ilogb) EMU_MATH_TO(long, lrint) EMU_MATH_TO(long, lround)
EMU_MATH_TO(long long, llrint) EMU_MATH_TO(long long, llround)
EMU_MATH_WITH(frexp, int*) EMU_MATH_WITH(ldexp, int) EMU_MATH_WITH(scalbn, int)
extern "C" double modf(double, double*);
extern "C" float modff(float, float*);
static inline float modf(float x, float* whole) { return modff(x, whole); }
extern "C" double remquo(double, double, int*);
extern "C" float remquof(float, float, int*);
extern "C" void sincos(double, double*, double*);
extern "C" void sincosf(float, float*, float*);

static inline bool isnan(float x) { return __builtin_isnan(x); }
static inline bool isnan(double x) { return __builtin_isnan(x); }
static inline bool isinf(float x) { return __builtin_isinf(x); }
static inline bool isinf(double x) { return __builtin_isinf(x); }
static inline bool isfinite(float x) { return __builtin_isfinite(x); }
static inline bool isfinite(double x) { return __builtin_isfinite(x); }
static inline bool signbit(float x) { return __builtin_signbit(x); }
static inline bool signbit(double x) { return __builtin_signbit(x); }

// ---- CUDA's own -----------------------------------------------------------------------------------------------------

#define EMU_PI 3.141592653589793238462643383279502884
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline double rcbrt(double x) { return 1.0 / cbrt(x); }
static inline float rcbrtf(float x) { return (float)(1.0 / cbrt((double)x)); }
static inline double sinpi(double x) { return sin(EMU_PI * remainder(x, 2.0)); }
static inline double cospi(double x) { return cos(EMU_PI * remainder(x, 2.0)); }
static inline float sinpif(float x) { return (float)sinpi((double)x); }
static inline float cospif(float x) { return (float)cospi((double)x); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
static inline float normcdff(float x) { return (float)normcdf((double)x); }
static inline float fdividef(float x, float y) { return x / y; }
static inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }

static inline float __expf(float x) { return expf(x); }
static inline float __exp10f(float x) { return exp10f(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __log2f(float x) { return log2f(x); }
static inline float __log10f(float x) { return log10f(x); }
static inline float __sinf(float x) { return sinf(x); }
static inline float __cosf(float x) { return cosf(x); }
static inline float __tanf(float x) { return tanf(x); }
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __fdividef(float x, float y) { return x / y; }

#define EMU_ROUNDED(T, prefix, fma_name, root)                                       \
    static inline T prefix##add_rn(T x, T y) { return x + y; }                       \
    static inline T prefix##sub_rn(T x, T y) { return x - y; }                       \
    static inline T prefix##mul_rn(T x, T y) { return x * y; }                       \
    static inline T prefix##div_rn(T x, T y) { return x / y; }                       \
    static inline T prefix##rcp_rn(T x) { return 1 / x; }                            \
    static inline T prefix##sqrt_rn(T x) { return root(x); }                         \
    static inline T fma_name##_rn(T x, T y, T z) { return fma(x, y, z); }
EMU_ROUNDED(float, __f, __fmaf, sqrtf)
EMU_ROUNDED(double, __d, __fma, sqrt)

// ---- min, max, abs --------------------------------------------------------------------------------------------------

#define EMU_MIN_MAX(T)                                        \
    static inline T min(T x, T y) { return y < x ? y : x; }   \
    static inline T max(T x, T y) { return y > x ? y : x; }
EMU_MIN_MAX(int) EMU_MIN_MAX(unsigned) EMU_MIN_MAX(long) EMU_MIN_MAX(unsigned long) EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
static inline float min(float x, float y) { return fminf(x, y); }
static inline float max(float x, float y) { return fmaxf(x, y); }
static inline double min(double x, double y) { return fmin(x, y); }
static inline double max(double x, double y) { return fmax(x, y); }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline long abs(long x) { return x < 0 ? -x : x; }
static inline long long abs(long long x) { return x < 0 ? -x : x; }
static inline long long llabs(long long x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }

// ---- conversions: rounding in the name, saturating as the device does, NaN to 0 -------------------------------------

template <class I, class F>
static inline I emu_saturate(F whole) {
    const bool is_signed = (I)-1 < (I)0;
    const I highest = is_signed ? (I)(~0ull >> (65 - 8 * sizeof(I))) : (I)-1;
    const I lowest = is_signed ? (I)(-highest - 1) : 0;
    if (whole != whole) return 0;
    if (whole >= (F)highest) return highest;  // the bound itself may have rounded up to a power of two
    return whole <= (F)lowest ? lowest : (I)whole;
}
#define EMU_CONVERT(F, f, I, i)                                                          \
    static inline I __##f##2##i##_rn(F x) { return emu_saturate<I>(rint(x)); }           \
    static inline I __##f##2##i##_rz(F x) { return emu_saturate<I>(trunc(x)); }          \
    static inline I __##f##2##i##_rd(F x) { return emu_saturate<I>(floor(x)); }          \
    static inline I __##f##2##i##_ru(F x) { return emu_saturate<I>(ceil(x)); }
EMU_CONVERT(float, float, int, int) EMU_CONVERT(float, float, unsigned, uint)
EMU_CONVERT(float, float, long long, ll) EMU_CONVERT(float, float, unsigned long long, ull)
EMU_CONVERT(double, double, int, int) EMU_CONVERT(double, double, unsigned, uint)
EMU_CONVERT(double, double, long long, ll) EMU_CONVERT(double, double, unsigned long long, ull)
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline float __ull2float_rn(unsigned long long x) { return (float)x; }
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline double __ull2double_rn(unsigned long long x) { return (double)x; }
static inline float __double2float_rn(double x) { return (float)x; }

// ---- bits -----------------------------------------------------------------------------------------------------------

static inline float __int_as_float(int x) { return emu_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
static inline int __float_as_int(float x) { return emu_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
static inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
static inline int __double2hiint(double x) { return (int)(emu_bits<unsigned long long>(x) >> 32); }
static inline int __double2loint(double x) { return (int)emu_bits<unsigned long long>(x); }
static inline double __hiloint2double(int high, int low) {
    return emu_bits<double>((unsigned long long)(unsigned)high << 32 | (unsigned)low);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) reversed |= (x >> bit & 1) << (31 - bit);
    return reversed;
}
static inline unsigned long long __brevll(unsigned long long x) {
    return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
static inline int __mulhi(int x, int y) { return (int)((long long)x * y >> 32); }
static inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)((unsigned long long)x * y >> 32); }
static inline long long __mul64hi(long long x, long long y) { return (long long)((__int128)x * y >> 64); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return (unsigned)((((unsigned long long)high << 32 | low) << (by & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    unsigned long long bytes = (unsigned long long)y << 32 | x;
    unsigned picked = 0;
    for (int i = 0; i < 4; i++) {
        unsigned nibble = selector >> 4 * i & 15, byte = (unsigned)(bytes >> 8 * (nibble & 7)) & 255;
        if (nibble & 8) byte = byte & 128 ? 255 : 0;
        picked |= byte << 8 * i;
    }
    return picked;
}
static inline int __dp4a(int x, int y, int sum) {
    for (int i = 0; i < 4; i++) sum += (int)(signed char)(x >> 8 * i) * (signed char)(y >> 8 * i);
    return sum;
}
static inline unsigned __dp4a(unsigned x, unsigned y, unsigned sum) {
    for (int i = 0; i < 4; i++) sum += (x >> 8 * i & 255) * (y >> 8 * i & 255);
    return sum;
}
