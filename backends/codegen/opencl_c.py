"""The OpenCL C dialect (1.2 and later).

Build with neither -cl-fast-relaxed-math nor -cl-mad-enable; -cl-fp32-correctly-rounded-divide-sqrt where the device has
it. A half is stored, never computed in: float16 belongs into a device's ``storage`` alone. float64 needs cl_khr_fp64.
"""

from __future__ import annotations

from collections.abc import Sequence

from omniop.backends.codegen.c_like import Dialect

_HEADER = """\
#pragma OPENCL FP_CONTRACT OFF
typedef char i8; typedef short i16; typedef int i32; typedef long i64;
typedef uchar u8; typedef ushort u16; typedef uint u32; typedef ulong u64;
typedef float f32;"""

_F16_TO_F32 = "f32 f16_to_f32(f16 a) { return vload_half(0, (const __private half*)&a); }"
_F32_TO_F16 = "f16 f32_to_f16(f32 a) { f16 r; vstore_half_rte(a, 0, (__private half*)&r); return r; }"

_ERF_NEAR = (
    *(0.12837916612625122, -0.3761262595653534, 0.11283600330352783),
    *(-0.026854444295167923, 0.005189535208046436, -0.000802083988673985, 7.889114203862846e-05),
)
"""erf(x) / x - 1 over x**2, |x| <= 1: 1.2e-9."""
_ERF_FAR = (
    *(0.000183444150025025, -1.1295567750930786, -0.6332626342773438, -0.10837247967720032),
    *(0.02517896704375744, -0.004193610977381468, 0.0004391063703224063, -2.1496114641195163e-05),
)
"""log(1 - erf(x)) over x, 1 <= x <= 4: 1 - erf(x) to 3e-11."""


def _horner(coefficients: Sequence[float], x: str) -> str:
    *lower, text = (f"{c.hex()}f" for c in coefficients)
    for c in reversed(lower):
        text = f"({text}) * {x} + {c}"
    return text


_ERF = f"""\
f32 erf_f32(f32 x) {{
  f32 a = fabs(x), t = a > 4.0f ? 4.0f : a, s = x * x;
  f32 near = x + x * ({_horner(_ERF_NEAR, "s")});
  f32 far = copysign(1.0f - exp({_horner(_ERF_FAR, "t")}), x);
  return a < 1.0f ? near : far;
}}"""
"""Within 1.4 units in the last place, where OpenCL allows 16, and Intel's takes 4: 1 + erf(x) is what is left of it for
negative numbers."""

OPENCL_C = Dialect(
    name="OpenCL C",
    header=_HEADER,
    own={
        "f16": "typedef ushort f16;",
        "f64": "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\ntypedef double f64;",
        "cas64": "#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable",
        "erf_f32": _ERF,
        "f16_to_f32": _F16_TO_F32,
        "f32_to_f16": _F32_TO_F16,
    },
    function="",
    kernel="__kernel void {name}({arguments})",
    group_kernel="__kernel __attribute__((reqd_work_group_size({lanes}, 1, 1))) void {name}({arguments})",
    space="__global ",
    local="__local ",
    point="(i64)get_global_id(0)",
    group="(i64)get_group_id(0)",
    lane="(i32)get_local_id(0)",
    barrier="barrier(CLK_LOCAL_MEM_FENCE);",
    suffix=lambda dtype: "",
    cas={
        32: "atomic_cmpxchg((volatile __global u32*){p}, {old}, {new})",
        64: "atom_cmpxchg((volatile __global u64*){p}, {old}, {new})",
    },
    atomics={
        f"atomic_{op}_{dtype}": f"atomic_{op}((volatile __global {dtype}*)p, v)"
        for op in ("add", "min", "max")
        for dtype in ("i32", "u32")
    },
)
