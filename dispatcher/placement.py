"""Placement: for one lowered node, the device and the route it takes, and why every other candidate was not taken.

Devices are asked in the session's order. On a device, tuned kernels for the op come first if they cost less than the
general route; a structured prim that the device does not take whole is expanded. The first device that can run every
prim of the node wins.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from omniop.backends.base import Device, KernelSpec, No, OpContext, TensorType
from omniop.dispatcher.decision import Decision
from omniop.dispatcher.graph import NodeInfo
from omniop.dispatcher.layouts import Layouts, is_constant
from omniop.dispatcher.precision import OPERANDS, Precision, round_operands
from omniop.opset.complex_pairs import PART
from omniop.opset.definitions import Definition, Repeat, Source, Structured, Tensor
from omniop.opset.dtype import BOOL, FLOAT32, DType
from omniop.opset.errors import PlacementError
from omniop.opset.expand import expand
from omniop.opset.kernel import tuned_prim
from omniop.opset.layout import ROW_MAJOR
from omniop.opset.prims import record
from omniop.opset.sym import Dim, hint_of
from omniop.opset.trace import Trace

COPY_SECONDS_PER_BYTE = 1e-10
LAUNCH_SECONDS = 2e-6
FLOP_SECONDS = 1e-9
"""Rough costs of the general route, for comparison with a tuned kernel's own estimate."""


class Placed(NamedTuple):
    """A prim as its lowering wrote it, and where it runs, whatever becomes of it there."""

    device: str
    definition: Definition
    prim: str
    """The structured prim's name, and its operands: those of a tuned kernel take their place in the definition."""
    operands: tuple[Tensor, ...]
    times: Dim
    """How often: a repeat's count for what is inside of one."""


@dataclass
class Placement:
    """What the placer carries through a segment."""

    trace: Trace
    devices: Sequence[Device]
    exclude: Mapping[str, Collection[str]]
    precision: Precision | None = None
    device_of: dict[Definition, Device] = field(default_factory=dict)
    replaced: dict[Tensor, Tensor] = field(default_factory=dict)
    decisions: dict[int, Decision] = field(default_factory=dict)
    placed: list[Placed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layouts = Layouts(self.device_of, self.replaced)

    def place(
        self, info: NodeInfo, made: Sequence[Definition], results: Sequence[Any], inputs: Sequence[Any]
    ) -> list[Any]:
        """Decide a node whose lowering recorded ``made`` and gave ``results``; gives the results to use.

        Raises PlacementError when no device takes it.
        """
        decision = Decision(info.origin, info.label, info.op_type, "", "")
        made = [d for d in made if not isinstance(d, Source)]
        if not made:
            decision.device, decision.route = "-", "no work: a view, a constant or shape arithmetic"
            self.decisions.setdefault(info.origin, decision)
            return list(results)
        for device in self.devices:
            reason = self._excluded(device, info)
            if reason is None:
                reason = self._dtypes(device, made)
            if reason is not None:
                decision.rejected.append((device.name, reason))
                continue
            self.placed += self._placed(device, made)
            tuned = self._tuned(device, info, results, inputs, made, decision)
            if tuned is not None:
                results = tuned
            else:
                decision.route = self._general(device, made, decision)
            decision.device = device.name
            decision.fallback = device is not self.devices[0]
            for definition in self._all(made):
                self.device_of.setdefault(definition, device)
            self.decisions[info.origin] = decision
            return list(results)
        reasons = "; ".join(f"{name} ({reason})" for name, reason in decision.rejected)
        raise PlacementError(f"{info.label}: no device of the session can run it: {reasons}")

    def _excluded(self, device: Device, info: NodeInfo) -> No | None:
        names = {*self.exclude.get(device.name, ()), *self.exclude.get(device.name.split(":")[0], ())}
        if info.op_type in names:
            return No("excluded", f"the session's exclude option keeps {info.op_type} off {device.name}")
        return None

    def _dtypes(self, device: Device, made: Sequence[Definition]) -> No | None:
        for definition in made:
            for dtype in definition.dtypes:
                if not _computable(dtype, device):
                    code = "needs-fp64" if dtype.name == "float64" else f"needs-{dtype}"
                    return No(code, f"{device.name} does not compute in {dtype}")
            if isinstance(definition, Repeat):
                inner = self._dtypes(device, definition.body)
                if inner is not None:
                    return inner
        return None

    def _all(self, made: Sequence[Definition]) -> list[Definition]:
        found: list[Definition] = []
        for definition in made:
            found.append(definition)
            if isinstance(definition, Repeat):
                found += self._all(definition.body)
        return found

    def _with_repeats(
        self, made: Sequence[Definition], repeat: Repeat | None
    ) -> list[tuple[Definition, Repeat | None]]:
        """Definitions with the repeat that each is inside of."""
        found: list[tuple[Definition, Repeat | None]] = []
        inside = {d for r in made if isinstance(r, Repeat) for d in r.body}
        for definition in made:
            if definition in inside:
                continue
            found.append((definition, repeat))
            if isinstance(definition, Repeat):
                found += self._with_repeats(definition.body, definition)
        return found

    def _placed(self, device: Device, made: Sequence[Definition]) -> list[Placed]:
        found: list[Placed] = []
        for d, repeat in self._with_repeats(made, None):
            if not isinstance(d, Repeat | Source):
                prim, operands = (d.prim, d.operands) if isinstance(d, Structured) else ("", ())
                found.append(Placed(device.name, d, prim, operands, 1 if repeat is None else repeat.count))
        return found

    # Routes -----------------------------------------------------------------------------------------------------------

    def _general(self, device: Device, made: Sequence[Definition], decision: Decision) -> str:
        """Keep or expand each structured prim; says what became of them."""
        routes: list[str] = []
        pending = self._with_repeats(made, None)
        while pending:
            definition, repeat = pending.pop(0)
            if not isinstance(definition, Structured):
                continue
            rounded = self._round_operands(definition, repeat, device)
            context = self._prim_context(definition, device)
            prim = definition.prim
            spec = None if repeat is not None else self._prim_kernel(device, definition, context, decision)
            if spec is not None:
                routes.append(f"tuned kernel {spec.name} for {prim}{rounded}")
                continue
            answer = device.accepts(context)
            if answer:
                routes.append(f"{prim} taken whole{rounded}")
                continue
            assert isinstance(answer, No)
            decision.rejected.append((f"{device.name} {prim}", answer))
            first = len(self.trace.definitions)
            outputs = expand(definition, device.caps.loops)
            self.replaced.update(zip(definition.outputs, outputs, strict=True))
            recorded = self.trace.definitions[first:]
            self._add(recorded, repeat, device)
            pending = [(new, repeat) for new in recorded] + pending
            routes.append(f"{prim} expanded into {'loops' if device.caps.loops else 'core prims'}{rounded}")
        return ", ".join(routes) or "core prims"

    def _add(self, recorded: Sequence[Definition], repeat: Repeat | None, device: Device) -> None:
        """Definitions that placing recorded."""
        for new in recorded:
            self.device_of.setdefault(new, device)
        if repeat is not None:
            repeat.body = (*repeat.body, *recorded)

    def _round_operands(self, definition: Structured, repeat: Repeat | None, device: Device) -> str:
        """Where the session asks for less than full precision, and the device has it; says so for `explain`."""
        if self.precision is None or self.precision not in device.precisions:
            return ""
        given, plain = definition.operands, self._least_cost(definition, device)
        recorded = round_operands(definition, self.precision, self.trace)
        if recorded is None:
            return ""
        self._add(recorded, repeat, device)
        rounded = self._least_cost(definition, device)
        if plain is not None and (rounded is None or plain < rounded):
            definition.operands = given
            return ""
        return f", of operands rounded to {OPERANDS[self.precision]}"

    def _tuned(
        self,
        device: Device,
        info: NodeInfo,
        results: Sequence[Any],
        inputs: Sequence[Any],
        made: Sequence[Definition],
        decision: Decision,
    ) -> list[Any] | None:
        """The op's tuned kernel that costs least, if it beats the general route; None for the general route."""
        specs = device.kernels.of(info.op_type)
        if not specs or not all(isinstance(r, Tensor) for r in results):
            return None
        tensors = [t if isinstance(t, Tensor) else None for t in inputs]
        context = OpContext(
            info.op_type,
            tuple(None if t is None else tensor_type(t) for t in tensors),
            tuple(tensor_type(r) for r in results),
            info.attributes,
            device.caps,
        )
        general = sum(self._general_cost(d) for d in made)
        best: tuple[float, KernelSpec] | None = None
        for spec in specs:
            reason = _refuses(spec, context, info.since)
            if reason is not None:
                decision.rejected.append((f"{device.name} kernel {spec.name}", reason))
                continue
            cost = spec.cost(context) + self._relayout_cost(spec, tensors, results)
            if cost >= general:
                detail = f"{cost:.2e} s with its relayouts, the general route {general:.2e} s"
                decision.rejected.append((f"{device.name} kernel {spec.name}", No("slower", detail)))
            elif best is None or cost < best[0]:
                best = (cost, spec)
        if best is None:
            return None
        spec = best[1]
        operands = [t for t in tensors if t is not None]
        call = Structured(tuned_prim(spec.name), tuple(operands), tuple(sorted(_hashable(info.attributes).items())))
        outputs = record(call, [(r.shape, r.dtype) for r in results])
        self._apply_layouts(spec, call, device)
        self.device_of[call] = device
        decision.route = f"tuned kernel {spec.name}"
        return list(outputs)

    def _least_cost(self, definition: Structured, device: Device) -> float | None:
        """Of the tuned kernels for a structured prim; None where none takes it."""
        context = self._prim_context(definition, device)
        fit = [s for s in device.kernels.of(definition.prim) if _refuses(s, context, 1) is None]
        return min((spec.cost(context) for spec in fit), default=None)

    def _prim_kernel(
        self, device: Device, definition: Structured, context: OpContext, decision: Decision
    ) -> KernelSpec | None:
        """Of the tuned kernels declared for a structured prim, and that take it, the one that costs least."""
        fit: list[tuple[float, KernelSpec]] = []
        for spec in device.kernels.of(definition.prim):
            reason = _refuses(spec, context, 1)
            if reason is None:
                fit.append((spec.cost(context), spec))
            else:
                decision.rejected.append((f"{device.name} kernel {spec.name}", reason))
        if not fit:
            return None
        least, chosen = min(fit, key=lambda f: f[0])
        for cost, spec in fit:
            if spec is not chosen:
                detail = f"{cost:.2e} s, {chosen.name} {least:.2e} s"
                decision.rejected.append((f"{device.name} kernel {spec.name}", No("slower", detail)))
        definition.prim = tuned_prim(chosen.name)
        self._apply_layouts(chosen, definition, device)
        return chosen

    def _apply_layouts(self, spec: KernelSpec, call: Structured, device: Device) -> None:
        for k, wanted in spec.prepared.items():
            operand = self.layouts.brought(call.operands[k], ROW_MAJOR, device)
            kernel = Structured(tuned_prim(wanted.name), (operand,))
            key = (kernel.prim, operand)
            (made,) = record(kernel, [(wanted.shape(operand.shape), operand.dtype)], key)
            self.device_of[made.definition] = device
            self.layouts.relayouts.add(made.definition)  # like one, it is quicker done again than read from the disk
            call.operands = (*call.operands[:k], made, *call.operands[k + 1 :])
        self.layouts.apply(call, spec.input_layout, spec.output_layout, device)

    def _prim_context(self, definition: Structured, device: Device) -> OpContext:
        return OpContext(
            definition.prim,
            tuple(tensor_type(t) for t in definition.operands),
            tuple(tensor_type(t) for t in definition.outputs),
            dict(definition.attrs),
            device.caps,
            tuple(self.layouts.following(t) for t in definition.operands),
        )

    # Costs ------------------------------------------------------------------------------------------------------------

    def _relayout_cost(self, spec: KernelSpec, inputs: Sequence[Tensor | None], results: Sequence[Tensor]) -> float:
        """Seconds to bring operands into the kernel's layouts; a map's result can be written in any."""
        total = 0.0
        for k, t in enumerate(t for t in inputs if t is not None):
            moves = self.layouts.of.get(t, ROW_MAJOR) != spec.input_layout(k)
            constant = isinstance(t.definition, Source) and t.definition.array is not None
            if moves and isinstance(t.definition, Source | Structured) and not constant:
                total += _bytes(t) * COPY_SECONDS_PER_BYTE + LAUNCH_SECONDS
        for k, t in enumerate(results):
            if spec.output_layout(k) is not ROW_MAJOR:
                total += _bytes(t) * COPY_SECONDS_PER_BYTE + LAUNCH_SECONDS
        return total

    def _general_cost(self, definition: Definition) -> float:
        """A rough estimate: arithmetic at one GFLOP/s and a launch per prim."""
        work = max((_elements(t) for t in definition.outputs), default=0)
        if isinstance(definition, Structured):
            work *= max((_elements(t) for t in definition.operands[1:]), default=1)
            work //= max(1, hint_of(definition.outputs[0].shape[1])) if len(definition.outputs[0].shape) > 1 else 1
        return LAUNCH_SECONDS + work * FLOP_SECONDS


def _refuses(spec: KernelSpec, context: OpContext, since: int) -> No | None:
    if not spec.versions[0] <= since <= spec.versions[1]:
        return No("version", f"it is for versions {spec.versions[0]} to {spec.versions[1]}, the node is of {since}")
    dtypes = {t.dtype for t in context.inputs if t is not None}
    if spec.dtypes and not dtypes <= set(spec.dtypes):
        return No("dtype", f"it takes {', '.join(map(str, spec.dtypes))}")
    answer = spec.when(context)
    return answer if isinstance(answer, No) else None


def _computable(dtype: DType, device: Device) -> bool:
    caps, dtype = device.caps, PART.get(dtype, dtype)
    if dtype in caps.compute or dtype is BOOL:
        return True
    if dtype.is_float and dtype.bits < 32:
        return FLOAT32 in caps.compute
    return dtype.is_int and dtype.bits < 8


def _hashable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: tuple(v) if isinstance(v, list) else v.tobytes() if isinstance(v, np.ndarray) else v
        for k, v in attributes.items()
    }


def _elements(t: Tensor) -> int:
    n = 1
    for d in t.shape:
        n *= hint_of(d)
    return n


def _bytes(t: Tensor) -> int:
    return _elements(t) * t.dtype.itemsize


def tensor_type(t: Tensor) -> TensorType:
    dims = tuple(d if isinstance(d, int) else None for d in t.shape)
    return TensorType(t.dtype, dims, t.shape, is_constant(t))
