"""A study's record that grows trial by trial equals the record read at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies.record.records import StudyRecord
from tests.fakes.floors import floors
from tests.fakes.study import fake_study

RESULTS = Path(__file__).parents[1] / "studies" / "results"
DERIVED = ("complete", "front", "learned", "references", "searched")


def assert_same(grown: StudyRecord, whole: StudyRecord) -> None:
    assert grown == whole
    for name in DERIVED:
        assert getattr(grown, name) == getattr(whole, name), name
    assert list(grown.references) == list(whole.references)
    assert (grown.nadir == whole.nadir).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [None, 0.0, 0.4, 1.0])
def test_trials_may_end_in_any_order(tmp_path: Path, seed: int, share: float | None) -> None:
    whole = fake_study(tmp_path, seed=seed)
    if share is not None:  # of the models, which have learned
        losses = [trial.objectives["reconstruction_loss"] for trial in whole.complete]
        whole = replace(whole, floors=floors(float(np.quantile(losses, share))))
        assert len(whole.learned) == pytest.approx(share * len(losses), abs=1)
    grown = replace(whole, trials=())
    for place in np.random.default_rng(seed).permutation(len(whole.trials)):
        grown = grown.with_trial(whole.trials[place])
        # Read in between, so that the next step starts from what was known.
        assert_same(grown, replace(whole, trials=grown.trials))
    assert_same(grown, whole)


def test_a_stopped_trial_that_goes_on_counts_once(tmp_path: Path) -> None:
    whole = fake_study(tmp_path)
    last = whole.trials[-1]
    assert last.searched
    study = whole.with_trial(replace(last, state="stopped"))
    assert study.searched == whole.searched
    running = study.with_trial(replace(last, state="running"))
    assert running.searched == whole.searched - 1
    assert_same(running.with_trial(last), whole)


def test_the_record_it_grew_from_stays_as_it_was(tmp_path: Path) -> None:
    whole = fake_study(tmp_path)
    before = replace(whole, trials=whole.trials[1:])
    known = {name: getattr(before, name) for name in DERIVED}
    before.with_trial(whole.trials[0])
    assert {name: getattr(before, name) for name in DERIVED} == known


def test_a_trial_is_found_by_its_number(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    study = replace(study, trials=study.trials[::2])
    assert study.trial(4).number == 4
    for missing in (3, 1000):
        with pytest.raises(KeyError):
            study.trial(missing)


@pytest.mark.slow
def test_reading_a_study_needs_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from studies.store.store import StudyStore; "
        f"StudyStore.open(Path({str(RESULTS)!r}), 'flagship').record(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
