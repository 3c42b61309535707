"""How long a forward pass takes, measured so that two models can be compared.

Each round times every model once, in shuffled order, so that a slow moment of the machine affects
all of them.
Raw samples are kept; medians, intervals and the verdict are derived from them. `paired` builds on
this what a comparison with a reference needs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from statistics import median
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from profiling.environment import Environment, fingerprint
from profiling.errors import ProfilingError
from profiling.intervals import Interval, median_interval, relative_iqr
from profiling.load import Load, LoadWatch
from profiling.progress import Progress
from profiling.symbolic import Example, as_args
from profiling.timing import Sample, Timer, measuring, timer_for

Model = nn.Module | Callable[..., Any]

MAX_WALL_OVER_CPU = 1.05  # above it, the thread was kept waiting: something else ran
MAX_RELATIVE_IQR = 0.10


class LatencyConfig(BaseModel):
    """How to measure. The defaults suit one image on one core, as `nas` compares models.

    Rounds are added until the 95 % interval of every median (of the ratio, where two models are
    compared) is within +-`precision` of it, or until `max_rounds` or `max_s` is reached. A
    comparison that was contended is repeated, `attempts` times in all. Warm-up runs until two
    successive windows of `warmup_window` passes agree within `warmup_tolerance`, for at most
    `max_warmup` passes or `max_warmup_s` of each model. A pass shorter than `min_sample_ms` is
    repeated within one sample, and the sample is the mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int = Field(1, ge=1)
    threads: int = Field(1, ge=1)
    min_rounds: int = Field(15, ge=2)
    max_rounds: int = Field(200, ge=2)
    max_s: float = Field(10.0, gt=0)
    precision: float = Field(0.02, gt=0)
    attempts: int = Field(4, ge=1)
    warmup_window: int = Field(5, ge=1)
    warmup_tolerance: float = Field(0.05, gt=0)
    max_warmup: int = Field(50, ge=2)
    max_warmup_s: float = Field(10.0, gt=0)
    min_sample_ms: float = Field(1.0, ge=0)
    seed: int = 0


@dataclass(frozen=True)
class TimedModel:
    """The model that was timed and how it was run; `repeats` passes make one sample.

    `digest` identifies the model beyond its name, where the caller has such a thing; `backend` is
    what ran it.
    """

    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    dtype: str
    threads: int
    repeats: int
    digest: str = ""
    backend: str = "eager"

    @property
    def batch(self) -> int:
        """Number of items in one pass."""
        return self.input_shapes[0][0]


@dataclass(frozen=True)
class Latency:
    """The samples of one subject, one per round, with where and when they were taken."""

    subject: TimedModel
    environment: Environment
    samples: tuple[Sample, ...]
    warmup_ms: tuple[float, ...] = field(repr=False, default=())
    load: Load | None = None

    @cached_property
    def samples_ms(self) -> tuple[float, ...]:
        """Wall time of each pass, in the order of the rounds."""
        return tuple(sample.wall_ms for sample in self.samples)

    @cached_property
    def median_ms(self) -> float:
        """Median wall time of a pass."""
        return median(self.samples_ms)

    @cached_property
    def interval_ms(self) -> Interval:
        """95 % bootstrap interval of the median."""
        return median_interval(self.samples_ms)

    @cached_property
    def device_median_ms(self) -> float | None:
        """Median time between CUDA events; None on CPU."""
        times = [sample.device_ms for sample in self.samples if sample.device_ms is not None]
        return median(times) if times else None

    @cached_property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return relative_iqr(self.samples_ms)

    @cached_property
    def wall_over_cpu(self) -> float | None:
        """Wall over CPU time of the thread; known only where one thread does all the work."""
        cpu_ms = sum(sample.cpu_ms for sample in self.samples)
        if self.subject.threads > 1 or self.environment.cuda or cpu_ms <= 0:
            return None
        return sum(self.samples_ms) / cpu_ms

    @cached_property
    def contention(self) -> tuple[str, ...]:
        """Signs that something else disturbed the measurement; empty when it was quiet."""
        signs = []
        if self.wall_over_cpu is not None and self.wall_over_cpu > MAX_WALL_OVER_CPU:
            signs.append(f"wall time is {self.wall_over_cpu:.2f} of the thread's CPU time")
        if self.spread > MAX_RELATIVE_IQR:
            signs.append(f"interquartile range is {self.spread:.0%} of the median")
        return (*signs, *(self.load.signs if self.load else ()))

    @property
    def contended(self) -> bool:
        """Whether any sign of contention was seen."""
        return bool(self.contention)

    def only(self, rounds: Sequence[bool]) -> Latency:
        """Return the latency of some of its rounds; `rounds` has a truth value for each."""
        kept = tuple(compress(self.samples, rounds))
        return replace(self, samples=kept)


@dataclass(frozen=True)
class Ratio:
    """How many times as long `numerator` takes as `denominator`, paired by round."""

    median: float
    interval: Interval


def paired_ratio(numerator: Latency, denominator: Latency) -> Ratio:
    """Compare two subjects of the same `measure_latency` call, round by round."""
    pairs = zip(numerator.samples_ms, denominator.samples_ms, strict=True)
    ratios = [a / b for a, b in pairs]
    return Ratio(median(ratios), median_interval(ratios))


def measure_latency(
    models: Mapping[str, Model],
    example: Example,
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    enough: Callable[[Mapping[str, list[float]]], bool] | None = None,
    progress: Progress | None = None,
) -> dict[str, Latency]:
    """Time one inference pass of each model, interleaved in rounds.

    Modules are timed in evaluation mode under `inference_mode` and get their mode back. `example`
    has either `config.batch` items or one, which is then repeated. Thread count, random state and
    garbage collector are restored. `enough` says from the times in ms by name whether rounds may
    end (default: every median is precise).

    Raises:
        ProfilingError: no model, a model on another device, or an example of another batch size.
    """
    config, device = config or LatencyConfig(), torch.device(device)
    args = batched(example, config.batch, device)
    _check_models(models, device)
    timer, watch = timer_for(device), LoadWatch(device)
    enough = enough or partial(_precise, precision=config.precision)
    passes = {name: partial(model, *args) for name, model in models.items()}
    with measuring(models.values(), config.threads, device):
        where = fingerprint(device)
        warmups = {name: _warm_up(run, timer, config) for name, run in passes.items()}
        repeats = {name: _repeats(times[-1], config) for name, times in warmups.items()}
        timed = {name: partial(_timed, run, repeats[name], timer) for name, run in passes.items()}
        with watch.running():
            samples = _rounds(timed, config, enough, progress)
    shapes, dtype = tuple(tuple(arg.shape) for arg in args), str(args[0].dtype)
    return {
        name: Latency(
            TimedModel(name, shapes, dtype, config.threads, repeats[name]),
            where,
            tuple(samples[name]),
            tuple(warmups[name]),
            watch.load,
        )
        for name in models
    }


def batched(example: Example, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the example as arguments on `device` with `batch` items each.

    Raises:
        ProfilingError: an argument has neither one item nor `batch`.
    """
    args = []
    for tensor in as_args(example):
        items = tensor.shape[0] if tensor.dim() else 0
        if items not in (1, batch):
            raise ProfilingError(
                f"example: {tuple(tensor.shape)} has {items} items, not batch={batch}: "
                "give one item, or as many as the batch"
            )
        repeated = tensor if items == batch else tensor.repeat(batch, *[1] * (tensor.dim() - 1))
        args.append(repeated.to(device, copy=True))  # the first layer may work in place
    return tuple(args)


def _check_models(models: Mapping[str, Model], device: torch.device) -> None:
    if not models:
        raise ProfilingError("models: none given, nothing to measure")
    for name, model in models.items():
        parameters = model.parameters() if isinstance(model, nn.Module) else ()
        here = next((p.device for p in parameters), device)
        if here.type != device.type:
            raise ProfilingError(
                f"models: {name!r} is on {here}, to be measured on {device}: "
                f"move it there first with .to({str(device)!r})"
            )


def _warm_up(run: Callable[[], Any], timer: Timer, config: LatencyConfig) -> list[float]:
    """Run until the medians of two successive windows agree, and return the times in ms."""
    times: list[float] = []
    window = config.warmup_window
    while len(times) < config.max_warmup and sum(times) < 1000 * config.max_warmup_s:
        times.append(timer(run).wall_ms)
        if len(times) >= 2 * window and len(times) % window == 0:
            before, now = median(times[-2 * window : -window]), median(times[-window:])
            if abs(now - before) <= config.warmup_tolerance * before:
                break
    return times


def _repeats(pass_ms: float, config: LatencyConfig) -> int:
    return max(1, round(config.min_sample_ms / pass_ms)) if pass_ms > 0 else 1


def _timed(run: Callable[[], Any], repeats: int, timer: Timer) -> Sample:
    """Time `repeats` passes as one sample and return the mean of a pass."""

    def runs() -> None:
        for _ in range(repeats):
            run()

    total = timer(runs)
    device_ms = None if total.device_ms is None else total.device_ms / repeats
    return Sample(total.wall_ms / repeats, total.cpu_ms / repeats, device_ms)


def _rounds(
    timed: Mapping[str, Callable[[], Sample]],
    config: LatencyConfig,
    enough: Callable[[Mapping[str, list[float]]], bool],
    progress: Progress | None,
) -> dict[str, list[Sample]]:
    """Take one sample of each per shuffled round, until precise enough or out of allowance."""
    shuffle = random.Random(config.seed).shuffle
    samples: dict[str, list[Sample]] = {name: [] for name in timed}
    order, spent_ms, due = list(timed), 0.0, config.min_rounds
    for done in range(1, config.max_rounds + 1):
        shuffle(order)
        for name in order:
            samples[name].append(timed[name]())
            spent_ms += samples[name][-1].wall_ms
        if progress:
            progress(done, config.max_rounds)
        out_of_time = done >= 2 and spent_ms >= 1000 * config.max_s
        if out_of_time or (done >= due and enough(_walls(samples))):
            break
        # Checking after every round would stop at intervals that are narrow by chance (optional
        # stopping), so the next check comes a quarter later.
        if done >= due:
            due = math.ceil(done * 1.25)
    return samples


def _walls(samples: Mapping[str, list[Sample]]) -> dict[str, list[float]]:
    return {name: [sample.wall_ms for sample in taken] for name, taken in samples.items()}


def _precise(walls: Mapping[str, list[float]], precision: float) -> bool:
    return all(median_interval(t).half_width(median(t)) <= precision for t in walls.values())
