"""Cases of our own at scale, of kind ``own``: the samples of every operator (`omniop.conformance.samples`).

Nothing of them is stored. A case is made from its name where it is judged: the model, the feeds, and what is expected,
which an oracle computes there and then.
"""

from __future__ import annotations

import functools
from typing import Any

import onnx

from omniop.conformance.cases import Case, DataSet
from omniop.conformance.oracles.expected import expect
from omniop.conformance.samples import models
from omniop.conformance.samples.catalogue import catalogue
from omniop.conformance.samples.op import Sample
from omniop.conformance.tolerance import Tolerance, tolerance_of


class OwnCase(Case):
    """A sample as a case; its outputs are computed by an oracle on first use."""

    @property
    def sample(self) -> Sample:
        return catalogue()[self.name]

    @property
    def tolerance(self) -> Tolerance:
        return tolerance_of(self.op)

    @property
    def refused(self) -> bool:
        return self.sample.refused

    @property
    def draw(self) -> tuple[Any, ...]:
        return self.sample.draw

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        return models.build(self.sample)

    @functools.cached_property
    def data_sets(self) -> tuple[DataSet, ...]:
        sample = self.sample
        feeds = [models.feeds(sample, number, self.model) for number in range(len(sample.sets))]
        return tuple(DataSet(one, {} if sample.refused else expect(sample, self.model, one)) for one in feeds)
