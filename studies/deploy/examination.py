"""Build and judge the variants of a model, and choose one of them by measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nas.deploy.builder import Builder
from nas.deploy.on_target import TargetBuilder
from nas.deploy.quality import Quality
from nas.deploy.source import Source
from nas.deploy.variants import Built, Variant
from nas.latency import note_at
from profiling.backends import INT8
from profiling.errors import ProfilingError
from profiling.fresh_process import FreshProcess, ProcessEndedError
from profiling.latency import LatencyConfig, Ratio
from profiling.paired import InterleavedLatencies
from profiling.progress import Progress
from profiling.target.client import KnownTarget
from profiling.target.errors import ModelRefusedError, TargetError
from search_spaces.errors import UserError
from studies.deploy.choice import Bounds, best, reason_beside, unserved
from studies.record.formats import counted

Start = Callable[..., Any]
"""Starts what builds, as `profiling.fresh_process.FreshProcess`."""

_ENDED = "the runtime ended the process that was to run it"


class Builders:
    """A `nas.deploy.builder.Builder` in another process, started again if a runtime ended it.

    Args:
        source: The model and its images.
        folder: Folder for the files of variants.
        start: Starts the process.
        target: Machine where variants run; None is this one.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        start: Start = FreshProcess,
        target: KnownTarget | None = None,
    ) -> None:
        here: tuple[Any, ...] = (Builder, source, folder)
        self._given = (TargetBuilder, source, folder, target) if target else here
        self._start, self._note = start, note_at(target)
        self._process: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.__exit__(kind, error, trace)

    def measure(
        self, built: Sequence[Built], config: LatencyConfig, progress: Progress
    ) -> InterleavedLatencies:
        """Call the builder's method of this name, and report what happens to a target."""
        found: InterleavedLatencies = self.call(
            "measure", built, config, progress=progress, note=self._note
        )
        return found

    def call(self, method: str, *args: Any, **callbacks: Callable[..., None] | None) -> Any:
        """Call a method of the builder.

        Raises:
            ProcessEndedError: the process ended; the next call starts another one.
            Exception: what the method raised.
        """
        if self._process is None:
            self._process = self._start(*self._given, tuned=True)
        try:
            return self._process.call(method, *args, **callbacks)
        except ProcessEndedError:
            self.__exit__()
            raise


@dataclass(frozen=True)
class Examined:
    """The variants of a model, of which one is to be deployed.

    Attributes:
        built: The variants that were built.
        reasons: Why each other variant is not deployed.
        found: Their latencies.
        chosen: The one to deploy.
        parts: Quality of its encoder and decoder one after the other.
        base: Quality of the model in eager float32.
    """

    built: tuple[Built, ...]
    reasons: dict[Variant, str]
    found: InterleavedLatencies
    chosen: Built
    parts: Quality
    base: Quality


def examine(
    builders: Builders,
    variants: Sequence[Variant],
    bounds: Bounds,
    config: LatencyConfig,
    progress: Progress,
) -> Examined:
    """Build, judge and time variants, and choose the one to deploy.

    Args:
        builders: Builds them.
        variants: The variants.
        bounds: What a variant may cost.
        config: Settings of the measurement.
        progress: Called with (done, total) after each variant and round, and after each layer and
            attempt where int8 costs too much; the total then grows.

    Raises:
        UserError: no variant can be built or is within the bounds, or int8 alone was asked for and
            no runtime computes a layer in it.
        ProfilingError: the process ended, or a variant that was built cannot be run.
        OSError: a file cannot be written.
    """
    reasons, built = dict[Variant, str](), list[Built]()
    steps = _Steps(len(variants) + config.max_rounds, progress)
    base: Quality = builders.call("base")
    for variant in variants:
        try:
            built.append(build(builders, variant, bounds, steps.further))
        except NotBuilt as error:
            reasons[variant] = str(error)
        steps.done()
    _require_some(variants, built, reasons)
    found = builders.measure(built, config, lambda *_: steps.done())
    progress(steps.total, steps.total)

    def over(one: Variant, other: Variant) -> Ratio:
        return found.ratio(one.name, other.name)

    chosen, parts = _choose(builders, built, bounds, found, reasons)
    for one in built:
        if one is not chosen and one.variant not in reasons:
            reasons[one.variant] = reason_beside(one, chosen, over)
    return Examined(tuple(built), reasons, found, chosen, parts, base)


class _Steps:
    """Counts steps, of which more are found on the way, and reports them."""

    def __init__(self, total: int, report: Progress) -> None:
        self.total, self._report, self._done = total, report, 0

    def done(self) -> None:
        """Count a step that was known."""
        self._done += 1
        self._report(self._done, self.total)

    def further(self, done: int, total: int) -> None:
        """Count one of `total` further steps, the first of which tells how many there are."""
        self.total += total if done == 1 else 0
        self.done()


class NotBuilt(Exception):  # noqa: N818 - it is a result
    """A variant cannot be built; the message says why."""


def build(
    builders: Builders, variant: Variant, bounds: Bounds, progress: Progress | None = None
) -> Built:
    """Build a variant; one in int8 with its most sensitive layers in floating point if it must be.

    Args:
        builders: Builds it.
        variant: The variant.
        bounds: What it may cost.
        progress: Called with (done, total) after each layer whose sensitivity was computed, and
            with (1, 1) after each further attempt.

    Raises:
        NotBuilt: it cannot be built or run.
        TargetError: the machine where it is to run cannot be used.
        OSError: a file cannot be written.
    """
    if reason := variant.reason_against:
        raise NotBuilt(reason)
    try:
        built: Built = builders.call("build", variant)
        if variant.precision != INT8:
            return built
        return _spared(builders, built, bounds, progress)
    except ProcessEndedError:
        raise NotBuilt(_ENDED) from None
    except ProfilingError as error:
        if _of_the_target(error):
            raise
        raise NotBuilt(str(error).removeprefix(f"{variant.backend}: ")) from None


def _of_the_target(error: ProfilingError) -> bool:
    """Whether the machine cannot be used, so that nothing is known of the variant."""
    return isinstance(error, TargetError) and not isinstance(error, ModelRefusedError)


def _spared(builders: Builders, built: Built, bounds: Bounds, progress: Progress | None) -> Built:
    """Return a variant in int8, with its most sensitive layers in floating point if it must be.

    Their number is doubled until the bound is met, or until they would be more than half of all.
    """
    if bounds.reason_against(built.variant, built.quality) is None:
        return built
    layers: tuple[str, ...] = builders.call("sensitive_layers", progress=progress)
    count = 1
    while bounds.reason_against(built.variant, built.quality) and 2 * count <= len(layers):
        built = builders.call("build", built.variant, layers[:count])
        count *= 2
        if progress:
            progress(1, 1)
    return built


def _require_some(
    variants: Sequence[Variant], built: Sequence[Built], reasons: dict[Variant, str]
) -> None:
    if not built:
        raise UserError(f"nothing can be deployed: {_grouped(reasons)}")
    if {one.precision for one in variants} == {INT8} and (layer := unserved(built)):
        name, kind = layer
        raise UserError(
            f"--precision int8: no runtime here computes the {kind} {name} in 8-bit integers; "
            "leave --precision out, or add float32"
        )


def _choose(
    builders: Builders,
    built: Sequence[Built],
    bounds: Bounds,
    found: InterleavedLatencies,
    reasons: dict[Variant, str],
) -> tuple[Built, Quality]:
    """Return the variant to deploy and the quality of its parts; add reasons against others."""
    for one in built:
        if reason := bounds.reason_against(one.variant, one.quality):
            kept = f", with {counted(len(one.keep), 'layer')} in floating point" if one.keep else ""
            reasons[one.variant] = f"{reason}{kept}"
    while left := [one for one in built if one.variant not in reasons]:
        chosen = best(
            left,
            lambda variant: found.counted(variant.name).median_ms,
            lambda one, other: found.ratio(one.name, other.name),
        )
        try:
            parts: Quality = builders.call("parts", chosen)
        except ProfilingError as error:
            if _of_the_target(error):
                raise
            reasons[chosen.variant] = str(error)
            continue
        against = bounds.reason_against(chosen.variant, parts)
        if against is None:
            return chosen, parts
        reasons[chosen.variant] = f"its encoder and decoder, one after the other: {against}"
    raise UserError(f"no variant is within the bounds: {_grouped(reasons)}")


def _grouped(reasons: dict[Variant, str]) -> str:
    """Return reasons in one line, each with the variants that it is for."""
    names: dict[str, list[str]] = {}
    for variant, reason in reasons.items():
        names.setdefault(reason, []).append(variant.name)
    return "; ".join(f"{', '.join(of)}: {reason}" for reason, of in names.items())
