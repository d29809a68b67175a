"""Static quantisation to int8, by ONNX Runtime's tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class _Samples(CalibrationDataReader):
    """Feeds, one at a time, from which the ranges of activations are taken."""

    def __init__(self, feeds: Iterable[Mapping[str, np.ndarray]]) -> None:
        self._feeds: Iterator[Mapping[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantize(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, np.ndarray]], folder: Path, form: str = "QDQ"
) -> Path:
    """Where the model lies with uint8 activations and int8 weights, a scale for each output channel.

    ``form``: "QDQ" (QuantizeLinear and DequantizeLinear around each layer) or "QOperator" (QLinearConv and its like).
    ``feeds`` tell the ranges; files lie in ``folder`` meanwhile.
    """
    source, prepared, target = (folder / f"{name}.onnx" for name in ("float", "prepared", form))
    onnx.save(model, source)
    quant_pre_process(source, prepared, skip_symbolic_shape=True)  # folds batch normalisation into convolutions
    quantize_static(
        *(prepared, target, _Samples(feeds)),
        quant_format=QuantFormat[form],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,  # weights of 7 bits: without VNNI, ONNX Runtime's sums of pairs of products saturate
    )
    return target
