"""Measure the latency of models in interleaved rounds, so that they can be compared.

Each round times every model once, in shuffled order, so that a slow moment of the machine affects
all of them. All samples are stored; medians, intervals and signs of contention follow from them.
`profiling.paired` adds the comparison with a reference model.
"""

from __future__ import annotations

import html
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from statistics import median
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor, nn

from profiling.environment import Environment, fingerprint
from profiling.errors import ProfilingError
from profiling.intervals import Interval, median_interval, relative_iqr
from profiling.load import Load, LoadWatch
from profiling.mapped import mapped_weights
from profiling.progress import Progress
from profiling.symbolic import Example, as_args
from profiling.timing import Sample, Timer, measuring, timer_for

Model = nn.Module | Callable[..., Any]

MAX_WALL_OVER_CPU = 1.05  # above it, the thread waited for other work
MAX_RELATIVE_IQR = 0.10


def _no_bool(value: object) -> object:
    if isinstance(value, bool):  # pydantic would convert it to 0.0 or 1.0
        raise ValueError("should be a number, not true or false")
    return value


_Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
_Number = Annotated[float, BeforeValidator(_no_bool), Field(le=1e9, allow_inf_nan=False)]


class LatencyConfig(BaseModel):
    """Settings of a measurement. The defaults are those for one image on one core.

    Attributes:
        batch: Items in one pass.
        threads: Threads of torch.
        min_rounds, max_rounds: Limits of the number of rounds.
        max_s: Limit of the total time of all passes in seconds, without warm-up, but with the
            untimed passes before each sample.
        half_width: Measuring ends when the 95 % interval of every median (of every ratio, in a
            comparison with a reference) has a relative half width of at most this.
        attempts: Maximum number of measurements, if a comparison is contended.
        warmup_window, warmup_tolerance: Warm-up ends when the medians of two successive windows of
            this many passes have at most this relative difference.
        max_warmup, max_warmup_s: Limits of the warm-up of each model, in passes and seconds.
        priming_ms: Time for which a model runs before each sample without being timed, at least one
            pass: until caches have its weights and activations instead of other models'.
        min_sample_ms: Shorter passes are repeated within one sample, which is then their mean.
        seed: Seed of the order of the models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: _Count = 1
    threads: _Count = 1
    min_rounds: _Count = Field(12, ge=2)
    max_rounds: _Count = Field(200, ge=2)
    max_s: _Number = Field(10.0, gt=0)
    half_width: _Number = Field(0.02, gt=0)
    attempts: _Count = 4
    warmup_window: _Count = 5
    warmup_tolerance: _Number = Field(0.05, gt=0)
    max_warmup: _Count = Field(50, ge=2)
    max_warmup_s: _Number = Field(10.0, gt=0)
    priming_ms: _Number = Field(60.0, ge=0)
    min_sample_ms: _Number = Field(20.0, ge=0)
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**64)] = 0


@dataclass(frozen=True)
class TimedModel:
    """A timed model and how it was run.

    Attributes:
        name: Its name in the measurement.
        input_shapes: Shapes of the arguments.
        dtype: Type of the first argument.
        threads: Threads of torch.
        repeats: Passes in one sample.
        primings: Untimed passes before each sample.
        digest: Identifies the model; "" if the caller has no digest.
        backend: Name of the backend that ran it.
        precision: Numbers of its products: "float32", "bfloat16" or "int8".
        part: The part of the model that ran: "full", "encoder" or "decoder".
        fed: Description of the arguments, such as "16 images of faces"; "" if the caller has none.
        weights: Description of the weights, such as "trained"; "" if the caller has none.
    """

    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    dtype: str
    threads: int
    repeats: int
    primings: int = 0
    digest: str = ""
    backend: str = "eager"
    precision: str = "float32"
    part: str = "full"
    fed: str = ""
    weights: str = ""

    @property
    def batch(self) -> int:
        """Number of items in one pass."""
        return self.input_shapes[0][0]


@dataclass(frozen=True)
class Latency:
    """The samples of one model, one per round, with the environment and the load meanwhile."""

    subject: TimedModel
    environment: Environment
    samples: tuple[Sample, ...]
    warmup_ms: tuple[float, ...] = field(repr=False, default=())
    load: Load | None = None

    def __repr__(self) -> str:
        """Return name, median and interval."""
        low, high = self.interval_ms
        busy = ", contended" if self.contended else ""
        return (
            f"Latency({self.subject.name!r}, {self.median_ms:.4g} ms, 95 % interval {low:.4g} to "
            f"{high:.4g} ms, {len(self.samples)} rounds{busy})"
        )

    def _repr_html_(self) -> str:
        """Return name, median and interval, as a notebook shows them."""
        return latency_html([self])

    @cached_property
    def samples_ms(self) -> tuple[float, ...]:
        """Wall times in the order of the rounds."""
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
        """Median time between events of the device; None on a CPU."""
        times = [sample.device_ms for sample in self.samples if sample.device_ms is not None]
        return median(times) if times else None

    @cached_property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return relative_iqr(self.samples_ms)

    @cached_property
    def wall_over_cpu(self) -> float | None:
        """Wall time over CPU time of the thread; None unless one thread does all the work."""
        cpu_ms = sum(sample.cpu_ms for sample in self.samples)
        if self.subject.threads > 1 or self.environment.device != "cpu" or cpu_ms <= 0:
            return None
        return sum(self.samples_ms) / cpu_ms

    @cached_property
    def contention(self) -> tuple[str, ...]:
        """Signs that other work disturbed the measurement; empty without contention."""
        signs = []
        if self.wall_over_cpu is not None and self.wall_over_cpu > MAX_WALL_OVER_CPU:
            signs.append(f"wall time is {self.wall_over_cpu:.2f} of the thread's CPU time")
        if self.spread > MAX_RELATIVE_IQR:
            signs.append(f"interquartile range is {self.spread:.0%} of the median")
        return (*signs, *(self.load.signs if self.load else ()))

    @property
    def contended(self) -> bool:
        """Whether there is any sign of contention."""
        return bool(self.contention)

    def only(self, rounds: Sequence[bool]) -> Latency:
        """Return the latency of the rounds for which `rounds` is true."""
        kept = tuple(compress(self.samples, rounds))
        return replace(self, samples=kept)


def latency_html(latencies: Sequence[Latency], remark: str = "") -> str:
    """Return a table of latencies as HTML, with a line below it."""
    rows = "".join(
        f"<tr><td>{html.escape(one.subject.name)}</td><td>{one.median_ms:.4g} ms</td>"
        f"<td>{one.interval_ms.low:.4g} to {one.interval_ms.high:.4g} ms</td>"
        f"<td>{html.escape('; '.join(one.contention)) or 'none'}</td></tr>"
        for one in latencies
    )
    heads = "<tr><th>model</th><th>latency</th><th>95 % interval</th><th>contention</th></tr>"
    below = f"<p>{html.escape(remark)}</p>" if remark else ""
    return f"<table><thead>{heads}</thead><tbody>{rows}</tbody></table>{below}"


@dataclass(frozen=True)
class Ratio:
    """The latency of one model over that of another, paired by round."""

    median: float
    interval: Interval


def paired_ratio(numerator: Latency, denominator: Latency) -> Ratio:
    """Return the ratio of two results of the same `measure_latency` call."""
    pairs = zip(numerator.samples_ms, denominator.samples_ms, strict=True)
    ratios = [a / b for a, b in pairs]
    return Ratio(median(ratios), median_interval(ratios))


def measure_latency(
    models: Mapping[str, Model],
    example: Example | Mapping[str, Example],
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    enough: Callable[[Mapping[str, list[float]]], bool] | None = None,
    progress: Progress | None = None,
) -> dict[str, Latency]:
    """Time inference passes of all models in interleaved rounds.

    Modules are timed in evaluation mode under `inference_mode`, with their weights in memory like
    that of a loaded model. Their weights and mode, the thread count, the random state and the
    garbage collector are restored.

    Args:
        models: Name -> module or callable.
        example: Arguments for all models, or name -> arguments. Each pass of a model takes the next
            `config.batch` items and starts again at the end, because the time of a pass depends on
            the values; with fewer items they are repeated.
        config: Settings.
        device: Device of the models.
        enough: Name -> times in ms; returns whether rounds may end (default: every median is
            precise).
        progress: Called with (done, total) after each round.

    Raises:
        ProfilingError: there is no model, a model is on another device, or an argument is empty.
    """
    config, device = config or LatencyConfig(), torch.device(device)
    batches = _batches_of_each(models, example, config.batch, device)
    _check_models(models, device)
    timer, watch = timer_for(device), LoadWatch(device)
    enough = enough or partial(precise, half_width=config.half_width)
    passes = {name: _in_turn(model, batches[name]) for name, model in models.items()}
    with mapped_weights(models.values()), measuring(models.values(), config.threads, device):
        where = fingerprint(device)
        warmups = {name: _warm_up(run, timer, config) for name, run in passes.items()}
        plans = {name: _plan(times[-1], config) for name, times in warmups.items()}
        timed = {name: partial(_timed, run, *plans[name], timer) for name, run in passes.items()}
        counts = {name: sum(plan) for name, plan in plans.items()}
        with watch.running():
            samples = _rounds(timed, counts, config, enough, progress)
    return {
        name: Latency(
            _subject(name, batches[name][0], config.threads, *plans[name]),
            where,
            tuple(samples[name]),
            tuple(warmups[name]),
            watch.load,
        )
        for name in models
    }


def _subject(
    name: str, args: tuple[Tensor, ...], threads: int, primings: int, repeats: int
) -> TimedModel:
    shapes = tuple(tuple(arg.shape) for arg in args)
    return TimedModel(name, shapes, str(args[0].dtype), threads, repeats, primings)


def _batches_of_each(
    models: Iterable[str],
    example: Example | Mapping[str, Example],
    batch: int,
    device: torch.device,
) -> dict[str, list[tuple[Tensor, ...]]]:
    """Return name -> arguments of successive passes; models with the same example share them."""
    examples = example if isinstance(example, Mapping) else dict.fromkeys(models, example)
    made = {id(one): batches_of(one, batch, device) for one in examples.values()}
    return {name: made[id(examples[name])] for name in models}


def batched(example: Example, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return the arguments of the first pass on `device`, with `batch` items each.

    Raises:
        ProfilingError: an argument has no items.
    """
    return batches_of(example, batch, device)[0]


def batches_of(example: Example, batch: int, device: torch.device) -> list[tuple[Tensor, ...]]:
    """Return the arguments of successive passes on `device`, with `batch` items each.

    There are as many passes as the longest argument has whole batches, at least one. A shorter
    argument is repeated.

    Raises:
        ProfilingError: an argument has no items.
    """
    args = as_args(example)
    counts = [tensor.shape[0] if tensor.dim() else 0 for tensor in args]
    if not all(counts):
        empty = tuple(args[counts.index(0)].shape)
        raise ProfilingError(f"example: an argument of shape {empty} has no items; give at least 1")
    passes = max(1, max(counts) // batch)
    parts = [torch.split(_repeated(arg, passes * batch).to(device), batch) for arg in args]
    # Copied one by one: the first layer may work in place, and memory is aligned for each.
    return [tuple(part.clone() for part in one) for one in zip(*parts, strict=True)]


def _repeated(tensor: Tensor, items: int) -> Tensor:
    """Return the first `items` items of a tensor that is repeated as often as necessary."""
    times = math.ceil(items / tensor.shape[0])
    repeated = tensor.repeat(times, *[1] * (tensor.dim() - 1)) if times > 1 else tensor
    return repeated[:items]


def _in_turn(model: Model, batches: Sequence[tuple[Tensor, ...]]) -> Callable[[], Any]:
    """Return a function that calls the model with the next batch at each call."""
    turns = itertools.cycle(batches)
    return lambda: model(*next(turns))


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
    """Run until the medians of two successive windows agree; return all times in ms."""
    times: list[float] = []
    window = config.warmup_window
    while len(times) < config.max_warmup and sum(times) < 1000 * config.max_warmup_s:
        times.append(timer(run).wall_ms)
        if len(times) >= 2 * window and len(times) % window == 0:
            before, now = median(times[-2 * window : -window]), median(times[-window:])
            if abs(now - before) <= config.warmup_tolerance * before:
                break
    return times


def _plan(pass_ms: float, config: LatencyConfig) -> tuple[int, int]:
    """Return the numbers of untimed and of timed passes of a sample."""
    if pass_ms <= 0:
        return 1, 1
    return max(1, round(config.priming_ms / pass_ms)), max(1, round(config.min_sample_ms / pass_ms))


def _timed(run: Callable[[], Any], primings: int, repeats: int, timer: Timer) -> Sample:
    """Time `repeats` passes as one sample, after untimed ones, and return their mean.

    Directly after passes of other models `original` takes longer than in a loop of its own, smaller
    models less, because caches hold the weights and activations of others.
    """

    def runs() -> None:
        for _ in range(repeats):
            run()

    for _ in range(primings):
        run()
    total = timer(runs)
    device_ms = None if total.device_ms is None else total.device_ms / repeats
    return Sample(total.wall_ms / repeats, total.cpu_ms / repeats, device_ms)


def _rounds(
    timed: Mapping[str, Callable[[], Sample]],
    counts: Mapping[str, int],
    config: LatencyConfig,
    enough: Callable[[Mapping[str, list[float]]], bool],
    progress: Progress | None,
) -> dict[str, list[Sample]]:
    """Take one sample of each model per shuffled round, until `enough` or a limit is reached.

    `counts` are the passes of a sample, with the untimed ones.
    """
    shuffle = random.Random(config.seed).shuffle
    samples: dict[str, list[Sample]] = {name: [] for name in timed}
    order, spent_ms, due = list(timed), 0.0, config.min_rounds
    for done in range(1, config.max_rounds + 1):
        shuffle(order)
        for name in order:
            samples[name].append(timed[name]())
            spent_ms += counts[name] * samples[name][-1].wall_ms
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


def precise(walls: Mapping[str, list[float]], half_width: float) -> bool:
    """Whether the 95 % interval of every median has at most this relative half width."""
    return all(median_interval(t).half_width(median(t)) <= half_width for t in walls.values())
