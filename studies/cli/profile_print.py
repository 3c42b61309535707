"""Print results of `nas profile` on a terminal; a wider terminal shows more columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

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

if TYPE_CHECKING:
    import pandas as pd

    from profiling.backends import BackendRow
    from profiling.layers import LayerTable
    from profiling.roofline import Peaks

_WIDE, _WIDER = 118, 166
_BAR, _LONG_BAR = 6, 16
_PATH, _REST = 36, 76  # width of a path on a narrow terminal; of the other columns on a wide one


def print_profile(table: LayerTable, name: str, top: int | None) -> None:
    """Print the headline, grouped views and layers.

    Layers are the `top` slowest; None prints all in the order of the model.
    """
    text = headline(table, name).replace("`", "")
    stdout.print(f"\n[bold]{escape(text)}[/bold]")
    stdout.print(escape(account(table)), style="dim")
    for warning in warnings(table):
        stdout.print(f"[yellow]{escape(warning)}[/yellow]")
    cost, machine = table.complexity, table.peaks
    stdout.print(
        f"{format_count(cost.params)} parameters, {format_count(cost.macs)} MACs, "
        f"{format_bytes(cost.bytes_read + cost.bytes_written)} moved, {cost.launches:,} launches; "
        f"peaks {format_rate(machine.gemm_gflop_s)} GFLOP/s, "
        f"{format_rate(machine.memory_gb_s)} GB/s, {machine.launch_us:.2g} us a launch"
    )
    for by, title in VIEWS.items():
        stdout.print()
        stdout.print(_view(title, view(table, by)))
    rows = layer_rows(table)
    shown = sorted(rows, key=lambda row: -row["share"])[:top] if top else rows
    stdout.print()
    stdout.print(_layers(shown))
    if len(shown) < len(rows):
        share = sum(row["share"] for row in shown)
        stdout.print(
            f"[dim]the {len(shown)} slowest of {len(rows)} layers, {format_percent(share)} of the "
            "time; --all shows all of them[/dim]"
        )


def print_sweep(sweep: pd.DataFrame, title: str, axes: Sequence[str]) -> None:
    """Print one line per measurement of a layer."""
    stdout.print(f"\n[bold]{escape(sweep_headline(sweep, title, axes).replace('`', ''))}[/bold]")
    names = axes or ["batch", "threads"]
    wide = stdout.width >= _WIDE
    columns = ["ms", "interval", "GFLOP/s", "GB/s", *(["MACs", "moved"] if wide else [])]
    table = _table("", *names, *columns, "bound", "attained", left=("bound",))
    for row in records(sweep):
        cells = [
            _bare(row["time_ms"]) + ("*" if row["contended"] else " "),
            f"{_bare(row['low_ms'])} to {_bare(row['high_ms'])}",
            format_rate(row["gflop_s"]),
            format_rate(row["gb_s"]),
        ]
        cells += [format_count(row["macs"]), format_bytes(row["bytes_moved"])] if wide else []
        table.add_row(
            *(str(row[name]) for name in names),
            *cells,
            row["bound"],
            format_percent(row["attained"]),
        )
    stdout.print(table)
    if sweep["contended"].any():
        stdout.print("[yellow]* contended: the machine was busy during this measurement[/yellow]")


def print_peaks(peaks: Peaks) -> None:
    """Print the machine's peaks and the device on which they were measured."""
    place = peaks.environment
    stdout.print(
        f"[bold]{escape(place.device_name)}[/bold], {place.threads} of {place.cores} cores"
    )
    table = _table("", "peak", "measured", left=("peak",))
    for label, value in peak_facts(peaks):
        table.add_row(label, value)
    stdout.print(table)


def print_backends(rows: Sequence[BackendRow], name: str, batch: int, threads: int) -> None:
    """Print each backend's time, speed-up over eager and error, or why it cannot run."""
    title = f"{name}, batch {batch}, {counted(threads, 'thread')}"
    names = ["backend", "ms", "speed-up", "interval", "max error", "ready in"]
    table, remarks = _table(title, *names, left=("backend",)), []
    for row in sorted(rows, key=lambda row: row.latency.median_ms if row.latency else math.inf):
        if row.reason or row.note:
            remarks.append(f"{row.name}: {row.reason or row.note}")
        if row.latency is None or row.speed_up is None:
            table.add_row(row.name, "-", "-", "-", "-", "-", style="dim")
            continue
        low, high = row.speed_up.interval
        table.add_row(
            row.name,
            _bare(row.latency.median_ms) + ("*" if row.latency.contended else " "),
            f"{row.speed_up.median:.2f}x",
            f"{low:.2f} to {high:.2f}",
            f"{row.max_error:.1g}",
            f"{row.preparation_s:.1f} s",
        )
    stdout.print(table)
    for remark in remarks:
        stdout.print(f"[dim]{escape(remark)}[/dim]")
    if any(row.latency and row.latency.contended for row in rows):
        stdout.print("[yellow]* contended: the machine was busy during this measurement[/yellow]")


def _view(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    wide = stdout.width >= _WIDE
    columns = ["MACs", "bytes", *(["launches"] if wide else []), "GFLOP/s", "GB/s"]
    table = _table(title, "", "ms", "time", " ", *columns, left=("", " "))
    longest = max(row["share"] for row in rows) or 1.0
    for row in rows:
        rest = [format_percent(row["macs_share"]), format_percent(row["bytes_share"])]
        rest += [f"{row['launches']:,}"] if wide else []
        rest += [format_rate(row["gflop_s"]), format_rate(row["gb_s"])]
        bar = "█" * round((_LONG_BAR if wide else _BAR) * row["share"] / longest)
        cells = rest if row["layers"] else []  # operations between the layers have no counts
        table.add_row(
            escape(row["title"]), _bare(row["time_ms"]), format_percent(row["share"]),
            f"[blue]{bar}[/blue]", *cells,
        )  # fmt: skip
    return table


def _layers(rows: Sequence[dict[str, Any]]) -> Table:
    wide, wider = stdout.width >= _WIDE, stdout.width >= _WIDER
    middle = ["MACs", "GFLOP/s", "GB/s"] if wide else []
    end = ["output", "moved", "FLOP/B"] if wider else []
    longest = _PATH if not wide else 54 if wider else min(54, stdout.width - _REST)
    table = _table("Layers", "layer", "kind", "ms", "spread", "share", *middle, *end, "bound",
                   left=("layer", "kind", "bound"))  # fmt: skip
    for row in rows:
        cells = [_bare(row["time_ms"]), format_percent(row["spread"]), format_percent(row["share"])]
        if wide:
            cells.append(format_count(row["macs"]))
            cells += [format_rate(row[name]) for name in ("gflop_s", "gb_s")]
        if wider:
            cells += [format_shape(row["output_shape"]), format_bytes(row["bytes_moved"])]
            cells.append(format_rate(row["intensity"]))
        kind = KIND_TITLES[row["kind"]].removesuffix(" convolution").removesuffix(" layer")
        path = _broken(row["path"] or row["module"], longest)
        table.add_row(escape(path), kind, *cells, row["bound"])
    return table


def _broken(path: str, width: int) -> str:
    """Break a long path into two lines before a dot."""
    cut = path.rfind(".", 1, width + 1)
    return path if len(path) <= width or cut < 0 else f"{path[:cut]}\n  {path[cut:]}"


def _table(title: str, *columns: str, left: Sequence[str]) -> Table:
    table = Table(
        box=None, pad_edge=False, header_style="dim", title=title or None,
        title_justify="left", title_style="bold",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return table


def _bare(value_ms: float) -> str:
    return format_ms(value_ms).removesuffix(" ms")
