"""CUDA C to C++ for the emulator: finds the functions of a source and what they use, and adds an entry for each kernel.

The text stays as it is but for the declarations of shared memory. Everything else that makes C++ out of CUDA C is
macros and functions of ``cuda_emu.h``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from omniop.opset.errors import DeviceError

# A kernel that reaches one of these, in its text or through functions and macros, gets a stack for each of its threads.
_WAITS = re.compile(r"__sync\w*|__shfl\w*|\w+_sync|__activemask|__shared__")

_COMMENT_OR_STRING = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|(?<!\w)'(?:\\.|[^'\\\n])*'", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.)*", re.MULTILINE | re.DOTALL)
_MACRO = re.compile(r"[ \t]*#[ \t]*define[ \t]+(\w+)(.*)", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_CALLED = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_STOP = re.compile(r"[{};]")
_BRACKETS = {"{": re.compile(r"[{}]"), "(": re.compile(r"[()]")}
_TEMPLATE = re.compile(r"\btemplate\s*<[^(){}]*>")
_NOT_A_NAME = frozenset({"__launch_bounds__", "__align__", "__attribute__", "alignas", "decltype", "__declspec__"})
_TRANSPARENT = re.compile(r"\b(?:namespace|extern|struct|class|union)\b")
_SHARED = re.compile(r"(?P<storage>extern\s+|static\s+)?__shared__\s(?P<declaration>[^;]*);")
_DYNAMIC = re.compile(r"(?:__align__\s*\(\s*\d+\s*\)\s*)?(?P<type>[\w:][\w:\s]*?)\s*\b(?P<name>\w+)\s*\[\s*\]\s*\Z")
_ALIGNMENT = re.compile(r"\s*alignas\s*\([^()]*(?:\([^()]*\))?[^()]*\)\s*")
_DECLARED = re.compile(r"(\w+)\s*(?:\[|\Z)")
_PARAMETER = re.compile(r"(?P<type>.*[\s*&>])(?P<name>[A-Za-z_]\w*)\Z", re.DOTALL)


@dataclass
class _Function:
    """A function or macro: the words of its text, and for a function where its body is."""

    name: str
    words: set[str]
    body: tuple[int, int] = (0, 0)
    parameters: str | None = None  # of a kernel


@dataclass
class Kernel:
    """What an entry needs to know of a kernel: its parameters' types, and whether its threads wait."""

    name: str
    types: list[str]
    cooperative: bool


class Translation:
    """A source as C++, and the entries by which the runtime reaches its kernels.

    Raises DeviceError for what is not translated: shared memory outside of functions, a parameter passed by reference.
    """

    def __init__(self, source: str) -> None:
        plain = _blank(_COMMENT_OR_STRING, source)
        macros = [_Function(m[1], set(_WORD.findall(m[2]))) for m in map(_MACRO.match, _DIRECTIVE.findall(plain)) if m]
        plain = _blank(_DIRECTIVE, plain)
        functions = list(_functions(plain))
        stray = set(_WORD.findall(_outside(plain, functions)))
        if "__shared__" in stray.union(*(macro.words for macro in macros)):
            raise DeviceError("cuda:emu: shared memory is declared inside a function, not at file scope or by a macro")
        self._kernels = {kernel.name: kernel for kernel in _kernels(functions, macros, stray)}
        self._text = _rewrite_shared(source, plain, functions)

    def with_entries(self, names: Iterable[str]) -> str:
        """The whole source with entries for the kernels ``names``; those without one are parsed but not compiled."""
        kernels = [self._kernels[name] for name in names]
        entries = "".join(map(_entry, kernels))
        return f'#include "cuda_emu.h"\n{self._text}\n#line 1 "entries"\n{entries}'


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """``text`` with spaces in place of what ``pattern`` matches: positions and lines stay."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


# Finding functions ----------------------------------------------------------------------------------------------------


def _functions(text: str) -> list[_Function]:
    """The functions that ``text``, free of comments, strings and directives, defines; members of classes too."""
    found = []
    declaration = at = 0
    while brace := _STOP.search(text, at):
        at = brace.end()
        if brace[0] == "{":
            header = text[declaration : brace.start()]
            name = _function_name(header)
            if name is None and _TRANSPARENT.search(header) and "=" not in header:
                declaration = at
                continue
            at = _matching(text, brace.start())
            if name is not None:
                found.append(_function(text, header, name, (brace.start(), at)))
                declaration = at
        else:
            declaration = at
    return found


def _function(text: str, header: str, name: re.Match[str], body: tuple[int, int]) -> _Function:
    words = set(_WORD.findall(text[slice(*body)]))
    if "__global__" not in header:
        return _Function(name[0], words, body)
    opened = header.index("(", name.end())
    return _Function(name[0], words, body, header[opened + 1 : _matching(header, opened) - 1])


def _outside(text: str, functions: list[_Function]) -> str:
    """What of ``text`` is in no function's body."""
    parts, at = [], 0
    for function in functions:
        parts.append(text[at : function.body[0]])
        at = function.body[1]
    return "".join([*parts, text[at:]])


def _function_name(header: str) -> re.Match[str] | None:
    """The name before a declaration's parameter list, or None when it declares no function."""
    header = _blank(_TEMPLATE, header)
    for word in _CALLED.finditer(header):
        if word[1] not in _NOT_A_NAME and "=" not in header[: word.start()]:
            return _WORD.match(header, word.start())
    return None


def _matching(text: str, opened: int) -> int:
    """The position after the bracket that closes the one at ``opened``."""
    opening, depth = text[opened], 0
    for bracket in _BRACKETS[opening].finditer(text, opened):
        depth += 1 if bracket[0] == opening else -1
        if depth == 0:
            return bracket.end()
    raise DeviceError(f"cuda:emu: the source has a {opening!r} that is never closed: {text[opened : opened + 60]!r}")


def _split(text: str) -> list[str]:
    """``text`` at its commas but those within brackets."""
    pieces, depth = [""], 0
    for character in text:
        depth += (character in "<([{") - (character in ">)]}")
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


# What kernels use -----------------------------------------------------------------------------------------------------


def _kernels(functions: list[_Function], macros: list[_Function], stray: set[str]) -> list[Kernel]:
    """The kernels among ``functions``. A wait in ``stray``, the words outside of bodies, counts for every kernel."""
    words: dict[str, set[str]] = {}
    for function in functions + macros:  # overloads count as one
        words.setdefault(function.name, set()).update(function.words)
    waits = {name for name, used in words.items() if any(map(_WAITS.fullmatch, used))}
    all_wait = any(map(_WAITS.fullmatch, stray))
    kernels = []
    for function in functions:
        if function.parameters is None:
            continue
        cooperative = all_wait or not waits.isdisjoint(_reached(function.name, words))
        kernels.append(Kernel(function.name, _parameter_types(function.name, function.parameters), cooperative))
    return kernels


def _reached(name: str, words: dict[str, set[str]]) -> set[str]:
    """The functions and macros of the source that ``name`` can reach, itself included."""
    reached, pending = {name}, [name]
    while pending:
        fresh = {word for word in words[pending.pop()] if word in words} - reached
        reached |= fresh
        pending += fresh
    return reached


def _parameter_types(kernel: str, parameters: str) -> list[str]:
    """The types of a parameter list."""
    if parameters.strip() in ("", "void"):
        return []
    types = []
    for piece in _split(parameters):
        match = _PARAMETER.match(piece.strip())
        if match is None or "&" in match["type"]:
            raise DeviceError(f"cuda:emu: kernel {kernel!r} has a parameter that cannot be passed: {piece.strip()!r}")
        types.append(" ".join(match["type"].split()))
    return types


# Writing --------------------------------------------------------------------------------------------------------------


def _rewrite_shared(source: str, plain: str, functions: list[_Function]) -> str:
    """``source`` with its shared memory made static variables, or pointers where the size is given at launch."""
    parts, at = [], 0
    for function in functions:
        for match in _SHARED.finditer(plain, *function.body):
            text = _dynamic_shared(match["declaration"]) if match["storage"] else None
            text = text or _static_shared(match["declaration"])
            parts += [source[at : match.start()], text, "\n" * (match[0].count("\n") - text.count("\n"))]
            at = match.end()
    return "".join([*parts, source[at:]])


def _dynamic_shared(declaration: str) -> str | None:
    match = _DYNAMIC.match(declaration)
    return match and f"{match['type']}* {match['name']} = reinterpret_cast<{match['type']}*>(emu_self.dynamic_shared);"


def _static_shared(declaration: str) -> str:
    """The static variables, each with the statement that poisons it once in every block."""
    names = [match[1] for match in map(_DECLARED.search, _split(declaration)) if match]
    alignment = _ALIGNMENT.match(declaration)
    first = alignment[0] if alignment else ""  # C++ has it before the storage class
    return f"{first}static {declaration.removeprefix(first)};" + "".join(f" EMU_SHARED({name})" for name in names)


def _entry(kernel: Kernel) -> str:
    name = kernel.name
    arguments = ", ".join(f"*({type_}*)(a + {8 * slot})" for slot, type_ in enumerate(kernel.types))
    sizes = ", ".join(f"sizeof({type_})" for type_ in kernel.types)
    too_wide = f"an argument of kernel {name} has more than 8 bytes"
    checks = "".join(f'static_assert(sizeof({type_}) <= 8, "{too_wide}");\n' for type_ in dict.fromkeys(kernel.types))
    return (
        f"{checks}static void emu_thread_{name}(const unsigned char* a) {{ {name}({arguments}); }}\n"
        f"static const unsigned char emu_sizes_{name}[] = {{{sizes or 0}}};\n"
        f'extern "C" __attribute__((visibility("default"))) const emu_kernel emu_kernel_{name} = '
        f'{{"{name}", emu_thread_{name}, &emu_self, emu_sizes_{name}, {len(kernel.types)}, {kernel.cooperative:d}}};\n'
    )
