"""The ratio of a model's latency to that of a reference, its interval, and signs of contention.

A machine changes its speed within minutes, but the ratio of two models timed in the same rounds
hardly changes. A twin, an identical copy of the reference, is timed in every round as well (an A/A
test). Reference and twin determine the rounds that ran at the machine's quiet speed; only these
rounds count. If reference and twin differ even there, the difference has another cause than the
models, and the measurement is contended.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from profiling.engines import as_cuda_graph
from profiling.intervals import median_interval, relative_iqr
from profiling.latency import (
    MAX_RELATIVE_IQR,
    MAX_WALL_OVER_CPU,
    Latency,
    LatencyConfig,
    Model,
    Ratio,
    batched,
    latency_html,
    measure_latency,
    paired_ratio,
)
from profiling.progress import Progress
from profiling.quiet import QuietSpeed, quiet_rounds, speed_of
from profiling.symbolic import Example

TWIN = "twin"

Enough = Callable[[Mapping[str, list[float]]], bool]
"""Whether rounds may end, from name -> times in ms."""

Take = Callable[[Enough], Mapping[str, Latency]]
"""Times a reference, its twin and others once, in the same rounds."""

Prepare = Callable[[str, Model, Example], Model]
"""Makes what runs a model, from its name, the model and its arguments."""

TWIN_MARGIN = 0.01
"""Maximum distance from 1 of the interval of the twin's ratio; above it there is contention."""

FEWEST_ROUNDS = 8
"""Minimum number of rounds at quiet speed; with fewer of them, all rounds count."""


@dataclass(frozen=True)
class InterleavedLatencies:
    """Latencies of models that were timed in the same rounds as a reference and its twin.

    Attributes:
        taken: Name -> latency over all rounds; one name is `twin`.
        reference: Name of the reference, of which the twin is a copy.
        quiet_ms: Latency of the twin at the machine's quiet speed.
        least: Minimum number of rounds at quiet speed of a measurement without contention.
    """

    taken: Mapping[str, Latency]
    reference: str
    quiet_ms: float
    least: int

    @cached_property
    def rounds(self) -> npt.NDArray[np.bool_]:
        """Whether each round counts, `(rounds,)`: those at quiet speed, or all if these are few."""
        quiet = self._quiet
        return quiet if quiet.sum() >= FEWEST_ROUNDS else np.ones_like(quiet)

    @cached_property
    def quiet_count(self) -> int:
        """Number of rounds at quiet speed."""
        return int(self._quiet.sum())

    @property
    def _quiet(self) -> npt.NDArray[np.bool_]:
        reference, twin = self.taken[self.reference], self.taken[TWIN]
        return quiet_rounds(reference.samples_ms, twin.samples_ms, self.quiet_ms)

    def counted(self, name: str) -> Latency:
        """Return the latency of a model over the rounds that count."""
        return self.taken[name].only(list(map(bool, self.rounds)))

    def ratio(self, name: str, base: str | None = None) -> Ratio:
        """Return the latency of a model over that of `base`, by default the reference."""
        return paired_ratio(self.counted(name), self.counted(base or self.reference))

    @cached_property
    def contention(self) -> tuple[str, ...]:
        """Signs that other work disturbed the measurement; empty without contention."""
        signs = []
        if self.quiet_count < self.least and np.isinf(self.quiet_ms):
            signs.append(f"{len(self.rounds)} rounds are too few to tell the quiet speed")
        elif self.quiet_count < self.least:
            signs.append(
                f"{self.quiet_count} of {len(self.rounds)} rounds ran at the quiet speed, at which "
                f"the reference takes {self.quiet_ms:.3g} ms"
            )
        counted = {name: self.counted(name) for name in self.taken}
        waits = [one.wall_over_cpu for one in counted.values() if one.wall_over_cpu]
        if waits and max(waits) > MAX_WALL_OVER_CPU:
            signs.append(f"wall time is {max(waits):.2f} of the thread's CPU time")
        walls = {name: np.array(one.samples_ms) for name, one in counted.items()}
        spread = max(relative_iqr(list(w / walls[self.reference])) for w in walls.values())
        if spread > MAX_RELATIVE_IQR:
            signs.append(f"interquartile range of a ratio is {spread:.0%} of its median")
        twin = self.ratio(TWIN).interval
        if twin.excludes(1.0, TWIN_MARGIN):
            signs.append(f"a copy of the reference took {twin.low:.3f} to {twin.high:.3f} of it")
        load = self.taken[TWIN].load
        return (*signs, *(load.signs if load else ()))

    @property
    def contended(self) -> bool:
        """Whether there is any sign of contention."""
        return bool(self.contention)

    def to_dict(self) -> dict[str, Any]:
        """Return the models, the environment and all samples as plain JSON types.

        A quiet speed that is not known is None: JSON has no infinity.
        """
        twin = self.taken[TWIN]
        return {
            "environment": twin.environment.model_dump(mode="json"),
            "load": asdict(twin.load) if twin.load else None,
            "quiet_ms": self.quiet_ms if np.isfinite(self.quiet_ms) else None,
            "rounds": list(map(bool, self.rounds)),
            "contention": list(self.contention),
            "subjects": {name: asdict(one.subject) for name, one in self.taken.items()},
            "samples": {
                name: [[s.wall_ms, s.cpu_ms, s.device_ms] for s in one.samples]
                for name, one in self.taken.items()
            },
        }


@dataclass(frozen=True)
class PairedLatency:
    """A candidate and a reference timed in the same rounds, and the number of measurements made."""

    interleaved: InterleavedLatencies
    attempts: int = 1

    def __repr__(self) -> str:
        """Return the ratio, its interval and both latencies."""
        return f"PairedLatency({self._in_words})"

    def _repr_html_(self) -> str:
        """Return both latencies and their ratio, as a notebook shows them."""
        return latency_html([self.candidate, self.reference], self._in_words)

    @property
    def _in_words(self) -> str:
        low, high = self.ratio.interval
        busy = ", contended" if self.contended else ""
        return (
            f"candidate {self.candidate.median_ms:.4g} ms, reference "
            f"{self.reference.median_ms:.4g} ms, ratio {self.ratio.median:.4g}, 95 % interval "
            f"{low:.4g} to {high:.4g}{busy}"
        )

    @cached_property
    def candidate(self) -> Latency:
        """The candidate's latency over the rounds that count."""
        return self.interleaved.counted("candidate")

    @cached_property
    def reference(self) -> Latency:
        """The reference's latency over the rounds that count."""
        return self.interleaved.counted("reference")

    @cached_property
    def replayed(self) -> Latency | None:
        """The latency of the candidate as a replayed CUDA graph; None on other devices."""
        return self.interleaved.counted("graph") if "graph" in self.interleaved.taken else None

    @cached_property
    def ratio(self) -> Ratio:
        """The latency of the candidate over that of the reference."""
        return self.interleaved.ratio("candidate")

    @cached_property
    def twin_ratio(self) -> Ratio:
        """The latency of the twin over that of the reference: 1 without contention."""
        return self.interleaved.ratio(TWIN)

    @property
    def contention(self) -> tuple[str, ...]:
        """Signs that other work disturbed the measurement; empty without contention."""
        return self.interleaved.contention

    @property
    def contended(self) -> bool:
        """Whether there is any sign of contention."""
        return self.interleaved.contended


def compare_latency(
    candidate: Model,
    reference: Model,
    example: Example | Mapping[str, Example],
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    digests: tuple[str, str] = ("", ""),
    quiet: QuietSpeed | None = None,
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    prepare: Prepare | None = None,
) -> PairedLatency:
    """Time a candidate in the same rounds as a reference and its twin.

    `measure_interleaved` measures. On CUDA a module is also timed as a replayed graph, unless an
    engine runs it.

    Args:
        candidate: A module or callable.
        reference: A module or callable. Modules are copied, the reference twice, for the twin.
        example: Arguments of both, as for `measure_latency`, or those of "candidate" and of
            "reference".
        config: Settings.
        device: Device of both.
        digests: Digests of candidate and reference.
        quiet: The recorded quiet speed of the reference on this machine; it is updated.
        alone: Returns a context for each measurement, such as `Lane.measuring`.
        prepare: Makes what runs a model, as for `measure_interleaved`.

    Raises:
        ProfilingError: as `measure_latency`.
    """
    config, device = config or LatencyConfig(), torch.device(device)
    models: dict[str, Model] = {"candidate": candidate, "reference": reference}
    if device.type == "cuda" and isinstance(candidate, nn.Module) and prepare is None:
        own = example["candidate"] if isinstance(example, Mapping) else example
        models["graph"] = _graph(candidate, own, config, device)
        example = {**example, "graph": own} if isinstance(example, Mapping) else example
    interleaved, attempts = measure_interleaved(
        models, "reference", example, config, device, quiet=quiet, alone=alone, prepare=prepare
    )
    of = {"candidate": digests[0], "graph": digests[0]}
    named = {
        name: replace(
            one,
            subject=replace(
                one.subject,
                digest=of.get(name, digests[1]),
                backend="cuda_graph" if name == "graph" else "eager",
            ),
        )
        for name, one in interleaved.taken.items()
    }
    return PairedLatency(replace(interleaved, taken=named), attempts)


def measure_interleaved(
    models: Mapping[str, Model],
    reference: str,
    example: Example | Mapping[str, Example],
    config: LatencyConfig,
    device: torch.device,
    *,
    quiet: QuietSpeed | None = None,
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    prepare: Prepare | None = None,
    progress: Progress | None = None,
) -> tuple[InterleavedLatencies, int]:
    """Time models in the same rounds as a twin of the reference, as `until_quiet` describes.

    Args:
        models: Name -> module or callable.
        reference: Name of the reference among them.
        example: Arguments of all models, as for `measure_latency`.
        config: Settings.
        device: Device of the models.
        quiet: The recorded quiet speed of the reference on this machine; it is updated.
        alone: Returns a context for each measurement, such as `Lane.measuring`.
        prepare: Makes what runs a model, for example an engine; the twin gets one of its own. None
            copies the models.
        progress: Called with (done, total) after each round.

    Returns:
        The latencies, and the number of measurements made.
    """
    # A copied model has another memory layout than a built one and is up to 1 % faster, so all
    # models are copied.
    if isinstance(example, Mapping):
        example = {**example, TWIN: example[reference]}
    copies = {
        name: prepare(name, model, example[name] if isinstance(example, Mapping) else example)
        if prepare
        else _copied(model)
        for name, model in {**models, TWIN: models[reference]}.items()
    }

    def take(enough: Enough) -> Mapping[str, Latency]:
        with alone():
            return measure_latency(
                copies, example, config, device, enough=enough, progress=progress
            )

    return until_quiet(take, reference, config, quiet or QuietSpeed())


def until_quiet(
    take: Take, reference: str, config: LatencyConfig, quiet: QuietSpeed
) -> tuple[InterleavedLatencies, int]:
    """Repeat a measurement with a reference and its twin until it is not contended.

    Rounds are added until at least `config.min_rounds` of them ran at quiet speed, and over these
    the 95 % interval of each model's ratio to the reference is within +-`config.half_width` of it;
    or until `config.max_rounds` or `config.max_s` is reached. A contended measurement is repeated,
    at most `config.attempts` times in all. If all are contended, the one with most rounds at quiet
    speed is returned, and its `contention` lists the signs.

    Args:
        take: Measures once.
        reference: Name of the reference.
        config: Settings.
        quiet: The recorded quiet speed of the reference where it is measured; it is updated.

    Returns:
        The latencies, and the number of measurements made.
    """
    enough = partial(_settled, reference=reference, quiet=quiet, config=config)
    best: InterleavedLatencies | None = None
    for attempt in range(1, config.attempts + 1):
        taken = take(enough)
        quiet.note(taken[TWIN].samples_ms)
        found = InterleavedLatencies(
            taken, reference, _quiet_ms(taken[TWIN].samples_ms, quiet), config.min_rounds
        )
        if not found.contended:
            return found, attempt
        best = found if best is None or found.quiet_count > best.quiet_count else best
    assert best is not None
    return best, config.attempts


def _copied(model: Model) -> Model:
    return copy.deepcopy(model) if isinstance(model, nn.Module) else model


def precise_ratios(
    walls: Mapping[str, npt.NDArray[np.float64]], names: Iterable[str], base: str, half_width: float
) -> bool:
    """Return whether the interval of each named model's ratio to `base` is precise.

    Args:
        walls: Name -> times of the rounds so far, in ms.
        names: Names of the models.
        base: Name of the model in the denominator.
        half_width: Largest half width of an interval, relative to the ratio.
    """
    for name in names:
        ratios = (walls[name] / walls[base]).tolist()
        if median_interval(ratios).half_width(median(ratios)) > half_width:
            return False
    return True


def _settled(
    walls: Mapping[str, list[float]], reference: str, quiet: QuietSpeed, config: LatencyConfig
) -> bool:
    rounds = quiet_rounds(walls[reference], walls[TWIN], _quiet_ms(walls[TWIN], quiet))
    if rounds.sum() < config.min_rounds:
        return False
    counted = {name: np.array(times)[rounds] for name, times in walls.items()}
    names = [name for name in walls if name != TWIN]
    return precise_ratios(counted, names, reference, config.half_width)


def _quiet_ms(twin_ms: list[float] | tuple[float, ...], quiet: QuietSpeed) -> float:
    return min(quiet.best_ms, speed_of(twin_ms))


def _graph(
    model: nn.Module, example: Example, config: LatencyConfig, device: torch.device
) -> Model:
    """Return a copy of the model captured as a CUDA graph."""
    args = batched(example, config.batch, device)
    with torch.inference_mode():
        return as_cuda_graph(copy.deepcopy(model).eval(), args, config.threads)[0]
