"""Operators that run on the host by nature: no device has anything to gain from them, and most handle no tensors.

Any other operator that runs on the host fell back to it.
"""

from __future__ import annotations

from collections.abc import Mapping

_BY_REASON: Mapping[str, tuple[str, ...]] = {
    "control flow": ("If", "Loop", "Scan"),
    "sequences": (
        *("SequenceConstruct", "SequenceEmpty", "SequenceAt", "SequenceLength", "SequenceInsert", "SequenceErase"),
        *("SequenceMap", "ConcatFromSequence", "SplitToSequence"),
    ),
    "optionals": ("Optional", "OptionalHasElement", "OptionalGetElement"),
    "maps": ("CastMap", "DictVectorizer", "ZipMap"),
    "strings": (
        "StringConcat",
        "StringSplit",
        "StringNormalizer",
        "RegexFullMatch",
        "TfIdfVectorizer",
        "CategoryMapper",
    ),
    "numpy's random draws": (
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
        "Dropout",
    ),
    "image files": ("ImageDecoder",),
}

HOST_BY_NATURE: Mapping[str, str] = {op: reason for reason, ops in _BY_REASON.items() for op in ops}
"""Why each is on the host, by its name (no two of ONNX's domains share one). Of Dropout, only training draws.

An operator of another name that meets strings joins them there.
"""
