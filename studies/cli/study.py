"""`nas study`: run studies, look at them, and take models out of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

# Not torch, nor what imports it: `run` still has to say how its threads wait.
from nas.objectives import hypervolume
from search_spaces.errors import UserError
from studies.cli.best import best
from studies.cli.console import stderr, stdout
from studies.cli.main import HelpfulGroup
from studies.cli.options import root_option
from studies.cli.print_study import print_study, write_figures
from studies.cli.retrain import retrain
from studies.cli.run import run
from studies.record.formats import noun

if TYPE_CHECKING:
    from studies.record.records import StudyRecord
    from studies.store.store import StudyStore


@click.group(cls=HelpfulGroup)
def study() -> None:
    """Run Pareto studies; show, compare and export them."""


for command in (run, retrain, best):
    study.add_command(command)


def _open(root: Path, name: str) -> StudyRecord:
    return _store(root, name).record()


def _store(root: Path, name: str) -> StudyStore:
    from studies.store.store import StudyStore

    return StudyStore.open(root, name)


@study.command("list")
@root_option
def list_(root: Path) -> None:
    """List the studies in the root folder."""
    from studies.store.store import list_studies

    names = list_studies(root)
    if not names:
        stdout.print(f"no studies in {root}; start one: nas study run quickstart")
        return
    table = Table(
        "study", "space", "objectives", "complete", "front", "hypervolume", box=None, pad_edge=False
    )
    for name in names:
        try:
            record = _open(root, name)
        except UserError as error:
            stderr.print(f"[yellow]{escape(str(error))}[/yellow]")
            continue
        volume = hypervolume(record.points(record.complete), record.nadir)
        table.add_row(
            escape(name),
            escape(str(record.config["space"])),
            str(len(record.objectives)),
            str(len(record.complete)),
            str(len(record.front)),
            f"{volume:.4f}",
        )
    stdout.print(table)


@study.command()
@click.argument("name")
@root_option
def show(name: str, root: Path) -> None:
    """Show a study's result: the front beside both references, and what failed."""
    print_study(_open(root, name))


@study.command()
@click.argument("name")
@click.option("--format", "kind", type=click.Choice(["csv", "parquet", "json"]), default="csv")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Default: NAME.FORMAT here.")
@root_option
def export(name: str, kind: str, out: Path | None, root: Path) -> None:
    """Write every trial as one row of a table."""
    from studies.record.tables import trials_table

    table = trials_table(_open(root, name))
    path = out or Path(f"{name}.{kind}")
    try:
        if kind == "csv":
            table.to_csv(path, index=False)
        elif kind == "parquet":
            table.to_parquet(path, index=False)
        else:
            table.to_json(path, orient="records", indent=1)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror})") from None
    stdout.print(f"{path}: {len(table)} trials, {len(table.columns)} columns", soft_wrap=True)


@study.command()
@click.argument("name")
@click.option("--axes", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Also write all of it as CSV.")
@root_option
def effects(name: str, axes: int, out: Path | None, root: Path) -> None:
    """Tell which axes of the space decide each objective, and which way.

    What a choice makes of an objective is told against the average choice of its axis, in brackets
    where it may be chance (95 %). A study of random trials tells most: a search favours some
    choices.
    """
    from studies.record.axis_effects import effect_table, format_effect

    record = _open(root, name)
    table = effect_table(record)
    if table.empty:
        raise UserError(f"study {name!r}: too few trials, or no axis that matters among them")
    objectives = [one for one in record.objectives if one.name in table]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("axis, choice", no_wrap=True)
    for head in ("trials", *(noun(one).split()[-1] for one in objectives)):
        shown.add_column(head, justify="right", min_width=7)
    before = None
    for row in table[table["axis"].isin(table["axis"].unique()[:axes])].to_dict("records"):
        if row["axis"] != before:
            shown.add_row(escape(str(row["axis"])), style="bold")
        told = [format_effect(row, one.name).replace(" %", "%") for one in objectives]
        shown.add_row(f"  {escape(str(row['choice']))}", str(row["trials"]), *told)
        before = row["axis"]
    stdout.print(shown)
    if out:
        try:
            table.to_csv(out, index=False)
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
        stdout.print(f"{out}: {len(table)} choices", soft_wrap=True)


@study.command()
@click.argument("name")
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@root_option
def report(name: str, png: bool, root: Path) -> None:
    """Write the study's HTML report anew."""
    from studies.report.report import write_report

    store = _store(root, name)
    store.fetch("samples.npy")
    store.fetch(only="reconstructions.npy")
    record = store.record()
    stdout.print(str(write_report(record)), soft_wrap=True)
    if png:
        write_figures(record)
