"""What optuna-dashboard shows besides values: names, remarks and reconstructions."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from nas.artefacts import folder_or_refuse, write_or_refuse
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import study_headline
from studies.report.pictures import PictureRow, picture_rows
from studies.store.dashboard import Shown
from studies.store.store import StudyStore

FOLDER = "dashboard"
"""The folder in that of a study for `optuna-dashboard --artifact-dir`."""

_ORIGINALS = "0" * 12


def write_dashboard(store: StudyStore, study: StudyRecord) -> None:
    """Write notes and pictures of the references and of some members of the front.

    They are the trials whose reconstructions the report shows. Without pictures nothing is written.

    Raises:
        UserError: a picture cannot be written, or the storage cannot be reached.
    """
    rows = picture_rows(study)
    for row in rows:
        content = base64.b64decode(row.uri.partition(",")[2])
        write_or_refuse(folder_or_refuse(store.folder / FOLDER) / _file(row.trial), content)
    store.show_in_dashboard([_shown(study, row) for row in rows])


def _file(trial: TrialRecord | None) -> str:
    return trial.digest if trial else _ORIGINALS


def _shown(study: StudyRecord, row: PictureRow) -> Shown:
    trial = row.trial
    if trial is None:
        return Shown(None, "\n\n".join(_about(study)), _ORIGINALS, "images.png")
    kind = "a reference model" if trial.reference else "found"
    note = f"**{trial.name}**, {kind}: {trial.architecture.summary}"
    return Shown(trial.number, note, trial.digest, f"{trial.name.strip('#')}.png")


def _about(study: StudyRecord) -> Iterator[str]:
    yield study_headline(study)
    for name, trial in study.references.items():
        yield f"Trial {trial.number} is the reference model `{name}`."
    if any(one.cost != "static" for one in study.objectives):
        yield (
            "The values are those of the search. Latencies of the front that were measured again "
            "together, and losses with further seeds, are in the report and in "
            f"`nas study show {study.name}`."
        )
    yield "The picture has validation images; those of trials have their reconstructions."
