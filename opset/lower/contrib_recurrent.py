"""com.microsoft: the LSTM with quantized weights."""

from __future__ import annotations

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.expr import Expr
from omniop.opset.lower.quantization import by_range, centred
from omniop.opset.lower.recurrent import Layer, walk_lstm
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr


class _Quantized:
    """Weights [directions, inputs, columns] of integers; scale and zero point [directions], or one for each column."""

    def __init__(self, weights: Tensor, scale: Tensor, zero: Tensor) -> None:
        self.centred = centred(weights, self._spread(zero))
        self.scale = self._spread(scale)

    @staticmethod
    def _spread(t: Tensor) -> Tensor:
        return p.reshape(t, [t.shape[0], 1, t.shape[1] if t.rank == 2 else 1])

    def times(self, x: Tensor) -> Tensor:
        """x [directions or 1, rows, inputs], each direction quantized by its own range: [directions, rows, columns]."""
        y, scale, zero = by_range(x, (1, 2))
        total = p.contract(centred(y, zero), self.centred)
        return p.elementwise(lambda e, s, t: expr.cast(e, x.dtype) * (s * t), total, scale, self.scale)


class _QuantizedLayer(Layer):
    def __init__(
        self, node: Node, x: Tensor, w: _Quantized, r: _Quantized, b: Tensor | None, lens: Tensor | None
    ) -> None:
        self.own_w, self.own_r = w, r
        turned = [p.transpose(weights.centred, (0, 2, 1)) for weights in (w, r)]
        super().__init__(node, 4, x, turned[0], turned[1], b, lens)

    def input_product(self, x: Tensor, w: Tensor) -> Tensor:
        rows: list[Dim] = [1, self.steps * self.batch, x.shape[2]]
        product = self.own_w.times(p.reshape(x, rows))
        batch, width = as_expr(self.batch), as_expr(self.hidden * self.gates)

        def element(t: Expr, n: Expr, column: Expr) -> Expr:
            return product.at(column // width, t * batch + n, column % width)

        return p.map_of([self.steps, self.batch, self.hidden * self.gates * self.directions], element)

    def recurrent_product(self, state: Tensor) -> Tensor:
        return self.own_r.times(state)


@lowering("DynamicQuantizeLSTM", domain=DOMAIN)
def dynamic_quantize_lstm(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lens: Tensor | None,
    h: Tensor | None,
    c: Tensor | None,
    peepholes: Tensor | None,
    w_scale: Tensor,
    w_zero: Tensor,
    r_scale: Tensor,
    r_zero: Tensor,
) -> tuple[Tensor | None, ...]:
    """w [directions, inputs, 4 * hidden], r [directions, hidden, 4 * hidden]: turned round, as against LSTM.

    The rows of a batch are quantized by one range. Where their lengths differ, a row behind its end takes part in it,
    and results differ from onnxruntime's by the rounding to 8 bits.
    """
    layer = _QuantizedLayer(node, x, _Quantized(w, w_scale, w_zero), _Quantized(r, r_scale, r_zero), b, lens)
    return walk_lstm(node, layer, h, c, peepholes)
