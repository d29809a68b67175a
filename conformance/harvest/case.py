"""The nodes of a user's model as cases, written as ONNX writes its own, and judged by the oracles."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from omniop.conformance.archive import serialize, subject_of
from omniop.conformance.cases import Asked, Case, DataSet, DeviceCase
from omniop.conformance.choices import HARVESTED
from omniop.conformance.harvest.inputs import Sizes, read
from omniop.conformance.harvest.nodes import graphs_of
from omniop.conformance.harvest.walk import Harvested, harvest
from omniop.conformance.oracles import NoOracle
from omniop.conformance.oracles.single import expect
from omniop.conformance.tolerance import Relative, Tolerance, Ulps, tolerance_of


class HarvestedCase(Case):
    """A node of a model; its outputs are computed by an oracle on first use."""

    as_it_is = True

    @property
    def tolerance(self) -> Tolerance:
        """The operator's, with room for sums as long as networks have them, which an oracle may round, too."""
        if graphs_of(self.model.graph.node[0]):
            return Relative(1e-3, 1e-5)
        found = tolerance_of(self.op)
        return replace(found, scale=8 * found.scale) if isinstance(found, Ulps) else found

    @functools.cached_property
    def data_sets(self) -> tuple[DataSet, ...]:
        feeds = self._values("test_data_set_0/input", self.model.graph.input)
        return (DataSet(feeds, expect(self.model, feeds)),)


@dataclass(frozen=True)
class LostCase(DeviceCase):
    """A node that no case could be made of, and why."""

    why: str = ""

    def ask(self, device: str) -> Asked:
        raise NoOracle(self.why)


def harvested_cases(path: Path, sizes: Sizes, files: Mapping[str, Path], folder: Path) -> list[Case]:
    """A case for each distinct node of the model at ``path``, written under ``folder``; ``files``: feeds by name.

    Raises ModelError and FeedError, as `walk.harvest` does.
    """
    taken: set[str] = set()
    return [_case(one, _name(path, one, taken), folder) for one in harvest(path, sizes, read(files))]


def _case(one: Harvested, name: str, folder: Path) -> Case:
    op = f"{one.node.domain}::{one.node.op_type}" if one.node.domain not in ("", "ai.onnx") else one.node.op_type
    if one.model is None:
        return LostCase(name, HARVESTED, op, (), why=one.lost)
    target = folder / name
    _write(target, one.model, one.feeds)
    return HarvestedCase(name, HARVESTED, op, subject_of(one.model).dtypes, str(target))


def _name(path: Path, one: Harvested, taken: set[str]) -> str:
    """By the model, the operator and the node; numbered where that is not enough."""
    text = "_".join(filter(None, [path.stem, one.node.op_type, one.node.name.rpartition("/")[2]]))
    stem = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:90]
    numbered = (stem if number == 1 else f"{stem}_{number}" for number in itertools.count(1))
    name = next(name for name in numbered if name not in taken)
    taken.add(name)
    return name


def _write(folder: Path, model: onnx.ModelProto, feeds: Mapping[str, Any]) -> None:
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    for number, info in enumerate(model.graph.input):
        value = feeds[info.name]
        (data / f"input_{number}.pb").write_bytes(serialize(np.asarray(value) if _plain(value) else value, info.type))


def _plain(value: Any) -> bool:
    return isinstance(value, np.generic)
