"""The OpenCL C dialect (1.2 and later).

Build with neither -cl-fast-relaxed-math nor -cl-mad-enable; -cl-fp32-correctly-rounded-divide-sqrt where the device has
it. A half is stored, never computed in: float16 belongs into a device's ``storage`` alone. float64 needs cl_khr_fp64.
"""

from __future__ import annotations

from omniop.backends.codegen.c_like import Dialect

_HEADER = """\
#pragma OPENCL FP_CONTRACT OFF
typedef char i8; typedef short i16; typedef int i32; typedef long i64;
typedef uchar u8; typedef ushort u16; typedef uint u32; typedef ulong u64;
typedef float f32;"""

_F16_TO_F32 = "f32 f16_to_f32(f16 a) { return vload_half(0, (const __private half*)&a); }"
_F32_TO_F16 = "f16 f32_to_f16(f32 a) { f16 r; vstore_half_rte(a, 0, (__private half*)&r); return r; }"

OPENCL_C = Dialect(
    name="OpenCL C",
    header=_HEADER,
    own={
        "f16": "typedef ushort f16;",
        "f64": "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\ntypedef double f64;",
        "cas64": "#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable",
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
