"""Print the result of a study on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from search_spaces.errors import UserError
from studies.cli.console import stderr, stdout
from studies.record.formats import format_value, noun

if TYPE_CHECKING:
    from studies.record.records import StudyRecord, TrialRecord

_ROWS = 40
"""Maximum number of architectures printed, and of failures."""


def conclude(record: StudyRecord, png: bool) -> None:
    """Print the result and write the report; with `png`, also write its figures as PNG."""
    from studies.report.report import write_report

    print_study(record)
    report = write_report(record)
    if png:
        print_pngs(record)
    stdout.print(f"\nreport: {report}", soft_wrap=True)


def print_study(record: StudyRecord) -> None:
    """Print the headline, the references, the front and the failed trials."""
    from studies.record.tables import compared_members, spread, study_headline, study_notes

    stdout.print(
        f"\n[bold]{escape(record.name)}[/bold]: {escape(study_headline(record).replace('`', ''))}\n"
    )
    for note in study_notes(record):
        stdout.print(escape(note.replace("`", "")) + "\n", style="dim", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("model", no_wrap=True)
    for objective in record.objectives:
        table.add_column(noun(objective), justify="right", min_width=9)
    for objective in record.recorded:
        table.add_column(f"({noun(objective)})", justify="right", min_width=9, style="dim")
    members = compared_members(record)
    shown = [*record.references.values(), *spread(members, _ROWS)]
    front = {trial.number for trial in record.front}
    for trial in shown:
        columns = (*record.objectives, *record.recorded)
        values = [format_value(o, trial.objectives[o.name]) for o in columns]
        mark = "*" if trial.number in front else ""
        style = "cyan" if trial.reference else ""
        table.add_row(trial.name + mark, *values, style=style)
    stdout.print(table)
    beside = "; in brackets: recorded, but not an objective" if record.recorded else ""
    stdout.print(f"[dim]* on the Pareto front{beside}[/dim]\n")
    if len(members) > _ROWS:
        stdout.print(
            f"{_ROWS} of the front's {len(members):,} architectures, evenly spread; for all of "
            f"them: nas study export {escape(record.name)}\n"
        )
    for trial in shown:
        stdout.print(f"{trial.name:9}{trial.architecture.summary}", style="dim", soft_wrap=True)
    _print_failures([trial for trial in record.trials if trial.state == "failed"])


def print_damage(record: StudyRecord) -> None:
    """Print one line about the trials that the record leaves out because they are damaged."""
    from studies.record.tables import damage_note

    if damage := damage_note(record):
        line = f"{record.name}: {damage}"
        stderr.print(line, style="yellow", markup=False, soft_wrap=True)


def _print_failures(failed: Sequence[TrialRecord]) -> None:
    for trial in failed[:_ROWS]:
        stdout.print(f"[yellow]{trial.name} failed: {escape(trial.reason or '')}[/yellow]")
    if len(failed) > _ROWS:
        stdout.print(f"[yellow]and {len(failed) - _ROWS:,} more failed[/yellow]")


def print_pngs(record: StudyRecord) -> None:
    """Write the figures as PNG into the study's folder; print the folder or the error."""
    from studies.report.report import write_report_pngs

    try:
        written = write_report_pngs(record, record.folder / "figures")
    except UserError as error:  # the report itself was written
        stderr.print(f"[yellow]no PNGs: {escape(str(error))}[/yellow]")
        return
    stdout.print(f"figures: {record.folder / 'figures'} ({len(written)} PNGs)", soft_wrap=True)
