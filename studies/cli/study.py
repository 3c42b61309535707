"""`nas study`: run studies, show their results and export their models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

# Import neither torch nor a module that imports it: `run` has to set OMP_WAIT_POLICY first.
from search_spaces.errors import UserError, condensed
from studies.cli.best import best
from studies.cli.completion import study_argument
from studies.cli.confirm import confirm
from studies.cli.console import stderr, stdout
from studies.cli.formats import format_option, in_place_of_table, show
from studies.cli.main import HelpfulGroup
from studies.cli.manage import compare, delete, rename
from studies.cli.options import OutPath, Whole, root_option
from studies.cli.print_study import print_damage, print_pngs, print_study
from studies.cli.run import run
from studies.record.formats import noun
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    import pandas as pd

    from studies.record.records import StudyRecord
    from studies.store.store import StudyStore


class StudyGroup(HelpfulGroup):
    """The commands on studies, and the names that earlier versions gave them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; an earlier name is refused with the present one."""
        if args[0] == "retrain":
            raise UserError("nas study retrain is now: nas study confirm NAME")
        return super().resolve_command(ctx, args)


@click.group(cls=StudyGroup)
def study() -> None:
    """Run Pareto studies; show, compare and export their results."""


for command in (run, confirm, best, compare, delete, rename):
    study.add_command(command)


def _open(root: Path, name: str) -> StudyRecord:
    """Return the record of a study; print a line about damaged trials, which it leaves out."""
    record = _store(root, name).record()
    print_damage(record)
    return record


def _store(root: Path, name: str) -> StudyStore:
    from studies.store.store import StudyStore

    return StudyStore.open(root, name)


@study.command("list")
@format_option
@root_option
def list_(kind: str, root: Path) -> None:
    """List the studies in the root folder with their hypervolumes."""
    from studies.store.store import list_studies

    names = list_studies(root)
    if not names and kind == "table":
        stdout.say(f"no studies in {root}; start one with: nas study run quickstart")
        return
    rows = list(_listed(root, names))
    show(kind, rows, lambda: _print_list(rows))


def _listed(root: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per study; print a line about a study that cannot be read."""
    for name in names:
        try:
            record = _open(root, name)
        except UserError as error:
            for fault in condensed(str(error)).split("\n"):
                stderr.say(fault, style="yellow")
            continue
        yield {
            "study": name,
            "space": record.space_name,
            "objectives": len(record.objectives),
            "complete": len(record.complete),
            "front": len(record.front),
            "hypervolume": record.hypervolume(record.complete),
        }


def _print_list(rows: list[dict[str, Any]]) -> None:
    texts = [Column(head, text=True) for head in ("study", "space")]
    table = Table(*texts, "objectives", "complete", "front", "hypervolume")
    for row in rows:
        *cells, volume = row.values()
        table.add(*map(str, cells), f"{volume:.4f}")
    stdout.table(table)


@study.command("show")
@study_argument
@format_option
@root_option
def show_(name: str, kind: str, root: Path) -> None:
    """Show a study's Pareto front, both references and failed trials.

    As CSV or JSON these are the references and all members of the front.
    """
    from studies.record.tables import front_rows

    record = _store(root, name).record()
    if kind != "table":
        print_damage(record)
    show(kind, front_rows(record), lambda: print_study(record))


@study.command()
@study_argument
@click.option(
    "--format", "kind", type=click.Choice(["csv", "parquet", "json"]), default="csv",
    show_default=True, help="File format.",
)  # fmt: skip
@click.option(
    "-o", "--out", type=OutPath(dash=True),
    help="File to write, or - for standard output. Default: NAME.FORMAT.",
)  # fmt: skip
@root_option
def export(name: str, kind: str, out: Path | None, root: Path) -> None:
    """Write a table with one row per trial."""
    from studies.record.table_files import STDOUT, write_table
    from studies.record.tables import trials_table

    table = trials_table(_open(root, name))
    path = out or Path(f"{name}.{kind}")
    write_table(table, path, kind)
    if path != STDOUT:
        stdout.say(f"{path}: {len(table)} trials, {len(table.columns)} columns")


@study.command()
@study_argument
@click.option(
    "--axes",
    type=Whole(1),
    default=10,
    show_default=True,
    help="Number of axes to show.",
)
@format_option
@click.option(
    "-o", "--out", type=OutPath(dash=True),
    help="Also write the whole table as CSV; - prints it in place of the table.",
)  # fmt: skip
@root_option
def effects(name: str, axes: int, kind: str, out: Path | None, root: Path) -> None:
    """Show how each choice of the space's axes changes each objective.

    The effect of a choice is its difference from the average choice of its axis. Effects that are
    not significant at 95 % are in brackets. Random trials estimate effects best, because a search
    prefers some choices. CSV and JSON have all axes, and the bounds of each interval.
    """
    from studies.record.axis_effects import effect_table
    from studies.record.table_files import write_table

    record = _open(root, name)
    table = effect_table(record)
    if table.empty:
        raise UserError(
            f"study {name!r}: it has too few trials, or no axis with an effect on an objective"
        )
    kind, out = in_place_of_table(kind, out)
    show(kind, table, lambda: _print_effects(record, table, axes))
    if out:
        write_table(table, out, "csv")
        (stdout if kind == "table" else stderr).say(f"{out}: {len(table)} choices")


def _print_effects(record: StudyRecord, table: pd.DataFrame, axes: int) -> None:
    from studies.record.axis_effects import format_effect

    objectives = [one for one in record.objectives if one.name in table]
    heads = ("trials", *(noun(one).split()[-1] for one in objectives))
    shown = Table(Column("axis, choice", text=True), *heads)
    before = None
    for row in table[table["axis"].isin(table["axis"].unique()[:axes])].to_dict("records"):
        if row["axis"] != before:
            shown.add(str(row["axis"]), style="bold")
        cells = [format_effect(row, one.name).replace(" %", "%") for one in objectives]
        shown.add(f"  {row['choice']}", str(row["trials"]), *cells)
        before = row["axis"]
    stdout.table(shown)


@study.command()
@study_argument
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@click.option(
    "-o", "--out", type=OutPath(dir_okay=False, dash=True),
    help="HTML file to write, or - for standard output. Default: report.html in the study's "
    "folder.",
)  # fmt: skip
@root_option
def report(name: str, png: bool, out: Path | None, root: Path) -> None:
    """Write the study's HTML report again."""
    from nas.artefacts import PICTURES
    from studies.record.table_files import STDOUT
    from studies.report.report import write_report

    store = _store(root, name)
    store.fetch("samples.npy")
    store.fetch(only=PICTURES)
    record = store.record()
    if (path := write_report(record, out)) != STDOUT:
        stdout.say(str(path))
    if png:
        print_pngs(record)
