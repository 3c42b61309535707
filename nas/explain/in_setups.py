"""Compare two models in one set-up, or one model in two set-ups.

Causes of a gap are measured by removing operations, which is only possible in eager PyTorch. In
other set-ups the latencies are compared, and the operations that run are counted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nas.explain.explanation import Estimate, Value
from nas.host_meter import environment_of
from nas.latency import Place, measure_together
from nas.setups import SetUp, engines
from nas.timed_models import TimedImages, timed_model
from nas.timed_parts import TimedPart, quiet_speed
from profiling.environment import Environment, threads
from profiling.executed import executed
from profiling.fresh_process import FreshProcess
from profiling.lane import Lane
from profiling.latency import Model
from profiling.paired import InterleavedLatencies, measure_interleaved
from profiling.progress import Progress
from profiling.symbolic import Example, as_args
from profiling.target.client import KnownTarget
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

Executed = tuple[Mapping[str, int] | None, str]


@dataclass(frozen=True)
class ToCompare:
    """A model and the set-up in which it is timed.

    Attributes:
        name: What it is called in the result.
        architecture: The model.
        setup: The set-up.
        weights: File of its trained weights; None without one.
    """

    name: str
    architecture: Architecture
    setup: SetUp
    weights: Path | None = None


class Compared(Value):
    """A model in a set-up, as it was measured.

    Attributes:
        name: Name of the model.
        setup: Description of the set-up.
        ms: Latency.
        over: Latency over that of the first one.
        executed: Kind of operation -> how many run in a pass; None where it is not known.
        rewrites: Remark about exact rewrites of the model, or "".
    """

    name: str
    setup: str
    ms: Estimate
    over: Estimate
    executed: Mapping[str, int] | None
    rewrites: str


class Comparison(Value):
    """Two models in one set-up, or one model in two, at one batch size.

    Attributes:
        batch: Batch size.
        first, second: The two.
        rounds: Number of rounds that count.
        contention: Signs that other work disturbed the measurement.
        environment: Where it was measured.
        fed: Description of the images.
    """

    batch: int
    first: Compared
    second: Compared
    rounds: int
    contention: tuple[str, ...]
    environment: Environment
    fed: str


def compare_in_setups(
    first: ToCompare,
    second: ToCompare,
    where: Place,
    images: TimedImages,
    progress: Progress | None = None,
) -> Comparison:
    """Time two models in the same rounds and count the operations that run.

    Args:
        first: The first one; its set-up has the batch size and the protocol.
        second: The second one. On a target it has the same set-up.
        where: Where both are timed.
        images: Images of their shape that both are fed.
        progress: Called with (done, total) after each round.

    Raises:
        UserError: they take different images.
        EngineRefused: a backend cannot run a model.
        TargetError: the target cannot be used.
    """
    pair = {"a": first, "b": second}
    shapes = [
        (one.architecture.image_channels, one.architecture.image_size) for one in (first, second)
    ]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"architectures: {first.name} and {second.name} take images of different shapes: "
            "explain compares models of the same input (original@64 is original for 64 pixels)"
        )
    counts: dict[str, Executed] = dict.fromkeys(pair, (None, ""))
    if isinstance(where, KnownTarget):
        found = measure_together(
            {name: one.architecture for name, one in pair.items()}, "a", first.setup, where, images,
            {name: one.weights for name, one in pair.items() if one.weights}, progress,
        )  # fmt: skip
    else:
        with FreshProcess(_Bench, pair, str(where), images, tuned=True) as process:
            counts = process.call("executed")
            found = process.call("measure", progress=progress)
    rows = {name: _compared(one, found, name, counts[name]) for name, one in pair.items()}
    return Comparison(
        batch=first.setup.batch,
        first=rows["a"],
        second=rows["b"],
        rounds=int(found.rounds.sum()),
        contention=found.contention,
        environment=found.taken["b"].environment,
        fed=images.about,
    )


def _compared(one: ToCompare, found: InterleavedLatencies, name: str, counts: Executed) -> Compared:
    taken, ratio = found.counted(name), found.ratio(name)
    (low, high), (least, most) = taken.interval_ms, ratio.interval
    return Compared(
        name=one.name,
        setup=one.setup.differing or "eager",
        ms=Estimate(value=taken.median_ms, low=low, high=high),
        over=Estimate(value=ratio.median, low=least, high=most),
        executed=counts[0],
        rewrites=counts[1],
    )


class _Bench:
    """The two models in the measuring process."""

    def __init__(self, pair: Mapping[str, ToCompare], device: str, images: TimedImages) -> None:
        self._pair, self._device, self._images = pair, torch.device(device), images
        self._lane, self._config = Lane(device), pair["a"].setup
        with self._lane.training(), threads(self._config.threads):
            fed = images.tensor(batch=self._config.batch)
            self._parts = {
                name: TimedPart.of(
                    timed_model(one.architecture, images, self._device, one.weights), fed, one.setup
                )
                for name, one in pair.items()
            }

    def executed(self) -> dict[str, Executed]:
        """Return how many operations run in a pass of each, and remarks about rewrites."""
        with self._lane.training():
            return {
                name: executed(
                    self._pair[name].setup.backend,
                    part.module,
                    tuple(arg[: self._config.batch] for arg in as_args(part.inputs)),
                    self._pair[name].setup.precision,
                )
                for name, part in self._parts.items()
            }

    def measure(self, progress: Progress | None = None) -> InterleavedLatencies:
        """Time both in the same rounds as a twin of the first one."""
        first, config = self._pair["a"], self._config
        where, weights = environment_of(config, self._device), self._parts["a"].weights
        found, _ = measure_interleaved(
            {name: one.module for name, one in self._parts.items()},
            "a",
            {name: one.inputs for name, one in self._parts.items()},
            config,
            self._device,
            quiet=quiet_speed(first.architecture, config, where, self._images.about, weights),
            alone=self._lane.measuring,
            prepare=self._prepare,
            progress=progress,
        )
        return found

    def _prepare(self, name: str, model: Model, example: Example) -> Model:
        setup = self._pair[name if name in self._pair else "a"].setup
        make = engines(setup, self._device, self._lane)
        if make is not None:
            return make(name, model, example)
        assert isinstance(model, nn.Module)
        return copy.deepcopy(model)
