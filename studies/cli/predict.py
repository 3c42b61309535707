"""`nas profile calibrate` and `nas profile predict`: latency without building the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search_spaces.errors import UserError
from search_spaces.sizes import Size
from studies.cli.completion import ARCHITECTURES
from studies.cli.console import stdout
from studies.cli.formats import format_option
from studies.cli.help import TableHelp
from studies.cli.options import (
    Positive,
    Whole,
    find_architecture,
    progress_bar,
    root_option,
)
from studies.cli.setup_options import place_of, setup_of, setup_options
from studies.record.table_files import csv_text
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.predict.accuracy import Accuracy
    from nas.predict.calibration import Setting
    from nas.predict.predictor import LatencyPredictor
    from nas.setups import SetUp
    from profiling.target.client import KnownTarget

_threads = click.option(
    "--threads", type=Whole(1, 1024), default=1, show_default=True,
    help="Number of CPU threads.",
)  # fmt: skip
_batch = click.option("--batch", type=Whole(1), default=1, show_default=True, help="Batch size.")
_device = click.option(
    "--device", default="auto", show_default=True, help="Device: auto, cpu, cuda or mps."
)

_SHOWN = 3  # kinds of operation listed beside a prediction
_FEW = 10  # with fewer quiet measurements, their accuracy is not shown


@click.command(cls=TableHelp)
@click.option(
    "--space",
    "space_name",
    default="wide",
    show_default=True,
    help="Search space to draw architectures from: a name (wide@64 for 64 pixels) or a YAML file.",
)
@click.option(
    "--architectures",
    type=Whole(50),
    default=300,
    show_default=True,
    help="Number of architectures to measure; a third of them is held out.",
)
@click.option(
    "--minutes",
    type=Positive(),
    help="Time limit of the measurement in minutes; the same command continues it.",
)
@setup_options
@_threads
@_batch
@_device
def calibrate(
    space_name: str,
    architectures: int,
    minutes: float | None,
    threads: int,
    batch: int,
    device: str,
    **named: str | None,
) -> None:
    """Fit a latency predictor to this machine and check it on held-out architectures.

    Every operation is timed inside architectures drawn from a space, in rounds shared with
    `original`. Measurements are stored, so the same command resumes an interrupted calibration.
    One architecture takes about 3 s. With --backend, --part ... whole models are timed in that
    set-up, each in about 10 s.
    """
    from nas.predict.predictor import LatencyPredictor
    from search_spaces.space import SearchSpace

    space = SearchSpace.load(space_name)
    setup = setup_of(named, threads=threads, batch=batch)
    setting, known = _at(setup, device, space.image_size)
    held_out = architectures // 3
    seconds = None if minutes is None else 60 * minutes
    with progress_bar("measuring") as progress:
        predictor = LatencyPredictor.calibrate(
            setting, space, architectures - held_out, held_out, seconds, progress, known
        )
    print_accuracy(predictor)


@click.command(cls=TableHelp)
@click.argument("archs", nargs=-1, required=True, metavar="ARCH...", shell_complete=ARCHITECTURES)
@setup_options
@_threads
@_batch
@_device
@format_option
@root_option
def predict(
    archs: tuple[str, ...],
    threads: int,
    batch: int,
    device: str,
    kind: str,
    root: Path,
    **named: str | None,
) -> None:
    """Predict the latency of each ARCH from this machine's calibration; nothing is built or run.

    ARCH is a reference ({references}, original@64), a JSON or YAML file, or STUDY#TRIAL. The
    calibration is that of the set-up: --backend, --part ...
    """
    setup = setup_of(named, threads=threads, batch=batch)
    predictors: dict[Size, LatencyPredictor] = {}
    rows = []
    for text in archs:
        architecture = find_architecture(text, root)
        size = architecture.image_size
        if size not in predictors:
            predictors[size] = _load(setup, device, size)
        predictor = predictors[size]
        [ratio] = predictor.predict_ratio([architecture])
        low, high = predictor.interval(float(ratio))
        rows.append(
            {
                "architecture": text,
                "predicted_ms": float(ratio) * predictor.original_ms,
                "low_ms": low * predictor.original_ms,
                "high_ms": high * predictor.original_ms,
                "ratio_to_original": float(ratio),
                "shares": predictor.contributions(architecture),
            }
        )
    _PRINTERS[kind](rows)


def _at(setup: SetUp, device: str, image_size: Size) -> tuple[Setting, KnownTarget | None]:
    """Return the setting of a calibration, and its target if it has one."""
    from nas.predict.calibration import Setting
    from profiling.target.client import KnownTarget

    where = place_of(setup, device)
    known = where if isinstance(where, KnownTarget) else None
    return Setting.of(setup, str(where), image_size), known


def _load(setup: SetUp, device: str, image_size: Size) -> LatencyPredictor:
    from nas.predict.predictor import LatencyPredictor
    from profiling.allocator import tune_allocator

    setting, known = _at(setup, device, image_size)
    tune_allocator()  # as calibration does: the allocator is part of the environment
    if found := LatencyPredictor.load(setting, known):
        return found
    raise UserError(
        f"no latency predictor for {setting.words}: first calibrate this machine with: "
        f"{setting.remedy}"
    )


def print_accuracy(predictor: LatencyPredictor) -> None:
    """Print the accuracy on the held-out architectures, and on those measured undisturbed.

    If some measurements were contended, print the accuracy by CPU times as well; they exclude the
    time spent waiting for a busy core.
    """
    from nas.predict.accuracy import check

    held_out = predictor.calibration.of("held_out")
    quiet = [measurement for measurement in held_out if not measurement.contended]
    fitted = len(predictor.calibration.of("fitted"))
    stdout.print()
    stdout.say(
        (predictor.setting.words, "bold"),
        f": fitted to {fitted} architectures, checked on {len(held_out)} others; "
        f"original takes {predictor.original_ms:.1f} ms",
        wrap=True,
    )
    stdout.table(_accuracy_table("", check(predictor)))
    if _FEW <= len(quiet) < len(held_out):
        title = f"The {len(quiet)} of them that were measured while the machine was quiet"
        stdout.table(_accuracy_table(title, check(predictor, quiet)))
    if len(quiet) < len(held_out) and any(measurement.cpu_ms for measurement in held_out):
        title = f"All {len(held_out)} by CPU time, which excludes waiting for a busy core"
        stdout.table(_accuracy_table(title, check(predictor, undisturbed=True)))
    stdout.say(str(predictor.calibration.path), style="dim")


def _accuracy_table(title: str, found: Sequence[Accuracy]) -> Table:
    names = ("within 10 %", "median error", "90th percentile", "Spearman", "Kendall")
    table = Table(Column("", text=True), *names, title=title)
    for row in found:
        table.add(
            row.name,
            f"{100 * row.within_10:.0f} %",
            f"{100 * row.median_error:.1f} %",
            f"{100 * row.p90_error:.1f} %",
            f"{row.spearman:.3f}",
            f"{row.kendall:.3f}",
        )
    return table


def _print_table(rows: list[dict[str, Any]]) -> None:
    name, shares_ = Column("architecture", text=True), Column("largest shares", text=True)
    table = Table(name, "predicted", "95 % interval", "over original", shares_)
    for row in rows:
        shares = list(row["shares"].items())[:_SHOWN]
        table.add(
            row["architecture"],
            f"{row['predicted_ms']:.1f} ms",
            f"{row['low_ms']:.1f} to {row['high_ms']:.1f}",
            f"{row['ratio_to_original']:.2f}x",
            ", ".join(f"{kind.replace('_', ' ')} {100 * share:.0f} %" for kind, share in shares),
        )
    stdout.table(table)


def _print_csv(rows: list[dict[str, Any]]) -> None:
    flat = [_flat(row) for row in rows]
    click.echo(csv_text(flat[0], [row.values() for row in flat]), nl=False)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with one column for each kind of operation."""
    from profiling.kinds import OPERATION_KINDS

    shares = {f"share_{kind}": row["shares"].get(kind, 0.0) for kind in OPERATION_KINDS}
    return {name: value for name, value in row.items() if name != "shares"} | shares


def _print_json(rows: list[dict[str, Any]]) -> None:
    click.echo(json.dumps(rows, indent=1))


_PRINTERS = {"table": _print_table, "csv": _print_csv, "json": _print_json}
