"""The layer table: costs, time and bound of every module in one forward pass.

The latency is that of the model without hooks. In the same rounds a copy is timed that shares its
tensors and notes when each module starts and stops. The table reports the share of the latency that
its rows explain, and how much slower the pass with notes was.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from profiling.complexity import Complexity, ModuleCost, complexity
from profiling.intervals import relative_iqr
from profiling.latency import (
    Latency,
    LatencyConfig,
    Ratio,
    batched,
    measure_latency,
    paired_ratio,
)
from profiling.memory import require_memory
from profiling.notes import Notes, Pass, middle_half, note_cost_ms, outside_ms
from profiling.progress import Progress
from profiling.roofline import Bound, Peaks, measure_peaks
from profiling.symbolic import Example, on_meta

if TYPE_CHECKING:
    import pandas as pd

OUTSIDE = "(outside modules)"


@dataclass(frozen=True)
class TimedLayer:
    """Costs and time of one module, without those of its children.

    Attributes:
        cost: Costs from shapes.
        time_ms: Mean over the middle half of the passes, ordered by their total time. It is robust
            like a median, but additive over layers.
        times_ms: Time in each pass.
        bound: The resource with the longest minimum time.
        limit_ms: That minimum time.
    """

    cost: ModuleCost
    time_ms: float
    times_ms: tuple[float, ...]
    bound: Bound
    limit_ms: float

    @property
    def attained(self) -> float:
        """Attained share of the binding peak: minimum time over measured time.

        It is far below 1 where the work differs from that of the peak: exponentials, small kernels.
        """
        return self.limit_ms / self.time_ms if self.time_ms else 0.0

    @property
    def spread(self) -> float:
        """Interquartile range over the median of the passes."""
        return relative_iqr(self.times_ms)

    @property
    def gflop_s(self) -> float:
        """Attained arithmetic rate in GFLOP/s."""
        return 2 * self.cost.macs / self.time_ms / 1e6 if self.time_ms else 0.0

    @property
    def gb_s(self) -> float:
        """Attained memory traffic in GB/s; with caches it may exceed the peak of the memory."""
        return self.cost.bytes_moved / self.time_ms / 1e6 if self.time_ms else 0.0


def part_name(layer: TimedLayer) -> str:
    """Return the top-level part of a layer: the first component of its path."""
    return layer.cost.path.partition(".")[0]


def stage_path(layer: TimedLayer) -> str:
    """Return the stage of a layer: its path up to the first number, else two components."""
    names = layer.cost.path.split(".")
    numbered = next((i for i, name in enumerate(names) if name.isdigit()), 1)
    return ".".join(names[: numbered + 1])


GROUPINGS: Mapping[str, Callable[[TimedLayer], str]] = {
    "kind": lambda layer: layer.cost.kind,
    "part": part_name,
    "stage": stage_path,
    "bound": lambda layer: layer.bound,
}


@dataclass(frozen=True)
class LayerTable:
    """All layers of one forward pass, and how much of the latency they explain.

    Attributes:
        layers: The layers, in order of execution.
        outside_ms: Time between modules (freeing of activations, Python), without the cost of
            taking notes.
        latency: Latency of the model without hooks.
        instrumented: Latency of the copy that took notes.
        complexity: Costs of the model.
        peaks: Peak rates of the machine.
        fed: Description of the arguments of the passes; "" if the caller gave none.
        weights: Description of the weights; "" if the caller gave none.
    """

    layers: tuple[TimedLayer, ...]
    outside_ms: float
    latency: Latency
    instrumented: Latency
    complexity: Complexity
    peaks: Peaks
    fed: str = ""
    weights: str = ""

    @cached_property
    def explained_share(self) -> float:
        """Time of all modules over the latency without hooks; 1 if the table explains all of it."""
        return sum(layer.time_ms for layer in self.layers) / self.latency.median_ms

    @cached_property
    def outside_share(self) -> float:
        """Time between modules over the latency without hooks."""
        return self.outside_ms / self.latency.median_ms

    @cached_property
    def inflation(self) -> Ratio:
        """Latency with notes over latency without hooks."""
        return paired_ratio(self.instrumented, self.latency)

    def __repr__(self) -> str:
        """Return the number of layers, the latency, and how much of it they explain."""
        return (
            f"LayerTable({len(self.layers)} layers, {self.latency.median_ms:.4g} ms, of which they "
            f"explain {self.explained_share:.0%})"
        )

    def _repr_html_(self) -> str:
        """Return the layers that take longest, as a notebook shows them."""
        frame = self.frame()
        longest = frame.nlargest(SHOWN_LAYERS, "time_ms")[list(_SHOWN)]
        more = len(frame) - len(longest)
        rest = f"<p>and {more:,} more: see <code>frame()</code></p>" if more else ""
        shown = longest.to_html(index=False, float_format=lambda value: f"{value:.3g}")
        return f"<p>{html.escape(repr(self))}</p>{shown}{rest}"

    def frame(self) -> pd.DataFrame:
        """Return one row per layer in order of execution, and a last row for time outside."""
        import pandas as pd

        total_ms = self.latency.median_ms
        lines = [_line(layer, total_ms) for layer in self.layers]
        outside = self._outside(path=OUTSIDE, module="", kind="outside")
        return pd.DataFrame([*lines, outside], columns=list(COLUMNS))

    def grouped(self, by: str | Callable[[TimedLayer], str]) -> pd.DataFrame:
        """Return sums by "kind", "part", "stage", "bound", or by a function of a layer.

        The last row is the time outside modules, so that the shares add up as in `frame`.
        """
        import pandas as pd

        key = GROUPINGS[by] if isinstance(by, str) else by
        groups: dict[str, list[TimedLayer]] = {}
        for layer in self.layers:
            groups.setdefault(key(layer), []).append(layer)
        lines = [_sum(name, group, self.latency.median_ms) for name, group in groups.items()]
        outside = self._outside(group=OUTSIDE, layers=0)
        return pd.DataFrame([*lines, outside], columns=list(GROUP_COLUMNS))

    def _outside(self, **names: Any) -> dict[str, Any]:
        nothing = dict.fromkeys(COUNTS, 0)
        return nothing | names | {"time_ms": self.outside_ms, "share": self.outside_share}

    def record(self) -> dict[str, Any]:
        """Return the table, its environment and its peaks as plain JSON types."""
        frame = self.frame().astype(object)  # Python's numbers; pandas writes ten decimals only
        finite = frame.where(frame.notna() & ~frame.isin([math.inf, -math.inf]), None)
        lines = json.loads(json.dumps(finite.to_dict("records")))
        low, high = self.latency.interval_ms
        return {
            "latency_ms": self.latency.median_ms,
            "latency_interval_ms": [low, high],
            "contention": list(self.latency.contention),
            "explained_share": self.explained_share,
            "outside_share": self.outside_share,
            "inflation": self.inflation.median,
            "params": self.complexity.params,
            "macs": self.complexity.macs,
            "uncounted_ops": dict(self.complexity.uncounted_ops),
            "fed": self.fed,
            "weights": self.weights,
            "input_shapes": [list(shape) for shape in self.latency.subject.input_shapes],
            "peaks": self.peaks.model_dump(mode="json", exclude={"environment"}),
            "environment": self.latency.environment.model_dump(mode="json"),
            "layers": lines,
        }

    def save(self, path: Path) -> None:
        """Write the table as CSV, or all of `record` as JSON if the suffix is `.json`."""
        if path.suffix == ".json":
            path.write_text(json.dumps(self.record(), indent=1) + "\n", encoding="utf-8")
        else:
            self.frame().to_csv(path, index=False)


SHOWN_LAYERS = 20
"""Largest number of rows that a notebook shows."""

_SHOWN = ("path", "kind", "output_shape", "params", "macs", "time_ms", "share", "bound")

COLUMNS = (
    *("path", "module", "kind", "input_shape", "output_shape", "params", "macs", "bytes_read"),
    *("bytes_written", "intensity", "launches", "time_ms", "spread", "share", "gflop_s", "gb_s"),
    *("bound", "attained"),
)
COUNTS = ("params", "macs", "bytes_read", "bytes_written", "bytes_moved", "launches")
GROUP_COLUMNS = (
    *("group", "layers", "params", "macs", "bytes_moved", "launches", "time_ms", "share"),
    *("gflop_s", "gb_s"),
)


def _line(layer: TimedLayer, total_ms: float) -> dict[str, Any]:
    fields = {name: getattr(layer.cost, name, None) for name in COLUMNS}
    measured = ("time_ms", "spread", "gflop_s", "gb_s", "bound", "attained")
    return (
        fields
        | {name: getattr(layer, name) for name in measured}
        | {"share": layer.time_ms / total_ms}
    )


def _sum(name: str, layers: Sequence[TimedLayer], total_ms: float) -> dict[str, Any]:
    time_ms = sum(layer.time_ms for layer in layers)
    sums = {count: sum(getattr(layer.cost, count) for layer in layers) for count in COUNTS}
    rate = 1 / time_ms / 1e6 if time_ms else 0.0
    return sums | {
        "group": name,
        "layers": len(layers),
        "time_ms": time_ms,
        "share": time_ms / total_ms,
        "gflop_s": 2 * sums["macs"] * rate,
        "gb_s": sums["bytes_moved"] * rate,
    }


def profile_layers(
    model: nn.Module,
    example: Example,
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    peaks: Peaks | None = None,
    progress: Progress | None = None,
) -> LayerTable:
    """Time every module in an inference pass and return the layer table.

    Args:
        model: The model.
        example: Its arguments, as for `measure_latency`.
        config: Settings.
        device: Device of the model.
        peaks: Peak rates; by default they are measured, which takes about three seconds.
        progress: Called with (done, total) after each round.

    Raises:
        ProfilingError: as `complexity` and `measure_latency`, or the pass does not fit in memory.
    """
    config, device = config or LatencyConfig(), torch.device(device)
    shapes = on_meta(batched(on_meta(example), config.batch, torch.device("meta")))
    cost = complexity(model, shapes)
    require_memory(model, shapes, device)
    peaks = peaks or measure_peaks(config.threads, device)
    notes = Notes(model, [row.path for row in cost.rows], device)
    timings = measure_latency(
        {"plain": model, "instrumented": notes}, example, config, device, progress=progress
    )
    noted = timings["instrumented"]
    passes = notes.passes_of(noted)
    return LayerTable(
        layers=_layers(cost, passes, peaks),
        outside_ms=max(0.0, outside_ms(passes) - notes.calls * note_cost_ms(config, device)),
        latency=timings["plain"],
        instrumented=noted,
        complexity=cost,
        peaks=peaks,
    )


def _layers(cost: Complexity, passes: Sequence[Pass], peaks: Peaks) -> tuple[TimedLayer, ...]:
    middle = middle_half(passes)
    layers = []
    for i, row in enumerate(cost.rows):
        bound, limit_ms = peaks.bound(2 * row.macs, row.bytes_moved, row.launches)
        time_ms = mean(taken.own_ms[i] for taken in middle)
        times_ms = tuple(taken.own_ms[i] for taken in passes)
        layers.append(TimedLayer(row, time_ms, times_ms, bound, limit_ms))
    return tuple(layers)
