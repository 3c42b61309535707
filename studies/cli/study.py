"""`nas study`: run studies, show their results and export their models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

# Import neither torch nor a module that imports it: `run` has to set OMP_WAIT_POLICY first.
from search_spaces.errors import UserError, condensed
from studies.cli.best import best
from studies.cli.confirm import confirm
from studies.cli.console import stderr, stdout
from studies.cli.main import HelpfulGroup
from studies.cli.options import OutPath, Whole, root_option
from studies.cli.print_study import print_damage, print_pngs, print_study
from studies.cli.run import run
from studies.record.formats import noun
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
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


for command in (run, confirm, best):
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
@root_option
def list_(root: Path) -> None:
    """List the studies in the root folder with their hypervolumes."""
    from studies.store.store import list_studies

    names = list_studies(root)
    if not names:
        stdout.say(f"no studies in {root}; start one with: nas study run quickstart")
        return
    texts = [Column(head, text=True) for head in ("study", "space")]
    table = Table(*texts, "objectives", "complete", "front", "hypervolume")
    for name in names:
        try:
            record = _open(root, name)
        except UserError as error:
            for fault in condensed(str(error)).split("\n"):
                stderr.say(fault, style="yellow")
            continue
        table.add(
            name,
            record.space_name,
            str(len(record.objectives)),
            str(len(record.complete)),
            str(len(record.front)),
            f"{record.hypervolume(record.complete):.4f}",
        )
    stdout.table(table)


@study.command()
@click.argument("name")
@root_option
def show(name: str, root: Path) -> None:
    """Show a study's Pareto front, both references and failed trials."""
    print_study(_store(root, name).record())


@study.command()
@click.argument("name")
@click.option(
    "--format", "kind", type=click.Choice(["csv", "parquet", "json"]), default="csv",
    show_default=True, help="File format.",
)  # fmt: skip
@click.option("-o", "--out", type=OutPath(), help="File to write. Default: NAME.FORMAT.")
@root_option
def export(name: str, kind: str, out: Path | None, root: Path) -> None:
    """Write a table with one row per trial."""
    from studies.record.table_files import write_table
    from studies.record.tables import trials_table

    table = trials_table(_open(root, name))
    path = out or Path(f"{name}.{kind}")
    write_table(table, path, kind)
    stdout.say(f"{path}: {len(table)} trials, {len(table.columns)} columns")


@study.command()
@click.argument("name")
@click.option(
    "--axes",
    type=Whole(1),
    default=10,
    show_default=True,
    help="Number of axes to show.",
)
@click.option("-o", "--out", type=OutPath(), help="Also write the whole table as CSV.")
@root_option
def effects(name: str, axes: int, out: Path | None, root: Path) -> None:
    """Show how each choice of the space's axes changes each objective.

    The effect of a choice is its difference from the average choice of its axis. Effects that are
    not significant at 95 % are in brackets. Random trials estimate effects best, because a search
    prefers some choices.
    """
    from studies.record.axis_effects import effect_table, format_effect
    from studies.record.table_files import write_table

    record = _open(root, name)
    table = effect_table(record)
    if table.empty:
        raise UserError(
            f"study {name!r}: it has too few trials, or no axis with an effect on an objective"
        )
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
    if out:
        write_table(table, out, "csv")
        stdout.say(f"{out}: {len(table)} choices")


@study.command()
@click.argument("name")
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@root_option
def report(name: str, png: bool, root: Path) -> None:
    """Write the study's HTML report again."""
    from nas.artefacts import PICTURES
    from studies.report.report import write_report

    store = _store(root, name)
    store.fetch("samples.npy")
    store.fetch(only=PICTURES)
    record = store.record()
    stdout.say(str(write_report(record)))
    if png:
        print_pngs(record)
