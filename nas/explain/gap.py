"""Compute the gap and its causes from measurements, by the formulas of `nas.explain.terms`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.explain.copies import EMPTY, FOLDED, PLAIN, subject, variant
from nas.explain.explanation import (
    ABLATION_ORDER,
    CAUSES,
    SIDES,
    AblationStep,
    Clock,
    Estimate,
    LatencyGap,
    Side,
    SideName,
    Times,
    Variant,
)
from nas.explain.terms import UnitCosts, bootstrap, ms_per_mac, split, terms
from profiling.ablation import Counts
from profiling.environment import Environment
from profiling.intervals import relative_iqr
from profiling.kinds import CONVOLUTION_GROUPS, KindGroup
from profiling.latency import MAX_RELATIVE_IQR, MAX_WALL_OVER_CPU, Latency


@dataclass(frozen=True)
class Measured:
    """All measurements at one batch size.

    Attributes:
        batch: Batch size.
        counts: Counts of each model.
        variants: Counts of each variant.
        default: Latencies of the two models with the allocator as it is.
        kept: Latencies with freed memory kept: copies and variants by the names of
            `nas.explain.copies.subject` and `variant`, and the subjects "launch" and "call".
        page_faults: Minor page faults of one pass of each model, in the same two cases.
        layer_shares: Each kind's share of a model's latency, by the layer table.
        explained_by_layers: The share of all rows of the layer table.
    """

    batch: int
    counts: Mapping[SideName, Counts]
    variants: Mapping[str, Counts]
    default: Mapping[str, Latency]
    kept: Mapping[str, Latency]
    page_faults: Mapping[SideName, tuple[float, float]]
    layer_shares: Mapping[SideName, Mapping[KindGroup, float]]
    explained_by_layers: Mapping[SideName, float]

    @property
    def environment(self) -> Environment:
        """The environment of the measurements with the allocator as it is."""
        return next(iter(self.default.values())).environment


def clock(latency: Latency) -> Clock:
    """Return the clock of the times: thread CPU time if one CPU thread does all the work.

    Other work on the machine makes a thread wait, but hardly increases its CPU time. Without
    contention both clocks give equal times.
    """
    return "wall" if latency.wall_over_cpu is None else "thread CPU"


def times_ms(latency: Latency) -> tuple[float, ...]:
    """Return the times of the samples by the clock that `clock` returns."""
    own = clock(latency) == "thread CPU"
    return tuple(sample.cpu_ms if own else sample.wall_ms for sample in latency.samples)


def contention(latency: Latency) -> tuple[str, ...]:
    """Return the signs of contention in the times of `times_ms`; empty without contention."""
    signs, spread = [], relative_iqr(times_ms(latency))
    if latency.wall_over_cpu is not None and latency.wall_over_cpu > MAX_WALL_OVER_CPU:
        signs.append(f"the thread waited: wall time is {latency.wall_over_cpu:.2f} of CPU time")
    if spread > MAX_RELATIVE_IQR:
        signs.append(f"times vary: interquartile range is {spread:.0%} of the median")
    return tuple(signs)


def explain_gap(measured: Measured) -> LatencyGap:
    """Return the gap and its causes at one batch size."""
    kept_ms, default_ms = (
        {name: times_ms(latency) for name, latency in taken.items()}
        for taken in (measured.kept, measured.default)
    )
    kept, default = bootstrap(kept_ms), bootstrap(default_ms, seed=1)
    unit = UnitCosts(kept["launch"] / EMPTY, kept["call"] / EMPTY)
    views = {side: _View(side, measured, kept, default, unit) for side in SIDES}
    a, b = views["a"], views["b"]
    causes, remainder = split(a.terms(a), b.terms(a), _checks(a, b))
    total_a, total_b = default["a:"], default["b:"]
    return LatencyGap(
        batch=measured.batch,
        a=a.side(),
        b=b.side(),
        gap_ms=Estimate.of(total_b - total_a),
        ratio=Estimate.of(total_b / total_a),
        causes=causes,
        remainder=remainder,
        launch_us=Estimate.of(1000 * unit.launch_ms),
        call_us=Estimate.of(1000 * unit.call_ms),
        default_samples_ms=default_ms,
        kept_samples_ms=kept_ms,
    )


@dataclass(frozen=True)
class _View:
    """The measurements of one model."""

    name: SideName
    measured: Measured
    kept: Mapping[str, Times]
    default: Mapping[str, Times]
    unit: UnitCosts

    @property
    def counts(self) -> Counts:
        return self.measured.counts[self.name]

    def terms(self, yardstick: _View) -> dict[str, Times]:
        """Return the terms of this model, at the rate of the yardstick's convolutions."""
        total, kept = self.default[f"{self.name}:"], self.kept[f"{self.name}:"]
        named = self._terms_of(yardstick, _View.in_order)
        return named | {"allocator": total - kept, "total": total}

    def alone(self, yardstick: _View) -> dict[str, Times]:
        """Return the terms if each kind is removed alone."""
        return self._terms_of(yardstick, _View.alone_of)

    def layers(self, yardstick: _View) -> dict[str, Times]:
        """Return the terms from the times of the layer table."""
        return self._terms_of(yardstick, _View.layers_of)

    def _terms_of(self, yardstick: _View, source: _Source) -> dict[str, Times]:
        spent = {kind: source(self, kind) for kind in ABLATION_ORDER}
        theirs = {kind: source(yardstick, kind) for kind in ABLATION_ORDER}
        return terms(spent, self.counts, self.unit, ms_per_mac(theirs, yardstick.counts, self.unit))

    def in_order(self, kind: KindGroup) -> Times:
        """Return the time saved by removing `kind` after all kinds before it in the order."""
        number = ABLATION_ORDER.index(kind)
        return self._left(ABLATION_ORDER[:number]) - self._left(ABLATION_ORDER[: number + 1])

    def alone_of(self, kind: KindGroup) -> Times:
        """Return the time saved by removing `kind` alone."""
        return self._left(()) - self._left((kind,))

    def layers_of(self, kind: KindGroup) -> Times:
        """Return the time of `kind` by the layer table."""
        return self._left(()) * self.measured.layer_shares[self.name][kind]

    def contended(self, kind: KindGroup) -> bool:
        """Whether contention disturbed the copies with and without `kind`."""
        number = ABLATION_ORDER.index(kind)
        sides = (ABLATION_ORDER[:number], ABLATION_ORDER[: number + 1], (), (kind,))
        names = {subject(self.name, taken, self.counts) for taken in sides}
        return any(contention(self.measured.kept[name]) for name in names)

    def side(self) -> Side:
        """Return the result for this model."""
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
            steps=tuple(
                self._step(kind) for kind in ABLATION_ORDER if self.counts.launches_of.get(kind)
            ),
            variants=tuple(self._variants()),
            contention=tuple(dict.fromkeys(sign for lat in intact for sign in contention(lat))),
        )

    def _left(self, taken: Sequence[KindGroup]) -> Times:
        return self.kept[subject(self.name, taken, self.counts)]

    def _step(self, kind: KindGroup) -> AblationStep:
        return AblationStep(
            kind=kind,
            left_ms=Estimate.of(self._left(ABLATION_ORDER[: ABLATION_ORDER.index(kind) + 1])),
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
            rate = None if bare is None else _rate(self.kept[name] - bare, counts, self.unit)
            yield Variant(
                title=title,
                params=counts.params,
                macs=counts.macs,
                ms=Estimate.of(self.kept[name]),
                ratio=Estimate.of(self.kept[name] / intact),
                convolution_gmac_s=None if rate is None else Estimate.of(rate),
                contended=bool(contention(self.measured.kept[name])),
            )

    def _rate(self, counts: Counts, source: Callable[[KindGroup], Times]) -> Times:
        spent: Times = sum((source(kind) for kind in CONVOLUTION_GROUPS), 0 * self.unit.launch_ms)
        return _rate(spent, counts, self.unit)


_Source = Callable[[_View, KindGroup], Times]
"""The source of the time of a kind: one of three methods of `_View`."""


def _rate(spent: Times, counts: Counts, unit: UnitCosts) -> Times:
    """Return the rate in GMAC/s of convolutions that took `spent` ms, including launches."""
    launches = sum(counts.launches_of.get(kind, 0) for kind in CONVOLUTION_GROUPS)
    macs = sum(counts.macs_of.get(kind, 0) for kind in CONVOLUTION_GROUPS)
    rate: Times = macs / (spent - launches * unit.launch_ms).clip(min=1e-6) / 1e6
    return rate


def _checks(a: _View, b: _View) -> dict[str, dict[str, Any]]:
    """Return, by cause, the gap by the two checks, and whether measurements were contended."""
    alone_a, alone_b, layers_a, layers_b = a.alone(a), b.alone(a), a.layers(a), b.layers(a)
    checked = [key for key in CAUSES if key not in ("allocator", "overhead")]
    busy: dict[str, bool] = {
        kind: a.contended(kind) or b.contended(kind) for kind in ABLATION_ORDER
    }
    allocator = any(contention(lat) for lat in a.measured.default.values())
    return {
        "alone": {key: alone_b[key] - alone_a[key] for key in checked},
        "layers": {key: (layers_b[key] - layers_a[key])[0] for key in checked},
        "contended": {
            **busy,
            "arithmetic": any(busy[kind] for kind in CONVOLUTION_GROUPS),
            "normalisation": busy["batch_norm"] or busy["activation"],
            "allocator": allocator,
            "remainder": any(busy.values()) or allocator,
        },
    }
