"""What the committed studies say is so: costs counted again, claims made again from their data."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.evaluate import static_costs
from search_spaces.references import REFERENCES
from studies.store import StudyStore, list_studies
from studies.tables import notes

ROOT = Path(__file__).parent.parent / "studies" / "results"


@pytest.mark.parametrize("name", list_studies(ROOT))
def test_costs_of_a_committed_study_are_those_of_its_architectures(name: str) -> None:
    record = StudyStore.open(ROOT, name).record()
    assert set(record.references) == set(REFERENCES)
    members = [trial for trial in record.front if not trial.reference]
    for trial in (*record.references.values(), *members[:4]):
        counted = static_costs(trial.architecture)
        assert trial.objectives["params"] == counted["params"]
        assert trial.objectives["macs"] == counted["macs"]


def test_architectures_beat_modified_in_everything_and_original_in_costs() -> None:
    record = StudyStore.open(ROOT, "surpass").record()
    original, modified = (record.references[name].objectives for name in ("original", "modified"))
    winners = [
        trial
        for trial in record.complete
        if not trial.reference
        and trial.objectives["reconstruction_loss"] < modified["reconstruction_loss"]
        and trial.objectives["params"] * 10 <= min(original["params"], modified["params"])
        and trial.objectives["macs"] * 5 <= original["macs"]
        and trial.objectives["latency_ms"] * 3 <= original["latency_ms"]
    ]
    assert {46, 49} <= {trial.number for trial in winners}


def test_that_original_did_not_learn_is_told() -> None:
    record = StudyStore.open(ROOT, "surpass").record()
    assert any("`original` went astray" in note for note in notes(record))
