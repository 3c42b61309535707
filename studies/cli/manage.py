"""`nas study delete`, `rename` and `compare`: whole studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search_spaces.errors import UserError
from studies.cli.completion import STUDIES, study_argument
from studies.cli.console import stderr, stdout
from studies.cli.formats import format_option, show
from studies.cli.options import root_option
from studies.cli.print_study import print_damage
from studies.record.formats import MISSING, format_value, noun
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    from studies.library.pair import StudyPair
    from studies.record.records import StudyRecord


@click.command()
@study_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@root_option
def delete(name: str, yes: bool, root: Path) -> None:
    """Delete a study: its folder and its entry in the storage.

    A study that is being run is refused. Copies in a store of artefacts are kept.
    """
    from studies.store.administration import delete_study
    from studies.store.store import StudyStore

    folder = StudyStore.open(root, name).folder
    if not yes:
        try:
            click.confirm(f"delete study {name} with all its models ({folder})?", abort=True)
        except click.Abort:
            raise UserError(f"study {name!r}: not confirmed, nothing was deleted") from None
    delete_study(root, name)
    stdout.say(f"{name}: deleted")


@click.command()
@click.argument("old", shell_complete=STUDIES)
@click.argument("new")
@root_option
def rename(old: str, new: str, root: Path) -> None:
    """Rename the study OLD to NEW: its folder and its entry in the storage.

    A study that is being run is refused.
    """
    from studies.store.administration import rename_study

    rename_study(root, old, new)
    stdout.say(f"{old}: is now {new}")
    if (root / new / "report.html").exists():
        stderr.say(f"its report has the earlier name until: nas study report {new}", style="dim")


@click.command()
@click.argument("a", shell_complete=STUDIES)
@click.argument("b", shell_complete=STUDIES)
@format_option
@root_option
def compare(a: str, b: str, kind: str, root: Path) -> None:
    """Compare two studies: settings, fronts, hypervolumes and the best values.

    Fronts and hypervolumes are those in the objectives that both have and whose values can be
    compared. The reference point of both hypervolumes is the worst reference model of the two.
    """
    from studies.library.pair import compare_studies

    if a == b:
        raise UserError(f"compare: {a!r} is named twice; name two studies")
    pair = compare_studies(_record(root, a), _record(root, b))
    for name, reason in pair.excluded.items():
        stderr.say(f"{name}: not compared, {reason}", style="yellow", wrap=True)
    show(kind, _rows(pair), lambda: _print(pair))


def _record(root: Path, name: str) -> StudyRecord:
    from studies.store.store import StudyStore

    record = StudyStore.open(root, name).record()
    print_damage(record)
    return record


def _rows(pair: StudyPair) -> Iterator[dict[str, Any]]:
    """Yield a row per value: what it is, and the value in each study."""
    names = [one.name for one in pair.both]

    def row(what: str, *values: Any) -> dict[str, Any]:
        return {"what": what, **dict(zip(names, values, strict=True))}

    for key, ours, theirs in pair.settings:
        yield row(key, *(None if one is None else str(one) for one in (ours, theirs)))
    yield row("complete trials", *(len(one.complete) for one in pair.both))
    yield row("front", *(len(one.front) for one in pair.both))
    yield row("front of both", *map(len, pair.joint_front()))
    yield row("hypervolume", *pair.hypervolumes)
    for objective in pair.objectives:
        yield row(f"best {objective.name}", *pair.best(objective))


def _print(pair: StudyPair) -> None:
    heads = [one.name for one in pair.both]
    settings = Table(*(Column(head, text=True) for head in ("setting", *heads)))
    for key, *values in pair.settings:
        settings.add(key, *(MISSING if one is None else str(one) for one in values))
    joint = pair.joint_front()
    results = Table(Column("result", text=True), *heads)
    results.add("complete trials", *(f"{len(one.complete):,}" for one in pair.both))
    results.add("front", *(f"{len(one.front):,}" for one in pair.both))
    results.add("front of both", *(f"{len(part):,}" for part in joint))
    results.add("hypervolume", *(f"{volume:.4f}" for volume in pair.hypervolumes))
    for one in pair.objectives:
        results.add(f"best {noun(one)}", *(format_value(one, value) for value in pair.best(one)))
    fronts = Table(Column("front", text=True), *map(noun, pair.objectives))
    for study, part in zip(pair.both, joint, strict=True):
        for trial in study.front:
            values = [format_value(o, trial.objectives[o.name]) for o in pair.objectives]
            fronts.add(f"{study.name} {trial.name}{'*' * (trial in part)}", *values)
    for table in ([settings] if pair.settings else []) + [results, fronts]:
        stdout.table(table)
        stdout.print()
    stdout.say("* on the front of both: no model of the other study dominates it", style="dim")
