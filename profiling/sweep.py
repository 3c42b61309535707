"""Times and bounds of a single layer over batch sizes, widths, sizes and thread counts."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from profiling.complexity import complexity
from profiling.errors import ProfilingError
from profiling.handmade import HandmadeLayer
from profiling.latency import Latency, LatencyConfig, batched, measure_latency
from profiling.memory import require_memory
from profiling.progress import Progress
from profiling.roofline import Peaks, measure_peaks
from profiling.symbolic import Example, as_args, mode_of, on_meta

if TYPE_CHECKING:
    import pandas as pd

AXES = ("batch", "width", "size", "threads")
MOST_THREADS = 1024
SWEEP_COLUMNS = (
    *("layer", "batch", "width", "size", "threads", "input_shape", "params", "macs"),
    *("bytes_moved", "launches", "intensity", "time_ms", "low_ms", "high_ms", "spread"),
    *("contended", "gflop_s", "gb_s", "bound", "attained"),
)


@dataclass(frozen=True)
class CapturedLayer:
    """A module of a model with its input in a forward pass.

    Attributes:
        path: Path of the module in the model.
        module: The module.
        inputs: Its arguments.
        batch: Items in one timed pass; None takes all of `inputs`.
    """

    path: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    batch: int | None = None

    def __str__(self) -> str:
        return self.path


def capture_input(model: nn.Module, path: str, example: Example) -> CapturedLayer:
    """Run the model once in evaluation mode and return the module at `path` with its input.

    Raises:
        ProfilingError: there is no such module (the message has the nearest paths), the forward
            pass does not call it, or it is not called with tensors.
    """
    modules = dict(model.named_modules())
    if path not in modules:
        near = difflib.get_close_matches(path, modules, n=3, cutoff=0.4)
        raise ProfilingError(
            f"path: no module {path!r} in {type(model).__name__}: {_hint(near, _top(modules))}"
        )
    seen: list[tuple[Any, ...]] = []

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        # Cloned, because a later layer may work in place.
        seen.append(tuple(a.clone() if isinstance(a, Tensor) else a for a in args))

    hook = modules[path].register_forward_pre_hook(keep)
    try:
        with mode_of(model, training=False), torch.no_grad(), torch.random.fork_rng():
            model(*(arg.clone() for arg in as_args(example)))
    finally:
        hook.remove()
    if not seen or not seen[0] or not all(isinstance(arg, Tensor) for arg in seen[0]):
        raise ProfilingError(
            f"path: {path!r} is not called with tensors in {type(model).__name__}'s forward pass"
        )
    return CapturedLayer(path, modules[path], seen[0])


def layer_sweep(
    layer: HandmadeLayer | CapturedLayer,
    over: Mapping[str, Sequence[int]],
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure a layer at every combination of the values in `over`; each is one row.

    Every combination is checked before the first one is measured. The input of a captured layer is
    repeated to the batch size, so only its speed has a meaning.

    Args:
        layer: A layer described by a text, or a captured one.
        over: Axis -> values. Axes are "batch" and "threads"; for a described layer also "width"
            (output channels; input channels in proportion) and "size".
        config: Settings.
        device: Device.
        progress: Called with (done, total) after each combination.

    Raises:
        ProfilingError: an axis is unknown, or a combination is impossible or too large for memory.
    """
    import pandas as pd

    config, device = config or LatencyConfig(), torch.device(device)
    points = [_point(layer, over, config, values) for values in _combinations(layer, over)]
    for point in points:
        _check(point, device)
    peaks: dict[int, Peaks] = {}
    lines = []
    for done, point in enumerate(points, start=1):
        threads = point.config.threads
        if threads not in peaks:
            peaks[threads] = measure_peaks(threads, device)
        lines.append(_line(point, peaks[threads], device))
        if progress:
            progress(done, len(points))
    return pd.DataFrame(lines, columns=list(SWEEP_COLUMNS))


@dataclass(frozen=True)
class _Point:
    """One combination of values: the layer and the settings."""

    layer: HandmadeLayer | CapturedLayer
    width: int | None
    config: LatencyConfig

    def build(self, device: torch.device) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Return module and inputs; on the meta device they take no memory."""
        if isinstance(self.layer, HandmadeLayer):
            return self.layer.build(device)
        inputs = on_meta(self.layer.inputs) if device.type == "meta" else self.layer.inputs
        return self.layer.module, batched(inputs, self.config.batch, device)

    def example(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the arguments of all timed passes: those captured, or the `inputs` of one pass."""
        return self.layer.inputs if isinstance(self.layer, CapturedLayer) else inputs


def _combinations(
    layer: HandmadeLayer | CapturedLayer, over: Mapping[str, Sequence[int]]
) -> list[dict[str, int]]:
    allowed = AXES if isinstance(layer, HandmadeLayer) else ("batch", "threads")
    for axis, values in over.items():
        if axis not in allowed:
            raise ProfilingError(f"sweep: {axis!r} is not one of {', '.join(allowed)} for {layer}")
        if not values or min(values) < 1:
            raise ProfilingError(f"sweep: {axis}={list(values)} is not a list of positive numbers")
        if axis == "threads" and max(values) > MOST_THREADS:
            raise ProfilingError(
                f"sweep: threads={max(values)} is too many: at most {MOST_THREADS} are possible"
            )
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def _point(
    layer: HandmadeLayer | CapturedLayer,
    over: Mapping[str, Sequence[int]],
    config: LatencyConfig,
    values: Mapping[str, int],
) -> _Point:
    width = values.get("width")
    if isinstance(layer, HandmadeLayer):
        layer = layer.scaled_to(width) if width else layer
        layer = layer.with_values(**{k: values[k] for k in ("batch", "size") if k in values})
        batch = layer.values["batch"]
        width = layer.values.get("out", layer.values["in"])
    else:
        batch = values.get("batch", layer.batch or layer.inputs[0].shape[0])
    threads = values.get("threads", config.threads)
    return _Point(layer, width, config.model_copy(update={"batch": batch, "threads": threads}))


def _check(point: _Point, device: torch.device) -> None:
    module, inputs = point.build(torch.device("meta"))
    complexity(module, inputs)
    require_memory(module, inputs, device)


def _line(point: _Point, peaks: Peaks, device: torch.device) -> dict[str, Any]:
    module, inputs = point.build(device)
    cost = complexity(module, inputs)
    example = point.example(inputs)
    latency: Latency = measure_latency({"layer": module}, example, point.config, device)["layer"]
    moved = cost.bytes_read + cost.bytes_written
    bound, limit_ms = peaks.bound(cost.flops, moved, cost.launches)
    shape = tuple(inputs[0].shape)
    return {
        "layer": str(point.layer),
        "batch": point.config.batch,
        "width": point.width,
        "size": shape[-1] if len(shape) == 4 else None,
        "threads": point.config.threads,
        "input_shape": shape,
        "params": cost.params,
        "macs": cost.macs,
        "bytes_moved": moved,
        "launches": cost.launches,
        "intensity": cost.flops / moved if moved else 0.0,
        "time_ms": latency.median_ms,
        "low_ms": latency.interval_ms.low,
        "high_ms": latency.interval_ms.high,
        "spread": latency.spread,
        "contended": latency.contended,
        "gflop_s": cost.flops / latency.median_ms / 1e6,
        "gb_s": moved / latency.median_ms / 1e6,
        "bound": bound,
        "attained": limit_ms / latency.median_ms,
    }


def _hint(near: Sequence[str], top: Sequence[str]) -> str:
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"try {', '.join(top)}" if top else "it has no modules inside"


def _top(modules: Mapping[str, nn.Module]) -> list[str]:
    return [path for path in modules if path and "." not in path]
