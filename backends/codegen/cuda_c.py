"""The CUDA C dialect: for NVRTC, and for g++ with a header that stands in for the device.

Build with -fmad=false (g++: -ffp-contract=off). A half is stored, never computed in: float16 belongs into a device's
``storage`` alone. Kernels without a group take any block size.
"""

from __future__ import annotations

from omniop.backends.codegen.c_like import Dialect
from omniop.opset.dtype import FLOAT32

_HEADER = """\
typedef signed char i8; typedef short i16; typedef int i32; typedef long long i64;
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32; typedef unsigned long long u64;
typedef float f32; typedef double f64; typedef unsigned short f16;"""

# Without cuda_fp16.h, which costs a compile more than the kernels do. __CUDACC__ is absent under g++.
_F16_TO_F32 = """\
#ifdef __CUDACC__
__device__ inline f32 f16_to_f32(f16 a) { f32 r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(a)); return r; }
#else
inline f32 f16_to_f32(f16 a) { union { f16 u; _Float16 f; } x; x.u = a; return x.f; }
#endif"""
_F32_TO_F16 = """\
#ifdef __CUDACC__
__device__ inline f16 f32_to_f16(f32 a) { f16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(a)); return r; }
#else
inline f16 f32_to_f16(f32 a) { union { f16 u; _Float16 f; } x; x.f = (_Float16)a; return x.u; }
#endif"""

CUDA_C = Dialect(
    name="CUDA C",
    header=_HEADER,
    own={"f16_to_f32": _F16_TO_F32, "f32_to_f16": _F32_TO_F16},
    function="__device__ inline ",
    kernel='extern "C" __global__ void {name}({arguments})',
    group_kernel='extern "C" __global__ void __launch_bounds__({lanes}) {name}({arguments})',
    space="",
    local="__shared__ ",
    point="(i64)blockIdx.x * blockDim.x + threadIdx.x",
    group="(i64)blockIdx.x",
    lane="(i32)threadIdx.x",
    barrier="__syncthreads();",
    suffix=lambda dtype: "f" if dtype is FLOAT32 else "",
    cas={32: "atomicCAS((u32*){p}, {old}, {new})", 64: "atomicCAS((u64*){p}, {old}, {new})"},
    atomics={
        "atomic_add_i32": "atomicAdd(p, v)",
        "atomic_add_u32": "atomicAdd(p, v)",
        "atomic_add_f32": "atomicAdd(p, v)",
        "atomic_add_u64": "atomicAdd(p, v)",
    },
)
