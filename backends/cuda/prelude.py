"""What every CUDA C source of ours finds declared, the same for NVRTC and for the emulator.

NVRTC has no C library: no ``<stdint.h>``, no ``<math.h>`` macros, while its math functions are built in. So a source
begins at its first kernel; it needs ``#include`` only for CUDA's rarer headers (``<mma.h>``).
"""

from __future__ import annotations

import re

_TYPES = """\
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)
"""

# Parsed only where used: the pattern that asks for a header, and the header.
_HEADERS = (
    (re.compile(r"\b(__half2?|half2?)\b"), "cuda_fp16.h"),
    (re.compile(r"\b(__)?nv_bfloat16"), "cuda_bf16.h"),
)


def complete(source: str) -> str:
    """``source`` as a compiler gets it: after its headers, the integer types of ``<stdint.h>``, INFINITY and NAN.

    Compilers' messages still count lines from the first line of ``source``, in a file called kernel.cu.
    """
    headers = "".join(f"#include <{header}>\n" for pattern, header in _HEADERS if pattern.search(source))
    return f'{headers}{_TYPES}#line 1 "kernel.cu"\n{source}\n'
