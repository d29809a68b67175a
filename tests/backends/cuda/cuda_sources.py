"""CUDA C that both the emulator's and NVRTC's tests compile: what one accepts, the other must."""

from __future__ import annotations

SAXPY = """
extern "C" __global__ void saxpy(const float* __restrict__ x, float* __restrict__ y, float a, long long n) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
"""

# A row a block; the row's maximum and sum go through a tree in shared memory.
SOFTMAX = """
__device__ float tree(float* scratch, float mine, bool maximum) {
    scratch[threadIdx.x] = mine;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            float other = scratch[threadIdx.x + half];
            scratch[threadIdx.x] = maximum ? fmaxf(scratch[threadIdx.x], other) : scratch[threadIdx.x] + other;
        }
        __syncthreads();
    }
    float all = scratch[0];
    __syncthreads();
    return all;
}
extern "C" __global__ void __launch_bounds__(128) softmax(const float* x, float* y, int n) {
    __shared__ float scratch[128];
    const float* row = x + (size_t)blockIdx.x * n;
    float high = -INFINITY;
    for (int i = threadIdx.x; i < n; i += blockDim.x) high = fmaxf(high, row[i]);
    high = tree(scratch, high, true);
    float sum = 0.f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(row[i] - high);
    sum = tree(scratch, sum, false);
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[(size_t)blockIdx.x * n + i] = expf(row[i] - high) / sum;
}
"""

# A sum over everything: shuffles within a warp, shared memory between warps, an atomic between blocks.
SUM = """
template <class T> __device__ __forceinline__ T warp_sum(T value) {
    #pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
    return value;
}
extern "C" __global__ void sum(const double* x, double* total, int n) {
    __shared__ double partial[32];
    double mine = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += x[i];
    mine = warp_sum(mine);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    mine = warp_sum(threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0);
    if (threadIdx.x == 0) atomicAdd(total, mine);
}
"""

REVERSE = """
extern "C" __global__ void reverse(const int* x, int* y) {
    extern __shared__ int held[];
    held[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * blockDim.x + threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}
"""

_ARITHMETIC = """
extern "C" __global__ void arithmetic_@(const T* a, const T* b, T* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    y[i] = a[i] + b[i];
    y[n + i] = a[i] - b[i];
    y[2 * n + i] = __hmul(a[i], b[i]);
    y[3 * n + i] = a[i] / b[i];
    y[4 * n + i] = __hfma(a[i], b[i], a[i]);
    y[5 * n + i] = -a[i];
    y[6 * n + i] = a[i] < b[i] ? hsqrt(__habs(a[i])) : __hmax(a[i], b[i]);
}
extern "C" __global__ void convert_@(const T* a, const float* x, const double* z, float* wide, T* narrow, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    wide[i] = __@2float(a[i]);
    narrow[i] = __float2@(x[i]);
    narrow[n + i] = __double2@(z[i]);
    narrow[2 * n + i] = __int2@_rn(i * 33 - 100);
    narrow[3 * n + i] = __ushort_as_@(__@_as_ushort(a[i]));
    narrow[4 * n + i] = __float2@((float)__@2int_rn(a[i]));
}
"""
HALF = _ARITHMETIC.replace("T*", "__half*").replace("@", "half")
BFLOAT16 = _ARITHMETIC.replace("T*", "__nv_bfloat16*").replace("@", "bfloat16")

HALF_PAIRS = """
extern "C" __global__ void pairs(const __half2* a, __half2* y) {
    int i = threadIdx.x;
    float2 wide = __half22float2(a[i]);
    y[i] = __hfma2(a[i], __floats2half2_rn(wide.y, wide.x), __half2half2(__low2half(a[i])));
}
"""

TENSOR_CORE = """
#include <mma.h>
using namespace nvcuda;
extern "C" __global__ void product(const __half* a, const __half* b, float* c, int n, int k) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> left;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> right;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum;
    wmma::fill_fragment(sum, 0.0f);
    for (int i = 0; i < k; i += 16) {
        wmma::load_matrix_sync(left, a + blockIdx.y * 16 * k + i, k);
        wmma::load_matrix_sync(right, b + blockIdx.x * 16 * k + i, k);
        wmma::mma_sync(sum, left, right, sum);
    }
    for (int i = 0; i < sum.num_elements; i++) sum.x[i] *= 2.0f;
    wmma::store_matrix_sync(c + blockIdx.y * 16 * n + blockIdx.x * 16, sum, n, wmma::mem_row_major);
}
"""

# One argument in (0.05, 0.95), and for acosh above 1: where all of them are defined.
UNARY = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "cos", "cosh", "cospi", "erf", "erfc", "exp",
    "exp10", "exp2", "expm1", "fabs", "floor", "j0", "j1", "lgamma", "log", "log10", "log1p", "log2", "logb",
    "nearbyint", "normcdf", "rcbrt", "rint", "round", "rsqrt", "sin", "sinh", "sinpi", "sqrt", "tan", "tanh", "tgamma",
    "trunc", "y0", "y1",
)  # fmt: skip
BINARY = ("atan2", "copysign", "fdim", "fmax", "fmin", "fmod", "hypot", "max", "min", "nextafter", "pow", "remainder")


def _math(suffix: str, kind: str) -> str:
    """A kernel that calls every function of one and two arguments, a row of the output each."""
    named_as_overloads = ("max", "min")
    calls = [f"{name}{suffix}(x)" for name in UNARY]
    calls += [f"{name}{'' if name in named_as_overloads else suffix}(x, y)" for name in BINARY]
    # The C++ overloads that take their precision from the argument.
    calls += [f"{name}(x)" for name in ("exp", "rsqrt", "tanh")] + ["fma(x, y, x)", f"fma{suffix}(x, y, x)"]
    rows = "\n".join(f"    out[{row} * n + i] = {call};" for row, call in enumerate(calls))
    rows = rows.replace(f"acosh{suffix}(x)", f"acosh{suffix}(1 + x)")
    return f"""
extern "C" __global__ void math_{kind}(const {kind}* a, const {kind}* b, {kind}* out, int n) {{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    {kind} x = a[i], y = b[i];
{rows}
}}
"""


MATH = _math("f", "float") + _math("", "double")
MATH_ROWS = len(UNARY) + len(BINARY) + 5

# Integers and bits: an expression of int x, unsigned u, long long w and float f, and what Python says it is.
INTEGER = {
    "__popc(u)": lambda x, u, w, f: u.bit_count(),
    "__popcll(w)": lambda x, u, w, f: (w % 2**64).bit_count(),
    "__clz(x)": lambda x, u, w, f: 32 - (x % 2**32).bit_length(),
    "__clzll(w)": lambda x, u, w, f: 64 - (w % 2**64).bit_length(),
    "__ffs(x)": lambda x, u, w, f: ((x & -x) % 2**32).bit_length(),
    "__brev(u)": lambda x, u, w, f: int(f"{u:032b}"[::-1], 2),
    "__mulhi(x, x)": lambda x, u, w, f: x * x >> 32,
    "__umulhi(u, u)": lambda x, u, w, f: u * u >> 32,
    "__mul64hi(w, w)": lambda x, u, w, f: w * w >> 64,
    "(long long)__umul64hi((uint64_t)w, 3u)": lambda x, u, w, f: (w % 2**64) * 3 >> 64,
    "__funnelshift_l(u, 5u, 9)": lambda x, u, w, f: ((5 << 32 | u) << 9 >> 32) % 2**32,
    "__funnelshift_r(u, 5u, 9)": lambda x, u, w, f: (5 << 32 | u) >> 9 & 0xFFFFFFFF,
    "__byte_perm(u, 0x12345678u, 0x5410)": lambda x, u, w, f: (0x5678 << 16) | u & 0xFFFF,
    "__dp4a(0x01ff0203, 0x02030405, x)": lambda x, u, w, f: wrap(x + 2 - 3 + 8 + 15),
    "min(x, 7)": lambda x, u, w, f: min(x, 7),
    "max(u, 7u)": lambda x, u, w, f: max(u, 7),
    "min(w, 7LL)": lambda x, u, w, f: min(w, 7),
    "abs(x)": lambda x, u, w, f: wrap(abs(x)),
    "llabs(w)": lambda x, u, w, f: abs(w),
    "x + x": lambda x, u, w, f: wrap(x + x),
    "__float2int_rz(f)": lambda x, u, w, f: clip(f, int(f), -(2**31), 2**31 - 1),
    "__float2int_rn(f)": lambda x, u, w, f: clip(f, round(f), -(2**31), 2**31 - 1),
    "__float2int_rd(f)": lambda x, u, w, f: clip(f, f // 1, -(2**31), 2**31 - 1),
    "__float2uint_rz(f)": lambda x, u, w, f: clip(f, int(f), 0, 2**32 - 1),
    "__float2ll_rz(f)": lambda x, u, w, f: clip(f, int(f), -(2**63), 2**63 - 1),
    "__double2ll_rn((double)f)": lambda x, u, w, f: clip(f, round(f), -(2**63), 2**63 - 1),
    "__float_as_int(__int_as_float(x & 0x3fffffff))": lambda x, u, w, f: x & 0x3FFFFFFF,
    "__double_as_longlong(__longlong_as_double(w & 0xffffff))": lambda x, u, w, f: w & 0xFFFFFF,
    "__double_as_longlong(__hiloint2double(3, (int)u))": lambda x, u, w, f: 3 << 32 | u,
    "(int)isnan(NAN) + 2 * (int)isinf(-INFINITY) + 4 * (int)signbit(-0.0f) + 8 * (int)isfinite(f)": lambda x, u, w, f: (
        15
    ),
}


def wrap(value: int) -> int:
    """``value`` as a 32-bit integer holds it."""
    return (value + 2**31) % 2**32 - 2**31


def clip(value: float, whole: float, low: int, high: int) -> int:
    return low if value <= low else high if value >= high else int(whole)


_INTEGER_ROWS = "\n".join(f"    out[{row} * n + i] = {expression};" for row, expression in enumerate(INTEGER))
INTEGERS = f"""
extern "C" __global__ void integers(const int32_t* a, const int64_t* b, const float* c, int64_t* out, int n) {{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int x = a[i];
    unsigned u = (unsigned)x;
    long long w = b[i];
    float f = c[i];
{_INTEGER_ROWS}
}}
"""

# What lanes tell one another; out[row][thread].
WARP = """
extern "C" __global__ void warp(const int* x, long long* out) {
    unsigned all = 0xffffffffu, t = threadIdx.x, lane = t % 32;
    int v = x[t];
    int row = 0;
    out[row++ * blockDim.x + t] = __shfl_sync(all, v, 5);
    out[row++ * blockDim.x + t] = __shfl_up_sync(all, v, 3);
    out[row++ * blockDim.x + t] = __shfl_down_sync(all, (long long)v << 33, 4, 8);
    out[row++ * blockDim.x + t] = (long long)__shfl_xor_sync(all, (double)v, 1);
    out[row++ * blockDim.x + t] = __ballot_sync(all, v > 50);
    out[row++ * blockDim.x + t] = __any_sync(all, v == 3) + 2 * __all_sync(all, v >= 0);
    out[row++ * blockDim.x + t] = __reduce_add_sync(all, v);
    out[row++ * blockDim.x + t] = __reduce_max_sync(all, (unsigned)v);
    out[row++ * blockDim.x + t] = __match_any_sync(all, v % 4);
    if (lane < 8) out[row * blockDim.x + t] = __shfl_sync(0xffu, v, 1);
    else out[row * blockDim.x + t] = __shfl_sync(0xffffff00u, v, 9);
    row++;
    __syncwarp();
    out[row++ * blockDim.x + t] = __syncthreads_count(v > 50);
    out[row++ * blockDim.x + t] = __syncthreads_or(v == 3) + 2 * __syncthreads_and(v >= 0);
}
"""

ATOMICS = """
extern "C" __global__ void atomics(int* out, unsigned long long* wide, float* real) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&out[0], i);
    atomicSub(&out[1], 2);
    atomicMin(&out[2], i - 5);
    atomicMax(&out[3], i);
    atomicOr(&out[4], 1 << (i % 8));
    atomicAnd(&out[5], ~(1 << (i % 8)));
    atomicXor(&out[6], i);
    int seen = out[7], expected;
    do {
        expected = seen;
        seen = atomicCAS(&out[7], expected, expected + 3);
    } while (seen != expected);
    if (atomicExch(&out[8], 1) == 0) atomicAdd(&out[9], 1);
    atomicInc((unsigned*)&out[10], 4u);
    atomicAdd(wide, 1ull << 40);
    atomicAdd(real, 0.5f);
}
"""

ALL = {
    "saxpy": SAXPY,
    "softmax": SOFTMAX,
    "sum": SUM,
    "reverse": REVERSE,
    "half": HALF,
    "bfloat16": BFLOAT16,
    "half_pairs": HALF_PAIRS,
    "tensor_core": TENSOR_CORE,
    "math": MATH,
    "integers": INTEGERS,
    "warp": WARP,
    "atomics": ATOMICS,
}
