"""Print results of `nas profile`; a narrow terminal leaves some columns out and says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from studies.cli.console import stdout
from studies.profiles.layers_words import (
    KIND_TITLES,
    VIEWS,
    account,
    headline,
    layer_rows,
    peak_facts,
    records,
    sweep_headline,
    view,
    warnings,
)
from studies.record.formats import (
    counted,
    format_bytes,
    format_count,
    format_ms,
    format_percent,
    format_rate,
    format_shape,
)
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    import pandas as pd

    from profiling.comparison import BackendRow
    from profiling.layers import LayerTable
    from profiling.roofline import Peaks

_BAR = 10
_BUSY = "* contended: the machine was busy during this measurement"


def print_profile(table: LayerTable, name: str, top: int | None) -> None:
    """Print the headline, grouped views and layers.

    Layers are the `top` slowest; None prints all in the order of the model.
    """
    _print_heading(headline(table, name))
    stdout.say(account(table), style="dim", wrap=True)
    for warning in warnings(table):
        stdout.say(warning, style="yellow", wrap=True)
    cost, machine = table.complexity, table.peaks
    stdout.say(
        f"{format_count(cost.params)} parameters, {format_count(cost.macs)} MACs, "
        f"{format_bytes(cost.bytes_read + cost.bytes_written)} moved, {cost.launches:,} launches; "
        f"peaks {format_rate(machine.gemm_gflop_s)} GFLOP/s, "
        f"{format_rate(machine.memory_gb_s)} GB/s, {machine.launch_us:.2g} us a launch",
        wrap=True,
    )
    for by, title in VIEWS.items():
        stdout.print()
        stdout.table(_view(title, view(table, by)))
    rows = layer_rows(table)
    shown = sorted(rows, key=lambda row: -row["share"])[:top] if top else rows
    stdout.print()
    stdout.table(_layers(shown))
    if len(shown) < len(rows):
        share = format_percent(sum(row["share"] for row in shown))
        slowest = f"the {len(shown)} slowest of {len(rows)} layers, {share} of the time"
        stdout.say(f"{slowest}; --all shows all of them", style="dim", wrap=True)


def print_sweep(sweep: pd.DataFrame, title: str, axes: Sequence[str]) -> None:
    """Print one line per measurement of a layer."""
    _print_heading(sweep_headline(sweep, title, axes))
    names = axes or ["batch", "threads"]
    optional = [Column(name, optional=True) for name in ("MACs", "moved")]
    rates = ("ms", "interval", "GFLOP/s", "GB/s")
    table = Table(*names, *rates, *optional, Column("bound", text=True), "attained")
    for row in records(sweep):
        table.add(
            *(str(row[name]) for name in names),
            _bare(row["time_ms"]) + ("*" if row["contended"] else " "),
            f"{_bare(row['low_ms'])} to {_bare(row['high_ms'])}",
            format_rate(row["gflop_s"]),
            format_rate(row["gb_s"]),
            format_count(row["macs"]),
            format_bytes(row["bytes_moved"]),
            row["bound"],
            format_percent(row["attained"]),
        )
    stdout.table(table)
    if sweep["contended"].any():
        stdout.say(_BUSY, style="yellow", wrap=True)


def print_peaks(peaks: Peaks) -> None:
    """Print the machine's peaks and the device on which they were measured."""
    place = peaks.environment
    stdout.say((place.device_name, "bold"), f", {place.threads} of {place.cores} cores")
    table = Table(Column("peak", text=True), "measured")
    for label, value in peak_facts(peaks):
        table.add(label, value)
    stdout.table(table)


def print_backends(
    rows: Sequence[BackendRow], name: str, batch: int, threads: int, lacks_images: bool
) -> None:
    """Print each backend's time, speed-up over eager and error, or why it cannot run.

    The loss that lower precisions cost is printed where it is known. `lacks_images` says
    whether int8 was left out for lack of images.
    """
    title = f"{name}, batch {batch}, {counted(threads, 'thread')}"
    columns = [Column("backend", text=True), Column("precision", text=True)]
    judged = any(row.loss_cost is not None for row in rows)
    names = ["ms", "speed-up", "interval", "error", *(["loss"] if judged else []), "ready in"]
    table = Table(*columns, *names, title=title)
    remarks: dict[str, list[str]] = {}  # text -> backends
    for row in sorted(rows, key=lambda row: row.latency.median_ms if row.latency else math.inf):
        if row.reason or row.note:
            shown = f"{row.name} int8" if row.dtype == "int8" else row.name
            remarks.setdefault(row.reason or row.note, []).append(shown)
        if row.latency is None or row.speed_up is None:
            table.add(row.name, row.dtype, *["-"] * len(names), style="dim")
            continue
        low, high = row.speed_up.interval
        table.add(
            row.name,
            row.dtype,
            _bare(row.latency.median_ms) + ("*" if row.latency.contended else " "),
            f"{row.speed_up.median:.2f}x",
            f"{low:.2f} to {high:.2f}",
            f"{row.max_error:.1g}",
            *([_cost(row)] if judged else []),
            f"{row.preparation_s:.1f} s",
        )
    stdout.table(table)
    stdout.say(_ERRORS + (_LOSSES if judged else ""), style="dim", wrap=True)
    if lacks_images:
        stdout.say(_NO_IMAGES, style="dim", wrap=True)
    for text, of in remarks.items():
        stdout.say(f"{', '.join(dict.fromkeys(of))}: {text}", style="dim", wrap=True)
    if any(row.latency and row.latency.contended for row in rows):
        stdout.say(_BUSY, style="yellow", wrap=True)


_ERRORS = "error: largest difference of an output from float64, relative to the output's range"
_LOSSES = "; loss: increase of the reconstruction loss on validation images"
_NO_IMAGES = "int8 needs images: give --images FOLDER, or a trained trial STUDY#TRIAL"


def _cost(row: BackendRow) -> str:
    return "" if row.loss_cost is None else f"{100 * row.loss_cost:+.2f} %"


def _print_heading(text: str) -> None:
    stdout.print()
    stdout.say(text.replace("`", ""), style="bold", wrap=True)


def _view(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    bar = Column(" ", text=True, optional=True, style="blue")
    counts = ("MACs", "bytes", "GFLOP/s", "GB/s")
    launches = Column("launches", optional=True)
    table = Table(Column("", text=True), "ms", "time", bar, *counts, launches, title=title)
    longest = max(row["share"] for row in rows) or 1.0
    for row in rows:
        counted_ = (
            format_percent(row["macs_share"]),
            format_percent(row["bytes_share"]),
            format_rate(row["gflop_s"]),
            format_rate(row["gb_s"]),
            f"{row['launches']:,}",
        )
        cells = counted_ if row["layers"] else ()  # operations between the layers have no counts
        shown = "█" * round(_BAR * row["share"] / longest)
        table.add(row["title"], _bare(row["time_ms"]), format_percent(row["share"]), shown, *cells)
    return table


def _layers(rows: Sequence[dict[str, Any]]) -> Table:
    names = ("MACs", "GFLOP/s", "GB/s", "output", "moved", "FLOP/B")
    layer, kind, bound = (Column(name, text=True) for name in ("layer", "kind", "bound"))
    optional = [Column(name, optional=True) for name in names]
    table = Table(layer, kind, "ms", "spread", "share", bound, *optional, title="Layers")
    for row in rows:
        table.add(
            row["path"] or row["module"],
            KIND_TITLES[row["kind"]].removesuffix(" convolution").removesuffix(" layer"),
            _bare(row["time_ms"]),
            format_percent(row["spread"]),
            format_percent(row["share"]),
            row["bound"],
            format_count(row["macs"]),
            format_rate(row["gflop_s"]),
            format_rate(row["gb_s"]),
            format_shape(row["output_shape"]),
            format_bytes(row["bytes_moved"]),
            format_rate(row["intensity"]),
        )
    return table


def _bare(value_ms: float) -> str:
    return format_ms(value_ms).removesuffix(" ms")
