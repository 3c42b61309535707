"""Find a trial that the user names as `STUDY#TRIAL`, its artefacts and its best weights."""

from __future__ import annotations

from pathlib import Path

from nas.artefacts import WEIGHTS
from search_spaces.errors import UserError, nearest
from studies.record.confirmed import best_weights
from studies.record.records import StudyRecord, TrialRecord
from studies.store.store import StudyStore


def find_trial(text: str, root: Path) -> tuple[StudyRecord, TrialRecord]:
    """Return the study and the trial that `STUDY#TRIAL` names, by number or reference.

    Raises:
        UserError: there is no such study or trial.
    """
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
    raise UserError(
        f"{study}#{number}: study {study!r} has trials 0 to {last} and no {number!r}"
        f"{nearest(number, record.references)}"
    )


def address(study: StudyRecord, trial: TrialRecord) -> str:
    """Return the text by which `find_trial` finds a trial: `STUDY#12`, `STUDY#original`."""
    return f"{study.name}#{trial.reference or trial.number}"


def artefacts_of(text: str, root: Path) -> Path:
    """Return the folder of artefacts of `STUDY#TRIAL`.

    Artefacts that stand in the study's artefact store only are copied to the folder first.

    Raises:
        UserError: there is no such study or trial.
    """
    record, trial = find_trial(text, root)
    StudyStore.open(root, record.name).fetch(trial.digest)
    return record.folder / "artefacts" / trial.digest


def best_weights_of(store: StudyStore, trial: TrialRecord) -> tuple[Path, str]:
    """Return the file of the weights with the lowest validation loss, and whose they are."""
    seed = best_weights(trial, "total_loss")
    if seed is not None:
        store.fetch_confirmed(trial.digest, seed)
    if seed is not None and (path := store.confirmed_weights(trial.digest, seed)).is_file():
        return path, f"of seed {seed}, which has the lowest validation loss"
    lowest = ", which has the lowest validation loss" if trial.runs and seed is None else ""
    return store.artefacts / trial.digest / WEIGHTS, f"of the search{lowest}"
