"""Units of source: what is in them, and that real compilers take all of it."""

from __future__ import annotations

import pytest
from test_kernels import softmax
from test_operations import DTYPES, cast_kernel, table_kernel

from omniop.backends.base import Caps
from omniop.backends.codegen.c_like import Dialect
from omniop.backends.codegen.cuda_c import CUDA_C
from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.codegen.plain_c import PLAIN_C
from omniop.backends.codegen.schedule import Schedule, Target
from omniop.opset import expr
from omniop.opset.dtype import FLOAT16, FLOAT32, FLOAT64, INT32, INT64, DType
from omniop.opset.kernel import Kernel, Param, Store
from omniop.opset.legalise import legalise

DIALECTS = [OPENCL_C, CUDA_C, PLAIN_C]


def double(dtype: DType) -> Kernel:
    i = expr.raw_axis(0, expr.size("s0"))
    return Kernel((Param(dtype), Param(dtype, True)), (i,), (Store(1, i, expr.load(0, (i,), dtype) * 2),), 1)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_a_unit_holds_the_helpers_it_uses_once(dialect: Dialect) -> None:
    sources = [dialect.print_kernel(softmax(), name) for name in ("a", "b")]
    text = dialect.unit(sources)
    assert text.count("max_f32(f32 a") == 1
    assert "div_i32" not in text
    assert "f64_" not in text
    assert "max_f32(f32 a" not in dialect.unit([dialect.print_kernel(double(FLOAT32), "c")])


def test_doubles_are_enabled_only_where_they_are_used() -> None:
    assert "fp64" not in OPENCL_C.unit([OPENCL_C.print_kernel(double(FLOAT32), "a")])
    assert "cl_khr_fp64" in OPENCL_C.unit([OPENCL_C.print_kernel(double(FLOAT64), "a")])


def test_launch_sizes() -> None:
    plain = OPENCL_C.print_kernel(softmax(), "a")
    assert (plain.global_size((5, 100)), plain.local_size) == (5, None)
    grouped = OPENCL_C.print_kernel(softmax(), "a", Schedule(("parallel", "group"), 64))
    assert (grouped.global_size((5, 100)), grouped.local_size) == (320, 64)
    each = OPENCL_C.print_kernel(softmax(), "a", Schedule(("parallel", "parallel")))
    assert each.global_size((5, 100)) == 500


def test_a_kernel_without_axes_has_one_point() -> None:
    kernel = Kernel((Param(FLOAT32, True),), (), (Store(0, expr.index(0), expr.const(1.0, FLOAT32)),))
    assert OPENCL_C.print_kernel(kernel, "a").global_size(()) == 1


def test_printing_is_deterministic() -> None:
    assert CUDA_C.print_kernel(softmax(), "a").text == CUDA_C.print_kernel(softmax(), "a").text


def test_plain_c_refuses_groups() -> None:
    with pytest.raises(ValueError, match="no work groups"):
        PLAIN_C.print_kernel(softmax(), "a", Schedule(("parallel", "group"), 64))


def scatter(dtype: DType, combine: str) -> Kernel:
    i = expr.raw_axis(0, expr.size("s0"))
    store = Store(2, expr.load(1, (i,), INT64), expr.load(0, (i,), dtype), None, combine)
    return Kernel((Param(dtype), Param(INT64), Param(dtype, True)), (i,), (store,), 1)


def test_nvrtc_takes_every_operation() -> None:
    from omniop.backends.cuda import nvrtc

    if reason := nvrtc.why_unavailable():
        pytest.skip(reason)
    half = legalise(double(FLOAT16), Caps(storage=Caps().storage | {FLOAT16}))
    assert isinstance(half, Kernel)
    kernels = {f"table_{d}": table_kernel(d) for d in DTYPES} | {f"cast_{d}": cast_kernel(d) for d in DTYPES}
    kernels |= {"rows": softmax(), "of_half": half}
    for op in ("add", "mul", "min", "max"):
        kernels |= {f"scatter_{op}_{d}": scatter(d, op) for d in (INT32, INT64, FLOAT32, FLOAT64)}
    target = Target(lanes=256, atomic_bits=frozenset((32, 64)))
    sources = [CUDA_C.print_kernel(kernel, name, target=target) for name, kernel in kernels.items()]
    compiled = nvrtc.compile(CUDA_C.unit(sources))
    assert set(compiled.kernels) == set(kernels)
    assert "cvt.rn.f16.f32" in compiled.ptx
