"""The texts of a layer profile: its headline, its key facts and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from profiling.environment import Environment
from profiling.layers import OUTSIDE, LayerTable
from profiling.roofline import Peaks
from studies.record.formats import (
    counted,
    format_bytes,
    format_count,
    format_factor,
    format_ms,
    format_percent,
    format_rate,
    listed,
)

if TYPE_CHECKING:
    import pandas as pd

KIND_TITLES: dict[str, str] = {
    "convolution": "full convolution",
    "depthwise": "depthwise convolution",
    "pointwise": "pointwise convolution",
    "linear": "linear layer",
    "batch_norm": "BatchNorm",
    "activation": "activation",
    "concatenation": "concatenation",
    "resampling": "resampling",
    "other": "other operation",
}
"""Kinds of operation and their names in the singular."""

_TITLES = {**KIND_TITLES, OUTSIDE: "between the layers"}

VIEWS: dict[str, str] = {"kind": "By kind", "part": "Encoder and decoder", "stage": "By stage"}
"""Columns by which the layer table is grouped, and the titles of these views."""

_WORTH_NAMING = 0.02  # kinds that take a smaller share of the time stay out of the headline


def headline(table: LayerTable, name: str) -> str:
    """Return a sentence: where most of the time is spent, and the share of arithmetic there."""
    kinds = _measured(table.grouped("kind"))
    latency = format_ms(table.latency.median_ms)
    idle = kinds[kinds["macs"] == 0]
    if idle["share"].sum() >= 0.4:
        named = idle[idle["share"] >= _WORTH_NAMING]
        return (
            f"{format_percent(named['share'].sum())} of the {latency} that `{name}` takes goes to "
            f"{_named(named)}, with none of the arithmetic"
        )
    top = kinds.iloc[0]
    share = top["macs"] / max(1, kinds["macs"].sum())
    return (
        f"{format_percent(top['share'])} of the {latency} that `{name}` takes goes to "
        f"{_named(kinds[:1])}, with {format_percent(share)} of the arithmetic at "
        f"{format_rate(top['gflop_s'])} of the {format_rate(table.peaks.gemm_gflop_s)} GFLOP/s "
        "that this machine reaches"
    )


def account(table: LayerTable) -> str:
    """Return the share of the latency that the layers explain, and the cost of timing them."""
    low, high = table.latency.interval_ms
    return (
        f"The layers below account for {format_percent(table.explained_share)} of the "
        f"{format_ms(table.latency.median_ms)} "
        f"({format_ms(low).removesuffix(' ms')} to {format_ms(high)}) that a pass of the unchanged "
        f"model takes, work between them for {format_percent(table.outside_share)}. "
        f"Timing the layers made a pass {format_factor(table.inflation.median)} as long."
    )


def warnings(table: LayerTable) -> list[str]:
    """Return warnings about the accuracy of the numbers; an empty list if there are none."""
    found = []
    if table.latency.contended:
        signs = "; ".join(table.latency.contention)
        found.append(
            f"The machine was busy during the measurement: {signs}. Run it again to be sure."
        )
    explained = table.explained_share + table.outside_share
    if abs(explained - 1) > 0.1:
        found.append(
            f"The layers and the work between them add up to {format_percent(explained)} of the "
            "latency: the error of a single time may be as large as the difference."
        )
    return found


def facts(table: LayerTable) -> list[tuple[str, str]]:
    """Return key figures of the whole pass as (label, value)."""
    cost, latency = table.complexity, table.latency
    moved = _moved(table)
    found = [
        ("Latency", format_ms(latency.median_ms)),
        ("Parameters", format_count(cost.params)),
        ("MACs", format_count(cost.macs)),
        ("Bytes moved", format_bytes(moved)),
        ("Launches", f"{cost.launches:,}"),
        ("Arithmetic reached", f"{format_rate(cost.flops / latency.median_ms / 1e6)} GFLOP/s"),
        ("Traffic reached", f"{format_rate(moved / latency.median_ms / 1e6)} GB/s"),
        ("Layers account for", format_percent(table.explained_share)),
        ("Timing them cost", format_factor(table.inflation.median)),
        ("Input", " x ".join(map(str, latency.subject.input_shapes[0]))),
        ("Threads", str(latency.subject.threads)),
        ("Device", latency.environment.device_name),
        ("Allocator", latency.environment.allocator),
        ("Timed on", table.fed),
        ("Weights", table.weights),
    ]  # fmt: skip
    return [(label, value) for label, value in found if value]


def peak_facts(peaks: Peaks) -> list[tuple[str, str]]:
    """Return the machine's measured peaks as (label, value)."""
    copies = [
        (f"Copying {format_bytes(moved)}", f"{format_rate(speed)} GB/s")
        for moved, speed in peaks.copy_gb_s
    ]
    return [
        ("Arithmetic (matrix product)", f"{format_rate(peaks.gemm_gflop_s)} GFLOP/s"),
        *copies,
        ("Launching an operation", f"{peaks.launch_us:.2f} \N{MICRO SIGN}s"),
    ]


def peak_rows(peaks: Peaks) -> list[dict[str, str | float | None]]:
    """Return the machine's measured peaks, a row each, with all digits."""
    copies = [("copy", speed, "GB/s", moved) for moved, speed in peaks.copy_gb_s]
    rates: list[tuple[str, float, str, int | None]] = [
        ("matrix product", peaks.gemm_gflop_s, "GFLOP/s", None),
        *copies,
        ("launch", peaks.launch_us, "us", None),
    ]
    names = ("peak", "value", "unit", "bytes")
    return [dict(zip(names, rate, strict=True)) for rate in rates]


def environment_facts(environment: Environment) -> list[tuple[str, str]]:
    """Return the environment of the measurement as (field, value), without empty fields."""
    found = environment.model_dump().items()
    return [(key.replace("_", " "), str(value)) for key, value in found if value is not None]


def sweep_headline(sweep: pd.DataFrame, title: str, axes: Sequence[str]) -> str:
    """Return how a layer's time changes along the first axis, at the first value of the others."""
    first = sweep.iloc[0]
    if not axes:
        return (
            f"`{title}` takes {format_ms(first['time_ms'])}: {format_rate(first['gflop_s'])} "
            f"GFLOP/s and {format_rate(first['gb_s'])} GB/s, bound by {first['bound']}"
        )
    rows = sweep[(sweep[list(axes[1:])] == first[list(axes[1:])]).all(axis=1)]
    rows = rows.sort_values(axes[0])
    low, high = rows.iloc[0], rows.iloc[-1]
    fixed = ", ".join(f"{axis} {first[axis]}" for axis in axes[1:])
    work = "macs" if low["macs"] else "bytes_moved"
    return (
        f"`{title}` takes {format_ms(low['time_ms'])} at {axes[0]} {low[axes[0]]} and "
        f"{format_ms(high['time_ms'])} at {axes[0]} {high[axes[0]]}"
        f"{f' ({fixed})' if fixed else ''}: {format_factor(high['time_ms'] / low['time_ms'])} "
        f"the time for {format_factor(high[work] / low[work])} the work"
    )


def view(table: LayerTable, by: str) -> list[dict[str, Any]]:
    """Return the rows of a grouped view with their shares of time, arithmetic and traffic.

    Kinds are sorted by decreasing time, parts and stages by execution; work outside layers is last.
    """
    groups = records(table.grouped(by))
    if by == "kind":
        groups.sort(key=lambda group: (group["group"] == OUTSIDE, -group["time_ms"]))
    macs, moved = max(1, table.complexity.macs), max(1, _moved(table))
    return [
        {
            **group,
            "title": _TITLES.get(group["group"], group["group"]),
            "macs_share": group["macs"] / macs,
            "bytes_share": group["bytes_moved"] / moved,
        }
        for group in groups
    ]


def layer_rows(table: LayerTable) -> list[dict[str, Any]]:
    """Return the rows of the layer table in order of execution, without work outside layers."""
    frame = table.frame()
    lines = records(frame[frame["path"] != OUTSIDE])
    slowest = max((line["share"] for line in lines), default=1.0)
    return [
        {
            **line,
            "order": order,
            "bytes_moved": line["bytes_read"] + line["bytes_written"],
            "bar": line["share"] / slowest if slowest else 0.0,
        }
        for order, line in enumerate(lines, start=1)
    ]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as dictionaries by column name."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _measured(groups: pd.DataFrame) -> pd.DataFrame:
    found = groups[groups["group"] != OUTSIDE]
    return found.sort_values("time_ms", ascending=False)


def _moved(table: LayerTable) -> int:
    return table.complexity.bytes_read + table.complexity.bytes_written


def _named(kinds: pd.DataFrame) -> str:
    """List kinds with their numbers of layers: `36 concatenations and 71 activations`."""
    return listed(
        [counted(int(row["layers"]), KIND_TITLES[row["group"]]) for row in records(kinds)]
    )
