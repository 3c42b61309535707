"""Why one architecture is slower than another: measured by ablation, split into causes.

How the gap is split is written down in `nas.explanation`; this module takes the measurements. Both
models are measured in two fresh processes that take turns: one starts as this process did, the
other keeps freed memory. In the second all ablated copies of both models take turns, too.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from nas.explanation import (
    CAUSES,
    CONVOLUTIONS,
    STEPS,
    Comparison,
    Estimate,
    Explanation,
    Side,
    SideName,
    Step,
    Tick,
    Times,
    Value,
    Variant,
    bootstrap,
    ms_per_mac,
    split,
    terms,
)
from nas.vae import build_vae
from profiling.ablation import Ablation, Counts
from profiling.environment import Environment, select_device
from profiling.folding import fold_batch_norms
from profiling.fresh_process import FreshProcess
from profiling.latency import Latency, LatencyConfig, Model, measure_latency
from profiling.layers import profile_layers
from profiling.memory import require_memory
from profiling.operations import Kind
from profiling.roofline import Peaks, measure_peaks
from profiling.timing import measuring
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

Progress = Callable[[int, int], None]

SIDES: tuple[SideName, SideName] = ("a", "b")
PLAIN, FOLDED = "plain convolutions", "BatchNorm folded"
_REPEATS = 1000  # empty operations in one sample


class ExplainConfig(Value):
    """How to measure. `max_s` bounds the timed passes at each batch size, warm-up apart."""

    batches: tuple[int, ...] = Field((1,), min_length=1)
    threads: int = Field(1, ge=1)
    rounds: int = Field(15, ge=2)
    turns: int = Field(3, ge=1)
    max_s: float = Field(90.0, gt=0)
    device: str = "cpu"


def explain(
    a: Architecture,
    b: Architecture,
    names: tuple[str, str] = ("a", "b"),
    config: ExplainConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Explanation:
    """Measure both architectures and their ablations, and split the gap of B over A into causes.

    Takes one to two minutes for a pair of 50 and 200 ms at batch 1. Nothing in this process
    changes: all measurements are made in processes of their own.

    Raises:
        UserError: a batch size below 1.
        ProfilingError: unknown device, or a model does not fit in memory.
    """
    config = config or ExplainConfig()
    _check(a, b, config)
    report = _Steps(progress, len(config.batches), config)
    taken = [_measure((a, b), batch, config, report) for batch in config.batches]
    last = taken[-1]
    return Explanation(
        a_name=names[0],
        b_name=names[1],
        a=a,
        b=b,
        threads=config.threads,
        gemm_gmac_s=last.peaks.gemm_gflop_s / 2,
        environment=last.environment,
        comparisons=tuple(compare(measured) for measured in taken),
    )


@dataclass(frozen=True)
class Measured:
    """All that was measured at one batch size; what the causes are computed from.

    Subjects of `kept` are named by `subject` and `variant`, and "launch" and "call"; those of
    `default` are the two intact models. `layers_ms` holds the layer table's time of each kind.
    """

    batch: int
    counts: Mapping[SideName, Counts]
    variants: Mapping[str, Counts]
    default: Mapping[str, Latency]
    kept: Mapping[str, Latency]
    page_faults: Mapping[SideName, tuple[float, float]]
    layers_ms: Mapping[SideName, Mapping[Kind, float]]
    explained_by_layers: Mapping[SideName, float]
    peaks: Peaks

    @property
    def environment(self) -> Environment:
        """Where the models were measured as they are."""
        return next(iter(self.default.values())).environment


def subject(side: SideName, taken: Sequence[Kind], counts: Counts) -> str:
    """Name the copy of a model without `taken`; kinds that it does not have change nothing."""
    return f"{side}:" + "+".join(kind for kind in taken if counts.launches_of.get(kind))


def variant(side: SideName, title: str) -> str:
    """Name a model built in another way."""
    return f"{side}={title}"


def standard(architecture: Architecture) -> Architecture:
    """Return the same architecture with full 3x3 convolutions in every stage."""
    described = architecture.to_dict()
    for part in ("encoder", "decoder"):
        for stage in described[part]["stages"]:
            stage["convolution"] = "standard"
    return Architecture.from_dict(described)


class Bench:
    """Both models and their copies, in the process that measures them."""

    def __init__(
        self, pair: tuple[Architecture, Architecture], batch: int, config: ExplainConfig
    ) -> None:
        self._pair, self._batch, self._config = dict(zip(SIDES, pair, strict=True)), batch, config
        self._device = select_device(config.device)
        self._ablations = {side: self._ablation(a) for side, a in self._pair.items()}

    def counts(self) -> dict[SideName, Counts]:
        """Return what each model does in a pass of the whole batch."""
        return {side: ablation.counts for side, ablation in self._ablations.items()}

    def variant_counts(self) -> dict[str, Counts]:
        """Return the same of the models built in another way."""
        return {name: ablation.counts for name, ablation in self._variants.items()}

    def measure(
        self, rounds: int, max_s: float, ablate: bool, *, progress: Progress | None = None
    ) -> dict[str, Latency]:
        """Time both models, with `ablate` also all their copies, in turns."""
        config = self._latency_config(rounds, max_s)
        subjects = self._copies if ablate else self._intact
        return measure_latency(
            subjects, self._images(self._batch), config, self._device, progress=progress
        )

    def page_faults(self, passes: int = 3) -> dict[SideName, float]:
        """Return the minor page faults of one pass of each model."""
        images, found = self._images(self._batch), {}
        models = {side: self._intact[f"{side}:"] for side in SIDES}
        with measuring(models.values(), self._config.threads, self._device):
            for side, model in models.items():
                model(images)
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                for _ in range(passes):
                    model(images)
                after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                found[side] = (after - before) / passes
        return found

    def peaks(self) -> Peaks:
        """Measure what the machine can do."""
        return measure_peaks(self._config.threads, self._device)

    def layers(self, side: SideName, peaks: Peaks) -> tuple[dict[Kind, float], float]:
        """Return the layer table's time of each kind, in ms, and the share it explains."""
        model: Any = self._intact[f"{side}:"]
        config = self._latency_config(self._config.rounds, self._config.max_s / 10)
        table = profile_layers(model, self._images(1), config, self._device, peaks=peaks)
        spent = dict.fromkeys(STEPS, 0.0)
        for layer in table.layers:
            if layer.cost.kind in spent:
                spent[layer.cost.kind] += layer.time_ms
        return spent, table.explained_share

    def _latency_config(self, rounds: int, max_s: float) -> LatencyConfig:
        return LatencyConfig(
            batch=self._batch,
            threads=self._config.threads,
            min_rounds=rounds,
            max_rounds=rounds,
            max_s=max_s,
            warmup_window=1,
            max_warmup=4,
        )

    def _images(self, batch: int) -> Tensor:
        a = self._pair["a"]
        generator = torch.Generator().manual_seed(0)
        shape = (batch, a.image_channels, a.image_size, a.image_size)
        return torch.rand(shape, generator=generator).to(self._device)

    def _ablation(self, architecture: Architecture) -> Ablation:
        return self._ablation_of(build_vae(architecture, seed=0))

    def _ablation_of(self, model: nn.Module) -> Ablation:
        return Ablation(model.eval().to(self._device), self._images(self._batch))

    @cached_property
    def _intact(self) -> dict[str, Model]:
        return {f"{side}:": ablation.without() for side, ablation in self._ablations.items()}

    @cached_property
    def _variants(self) -> dict[str, Ablation]:
        found = {}
        for side, architecture in self._pair.items():
            plain = standard(architecture)
            if plain != architecture:
                found[variant(side, PLAIN)] = self._ablation(plain)
            folded, done, _ = fold_batch_norms(build_vae(architecture, seed=0))
            if done:
                found[variant(side, FOLDED)] = self._ablation_of(folded)
        return found

    @cached_property
    def _copies(self) -> dict[str, Model]:
        copies: dict[str, Model] = dict(self._intact)
        for side, ablation in self._ablations.items():
            for taken in _takings():
                name = subject(side, taken, ablation.counts)
                copies[name] = copies.get(name) or ablation.without(*taken)
        for name, ablation in self._variants.items():
            copies[name] = ablation.without()
            if name.endswith(PLAIN):
                copies[f"{name}:"] = ablation.without(*CONVOLUTIONS)
        return copies | self._empty()

    def _empty(self) -> dict[str, Model]:
        single, module = torch.ones(1, device=self._device), nn.Identity()

        def launch(*inputs: Any) -> None:
            for _ in range(_REPEATS):
                torch.neg(single)

        def call(*inputs: Any) -> None:
            for _ in range(_REPEATS):
                module(single)

        return {"launch": launch, "call": call}


def _takings() -> Iterator[tuple[Kind, ...]]:
    """Yield every set of kinds to take away: one after another, and each alone."""
    for number, kind in enumerate(STEPS, start=1):
        yield STEPS[:number]
        yield (kind,)


def compare(measured: Measured) -> Comparison:
    """Compute the comparison at one batch size from what was measured there."""
    kept = bootstrap({name: latency.samples_ms for name, latency in measured.kept.items()})
    default = bootstrap({name: lat.samples_ms for name, lat in measured.default.items()}, seed=1)
    tick = Tick(kept["launch"] / _REPEATS, kept["call"] / _REPEATS)
    views = {side: _View(side, measured, kept, default, tick) for side in SIDES}
    a, b = views["a"], views["b"]
    causes, remainder = split(a.terms(a), b.terms(a), _checks(a, b))
    total_a, total_b = default["a:"], default["b:"]
    return Comparison(
        batch=measured.batch,
        rounds=len(measured.kept["a:"].samples),
        a=a.side(),
        b=b.side(),
        gap_ms=Estimate.of(total_b - total_a),
        ratio=Estimate.of(total_b / total_a),
        causes=causes,
        remainder=remainder,
        launch_us=Estimate.of(1000 * tick.launch_ms),
        call_us=Estimate.of(1000 * tick.call_ms),
    )


@dataclass(frozen=True)
class _View:
    """One side of what was measured."""

    name: SideName
    measured: Measured
    kept: Mapping[str, Times]
    default: Mapping[str, Times]
    tick: Tick

    @property
    def counts(self) -> Counts:
        return self.measured.counts[self.name]

    def terms(self, yardstick: _View) -> dict[str, Times]:
        """Return this side's terms, at the rate of the yardstick's convolutions."""
        total, kept = self.default[f"{self.name}:"], self.kept[f"{self.name}:"]
        named = self._terms_of(yardstick, "in_order")
        return named | {"allocator": total - kept, "total": total}

    def alone(self, yardstick: _View) -> dict[str, Times]:
        """Return the terms that each kind taken away alone would give."""
        return self._terms_of(yardstick, "alone_of")

    def layers(self, yardstick: _View) -> dict[str, Times]:
        """Return the terms that the layer table's times would give."""
        return self._terms_of(yardstick, "layers_of")

    def _terms_of(self, yardstick: _View, source: str) -> dict[str, Times]:
        spent = {kind: getattr(self, source)(kind) for kind in STEPS}
        theirs = {kind: getattr(yardstick, source)(kind) for kind in STEPS}
        return terms(spent, self.counts, self.tick, ms_per_mac(theirs, yardstick.counts, self.tick))

    def in_order(self, kind: Kind) -> Times:
        """Return what taking `kind` away saves when those before it in `STEPS` are gone."""
        number = STEPS.index(kind)
        return self._left(STEPS[:number]) - self._left(STEPS[: number + 1])

    def alone_of(self, kind: Kind) -> Times:
        """Return what taking away `kind` alone saves."""
        return self._left(()) - self._left((kind,))

    def layers_of(self, kind: Kind) -> Times:
        """Return the layer table's time, a number without an interval."""
        return self.tick.launch_ms * 0 + self.measured.layers_ms[self.name][kind]

    def contended(self, kind: Kind) -> bool:
        """Tell whether the copies on either side of taking `kind` away were disturbed."""
        number = STEPS.index(kind)
        sides = (STEPS[:number], STEPS[: number + 1], (), (kind,))
        names = {subject(self.name, taken, self.counts) for taken in sides}
        return any(self.measured.kept[name].contended for name in names)

    def side(self) -> Side:
        """Return the side's part of the result."""
        name, rate = f"{self.name}:", self._rate(self.counts, self.in_order)
        intact = (self.measured.default[name], self.measured.kept[name])
        faults = self.measured.page_faults[self.name]
        return Side(
            counts=self.counts,
            ms=Estimate.of(self.default[name]),
            kept_ms=Estimate.of(self.kept[name]),
            page_faults=faults[0],
            kept_page_faults=faults[1],
            convolution_gmac_s=Estimate.of(rate),
            explained_by_layers=self.measured.explained_by_layers[self.name],
            steps=tuple(self._step(kind) for kind in STEPS if self.counts.launches_of.get(kind)),
            variants=tuple(self._variants()),
            contention=tuple(dict.fromkeys(sign for lat in intact for sign in lat.contention)),
        )

    def _left(self, taken: Sequence[Kind]) -> Times:
        return self.kept[subject(self.name, taken, self.counts)]

    def _step(self, kind: Kind) -> Step:
        return Step(
            kind=kind,
            left_ms=Estimate.of(self._left(STEPS[: STEPS.index(kind) + 1])),
            saved_ms=Estimate.of(self.in_order(kind)),
            alone_ms=Estimate.of(self.alone_of(kind)),
            contended=self.contended(kind),
        )

    def _variants(self) -> Iterator[Variant]:
        intact = self.kept[f"{self.name}:"]
        for title in (PLAIN, FOLDED):
            name = variant(self.name, title)
            counts = self.measured.variants.get(name)
            if counts is None:
                continue
            bare = self.kept.get(f"{name}:")
            rate = None if bare is None else _rate(self.kept[name] - bare, counts, self.tick)
            yield Variant(
                title=title,
                params=counts.params,
                macs=counts.macs,
                ms=Estimate.of(self.kept[name]),
                ratio=Estimate.of(self.kept[name] / intact),
                convolution_gmac_s=None if rate is None else Estimate.of(rate),
                contended=self.measured.kept[name].contended,
            )

    def _rate(self, counts: Counts, source: Callable[[Kind], Times]) -> Times:
        spent: Times = sum((source(kind) for kind in CONVOLUTIONS), 0 * self.tick.launch_ms)
        return _rate(spent, counts, self.tick)


def _rate(spent: Times, counts: Counts, tick: Tick) -> Times:
    """Return the GMAC/s of convolutions that took `spent` ms, launches included."""
    launches = sum(counts.launches_of.get(kind, 0) for kind in CONVOLUTIONS)
    macs = sum(counts.macs_of.get(kind, 0) for kind in CONVOLUTIONS)
    rate: Times = macs / (spent - launches * tick.launch_ms).clip(min=1e-6) / 1e6
    return rate


def _checks(a: _View, b: _View) -> dict[str, dict[str, Any]]:
    """Return the gap by the two checks, and what was disturbed, by cause."""
    alone_a, alone_b, layers_a, layers_b = a.alone(a), b.alone(a), a.layers(a), b.layers(a)
    checked = [key for key in CAUSES if key not in ("allocator", "overhead")]
    busy = {kind: a.contended(kind) or b.contended(kind) for kind in STEPS}
    allocator = any(lat.contended for lat in a.measured.default.values())
    return {
        "alone": {key: alone_b[key] - alone_a[key] for key in checked},
        "layers": {key: (layers_b[key] - layers_a[key])[0] for key in checked},
        "contended": {
            **busy,
            "arithmetic": any(busy[kind] for kind in CONVOLUTIONS),
            "normalisation": busy["batch_norm"] or busy["activation"],
            "allocator": allocator,
            "remainder": any(busy.values()) or allocator,
        },
    }


class _Steps:
    """Turns the progress of many short measurements into one."""

    def __init__(self, progress: Progress | None, batches: int, config: ExplainConfig) -> None:
        self._progress, self._done = progress, 0
        self._total = batches * (2 * config.turns * _per_turn(config) + 2)

    def next(self, size: int) -> Progress:
        """Return the progress of a part that counts for `size`."""
        start, self._done = self._done, self._done + size

        def report(done: int, total: int) -> None:
            if self._progress:
                self._progress(start + round(size * done / total), self._total)

        return report


def _per_turn(config: ExplainConfig) -> int:
    return max(2, -(-config.rounds // config.turns))


def _check(a: Architecture, b: Architecture, config: ExplainConfig) -> None:
    if wrong := [batch for batch in config.batches if batch < 1]:
        raise UserError(f"batch: {wrong[0]} is not a positive number of images")
    if (a.image_size, a.image_channels) != (b.image_size, b.image_channels):
        raise UserError(
            f"architectures: one takes {a.image_channels}x{a.image_size}x{a.image_size} images, "
            f"the other {b.image_channels}x{b.image_size}x{b.image_size}: explain compares models "
            "of the same input (original@64 is original for 64 pixels)"
        )
    device = select_device(config.device)
    for architecture in (a, b):
        shape = (max(config.batches), architecture.image_channels, *2 * [architecture.image_size])
        with torch.device("meta"):
            model, images = build_vae(architecture), torch.empty(shape)
        require_memory(model, images, device)


def _measure(
    pair: tuple[Architecture, Architecture], batch: int, config: ExplainConfig, report: _Steps
) -> Measured:
    """Take all measurements at one batch size, in two processes that take turns."""
    with ExitStack() as stack:
        plain, keeping = (
            stack.enter_context(FreshProcess(Bench, pair, batch, config, tuned=tuned))
            for tuned in (False, True)
        )
        # Both have built their models, and so come to rest, before either measures.
        counts, _ = keeping.call("counts"), plain.call("counts")
        variants = keeping.call("variant_counts")
        default, kept = _turns(plain, keeping, config, report)
        faults = [process.call("page_faults") for process in (plain, keeping)]
        peaks = keeping.call("peaks")
        layers = {}
        for side in SIDES:
            layers[side] = keeping.call("layers", side, peaks)
            report.next(1)(1, 1)
    return Measured(
        batch=batch,
        counts=counts,
        variants=variants,
        default=default,
        kept=kept,
        page_faults={side: (faults[0][side], faults[1][side]) for side in SIDES},
        layers_ms={side: spent for side, (spent, _) in layers.items()},
        explained_by_layers={side: share for side, (_, share) in layers.items()},
        peaks=peaks,
    )


def _turns(
    plain: FreshProcess, keeping: FreshProcess, config: ExplainConfig, report: _Steps
) -> tuple[dict[str, Latency], dict[str, Latency]]:
    rounds, max_s = _per_turn(config), config.max_s / config.turns
    parts: tuple[list[dict[str, Latency]], ...] = ([], [])
    for _ in range(config.turns):
        for taken, process, ablate in zip(parts, (plain, keeping), (False, True), strict=True):
            progress = report.next(rounds)
            taken.append(process.call("measure", rounds, max_s, ablate, progress=progress))
            progress(1, 1)
    return _joined(parts[0]), _joined(parts[1])


def _joined(parts: Sequence[Mapping[str, Latency]]) -> dict[str, Latency]:
    """Join the samples that several turns took of the same subjects."""
    return {
        name: replace(first, samples=tuple(s for part in parts for s in part[name].samples))
        for name, first in parts[0].items()
    }
