"""Time the backends of `profiling.backends` on one model, in every precision they have here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from profiling.backends import (
    BACKENDS,
    BFLOAT16,
    FLOAT32,
    INT8,
    Backend,
    PreparedBackend,
    find_backend,
    prepare_backend,
)
from profiling.engines import Args, ForwardPass
from profiling.environment import has_bfloat16
from profiling.errors import ProfilingError
from profiling.latency import (
    Latency,
    LatencyConfig,
    Ratio,
    batched,
    measure_latency,
    paired_ratio,
)
from profiling.progress import Progress
from profiling.rewrites import rewritten
from profiling.symbolic import Example


@dataclass(frozen=True)
class BackendRow:
    """One row of a comparison: measurements, or the `reason` why there are none.

    `speed_up` is the time of eager over that of this backend, paired by round: above 1 is faster.
    `loss_cost` is the relative increase of the loss on images by a lower precision; None where it
    is unknown.
    """

    name: str
    about: str
    dtype: str = FLOAT32
    reason: str | None = None
    latency: Latency | None = None
    speed_up: Ratio | None = None
    max_error: float | None = None
    preparation_s: float | None = None
    note: str = ""
    loss_cost: float | None = None

    def record(self) -> dict[str, str | float | bool | None]:
        """Return the row as column -> value; None where nothing was measured."""
        timed, ratio = self.latency, self.speed_up
        return {
            "backend": self.name,
            "precision": self.dtype,
            "ms": timed.median_ms if timed else None,
            "ms_low": timed.interval_ms.low if timed else None,
            "ms_high": timed.interval_ms.high if timed else None,
            "speed_up": ratio.median if ratio else None,
            "speed_up_low": ratio.interval.low if ratio else None,
            "speed_up_high": ratio.interval.high if ratio else None,
            "max_error": self.max_error,
            "loss_cost": self.loss_cost,
            "preparation_s": self.preparation_s,
            "contended": timed.contended if timed else None,
            "note": self.note,
            "reason": self.reason,
        }


def compare_backends(
    model: nn.Module,
    example: Example,
    names: Sequence[str] | None = None,
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    calibration: Example | None = None,
    loss_cost: Callable[[ForwardPass], float] | None = None,
    progress: Progress | None = None,
) -> tuple[BackendRow, ...]:
    """Time backends in the same rounds as eager in float32, which is the first row.

    Each backend is timed in every precision that `device` has instructions for; in int8 only with
    `calibration`. A backend that cannot be used has a row with the reason.

    Args:
        model: The model.
        example: Arguments, as for `measure_latency`.
        names: Keys of `BACKENDS`. Default: all, but those with rewrites only if one applies.
        config: Settings.
        device: Device of the arguments and of the outputs.
        calibration: Arguments of several passes, from which int8 takes the ranges of values.
        loss_cost: Returns the relative increase of the loss on images by what runs the model; it
            is called for lower precisions.
        progress: Called with (done, total).

    Raises:
        ProfilingError: a name is unknown, or the model is random.
    """
    config, device = config or LatencyConfig(), torch.device(device)
    chosen = _sensible(model) if names is None else names
    wanted = _combinations(chosen, device, calibrated=calibration is not None)
    args, total = batched(example, config.batch, device), len(wanted) + config.max_rounds
    prepared: dict[str, PreparedBackend | BackendRow] = {}
    for done, (name, dtype) in enumerate(wanted, start=1):
        key = f"{name} {dtype}"
        prepared[key] = _prepared_or_reason(
            name, model, args, device, config.threads, dtype, calibration
        )
        if progress:
            progress(done, total)
    runs = {key: ready.run for key, ready in prepared.items() if isinstance(ready, PreparedBackend)}
    report = progress and (lambda done, _: progress(len(wanted) + done, total))
    latencies = measure_latency(runs, example, config, device, progress=report)
    if progress:
        progress(total, total)
    eager = latencies[_EAGER]
    return tuple(
        _row(ready, latencies[key], eager, loss_cost)
        if isinstance(ready, PreparedBackend)
        else ready
        for key, ready in prepared.items()
    )


_EAGER = f"eager {FLOAT32}"


def _combinations(
    names: Sequence[str], device: torch.device, *, calibrated: bool
) -> list[tuple[str, str]]:
    """Return (name, precision) of each backend in each precision, first of all eager."""
    usable = {FLOAT32: True, BFLOAT16: has_bfloat16(device), INT8: calibrated}
    pairs = [(name, dtype) for name in names for dtype in find_backend(name).precisions]
    return list(dict.fromkeys([("eager", FLOAT32), *(pair for pair in pairs if usable[pair[1]])]))


def _sensible(model: nn.Module) -> list[str]:
    """Return the names of all backends, without those whose rewrites do nothing for a model."""
    return [name for name, one in BACKENDS.items() if not one.rewrites or _applies(one, model)]


def _applies(backend: Backend, model: nn.Module) -> bool:
    try:
        return bool(rewritten(model, backend.rewrites)[1])
    except Exception:  # torch.fx cannot trace it: the row of the backend has the reason
        return True


def _prepared_or_reason(
    name: str,
    model: nn.Module,
    args: Args,
    device: torch.device,
    threads: int,
    dtype: str,
    calibration: Example | None,
) -> PreparedBackend | BackendRow:
    try:
        return prepare_backend(name, model, args, device, threads, dtype, calibration)
    except ProfilingError as error:
        if (name, dtype) == ("eager", FLOAT32):  # a random model or a wrong example
            raise
        reason = str(error).removeprefix(f"{name}: ")
        return BackendRow(name, BACKENDS[name].about, dtype, reason)


def _row(
    ready: PreparedBackend,
    latency: Latency,
    eager: Latency,
    loss_cost: Callable[[ForwardPass], float] | None,
) -> BackendRow:
    return BackendRow(
        ready.name,
        BACKENDS[ready.name].about,
        ready.dtype,
        latency=latency,
        speed_up=paired_ratio(eager, latency),
        max_error=ready.max_error,
        preparation_s=ready.preparation_s,
        note=ready.note,
        loss_cost=loss_cost(ready.run) if loss_cost and ready.dtype != FLOAT32 else None,
    )
