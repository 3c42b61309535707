"""Options, progress output and look-ups that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search_spaces.architecture import Architecture
from search_spaces.errors import UserError, nearest

if TYPE_CHECKING:
    from studies.record.records import StudyRecord, TrialRecord

ROOT = Path("nas-studies")

root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT,
    envvar="NAS_STUDIES",
    show_default=True,
    help="Folder that holds the studies (or set NAS_STUDIES).",
)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; elsewhere print one line a minute.

    Yields a function that takes the number of steps done and the total number of steps.
    """
    from studies.cli.console import stderr
    from studies.terminal.progress import animated, spoken

    with (animated if stderr.live else spoken)(stderr, label) as progress:
        yield progress


def print_how_to_resume() -> None:
    """Print, after an interruption, the command that resumes the work."""
    import shlex
    import sys

    from studies.cli.console import stderr
    from studies.storage.addresses import masked

    again = shlex.join(["nas", *map(masked, sys.argv[1:])])
    stderr.say(f"interrupted; finished work is saved. The same command resumes: {again}")


def find_architecture(text: str, root: Path) -> Architecture:
    """Return the architecture that the user names.

    `text` is a reference (`original`, `modified`, also `original@64` for another image size), a
    JSON or YAML file, or a study's trial as `STUDY#TRIAL`.

    Raises:
        UserError: `text` names no architecture; the message suggests the nearest reference.
    """
    from search_spaces.references import REFERENCES

    name, _, size = text.partition("@")
    if name in REFERENCES and (not size or size.isdigit()):
        found = REFERENCES[name]
        return found.resized(int(size)) if size else found
    if Path(text).suffix in {".json", ".yaml", ".yml"}:
        return Architecture.load(Path(text))
    if "#" in text:
        return _find_trial(text, root)[1].architecture
    raise UserError(
        f"{text!r} is not an architecture: give a reference ({', '.join(REFERENCES)}; original@64 "
        f"for 64 pixels), a JSON or YAML file, or STUDY#TRIAL{nearest(name, REFERENCES)}"
    )


def find_artefacts(text: str, root: Path) -> Path | None:
    """Return the folder of artefacts of `STUDY#TRIAL`; None if `text` names no trial.

    Artefacts that stand in the study's artefact store only are copied to the folder first.
    """
    if "#" not in text or Path(text).suffix in {".json", ".yaml", ".yml"}:
        return None
    from studies.store.store import StudyStore

    record, trial = _find_trial(text, root)
    StudyStore.open(root, record.name).fetch(trial.digest)
    return record.folder / "artefacts" / trial.digest


def _find_trial(text: str, root: Path) -> tuple[StudyRecord, TrialRecord]:
    from studies.store.store import StudyStore

    study, _, number = text.rpartition("#")
    record = StudyStore.open(root, study).record()
    for trial in record.trials:
        if number in (str(trial.number), trial.reference):
            return record, trial
    if record.damaged:
        raise UserError(f"{study}#{number}: no intact trial: {record.damaged[0]}")
    if not record.trials:
        raise UserError(f"{study}#{number}: study {study!r} has no trials yet")
    last = max(trial.number for trial in record.trials)
    raise UserError(f"{study}#{number}: study {study!r} has trials 0 to {last} and no {number!r}")
