"""Print the result of a study on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from search_spaces.errors import UserError
from studies.cli.console import stderr, stdout
from studies.record.formats import MISSING, directions, noun
from studies.terminal.table import Column, Table

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
    stdout.print()
    stdout.say(f"report: {report}")


def print_study(record: StudyRecord) -> None:
    """Print the headline, the references, the front and the failed trials."""
    from studies.record.confirmed import shown_value
    from studies.record.floor_words import floor_rows
    from studies.record.rate import active_units
    from studies.record.tables import compared_members, spread, study_headline, study_notes

    stdout.print()
    stdout.say((record.name, "bold"), f": {study_headline(record).replace('`', '')}", wrap=True)
    stdout.print()
    for note in study_notes(record):
        stdout.say(note.replace("`", ""), style="dim", wrap=True)
        stdout.print()
    recorded = [Column(f"({noun(o)})", style="dim") for o in record.recorded]
    members = compared_members(record)
    shown = [*record.references.values(), *spread(members, _ROWS)]
    units = any(map(active_units, shown))
    if units:
        recorded.append(Column("(active units)", style="dim"))
    seeds = ["seeds"] if record.noise else []
    objectives = map(noun, record.objectives)
    table = Table(Column("model", text=True), *objectives, *seeds, *recorded)
    front = {trial.number for trial in record.front}
    columns = (*record.objectives, *record.recorded)
    for trial in shown:
        values = [shown_value(trial, one) for one in record.objectives]
        values += [f"{trial.metrics.get('seeds', 1):g}"] if record.noise else []
        values += [shown_value(trial, one) for one in record.recorded]
        values += [active_units(trial) or MISSING] if units else []
        mark = "*" if trial.number in front else "!" if record.unlearned(trial) else ""
        style = "cyan" if trial.reference else ""
        table.add(trial.name + mark, *values, style=style)
    for row in floor_rows(record, shown, columns):
        cells, after = list(row), 1 + len(record.objectives)
        cells[after:after] = [MISSING] if record.noise else []
        table.add(*cells, *([MISSING] if units else []), style="dim")
    stdout.table(table)
    stdout.say(_legend(record, bracketed=bool(recorded)), style="dim", wrap=True)
    if any(objective.direction == "maximise" for objective in record.objectives):
        stdout.say(directions(record.objectives), style="dim", wrap=True)
    stdout.print()
    if len(members) > _ROWS:
        stdout.say(
            f"{_ROWS} of the front's {len(members):,} architectures, evenly spread; for all of "
            f"them: nas study export {record.name}"
        )
        stdout.print()
    for trial in shown:
        stdout.say(f"{trial.name:9}{trial.architecture.summary}", style="dim")
    _print_failures([trial for trial in record.trials if trial.state == "failed"])


def _legend(record: StudyRecord, *, bracketed: bool) -> str:
    """Return the line that explains the signs of the table."""
    from studies.record.floor_words import fitted_words

    parts = ["* on the Pareto front"]
    if record.noise:
        parts.append("\N{PLUS-MINUS SIGN} half the 95 % interval")
    if any(record.unlearned(trial) for trial in record.references.values()):
        parts.append("! has not learned")
    if bracketed:
        parts.append("in brackets: recorded, but not an objective")
    return "; ".join([*parts, *filter(None, [fitted_words(record)])])


def print_damage(record: StudyRecord) -> None:
    """Print one line about the trials that the record leaves out because they are damaged."""
    from studies.record.tables import damage_note

    if damage := damage_note(record):
        line = f"{record.name}: {damage}"
        stderr.say(line, style="yellow")


def _print_failures(failed: Sequence[TrialRecord]) -> None:
    for trial in failed[:_ROWS]:
        stdout.say(f"{trial.name} failed: {trial.reason or ''}", style="yellow")
    if len(failed) > _ROWS:
        stdout.say(f"and {len(failed) - _ROWS:,} more failed", style="yellow")


def print_pngs(record: StudyRecord) -> None:
    """Write the figures as PNG into the study's folder; print the folder or the error."""
    from studies.report.report import write_report_pngs

    try:
        written = write_report_pngs(record, record.folder / "figures")
    except UserError as error:  # the report itself was written
        stderr.say(f"no PNGs: {error}", style="yellow")
        return
    stdout.say(f"figures: {record.folder / 'figures'} ({len(written)} PNGs)")
