"""Studies that really run, with evaluators that take no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studies.config.study import StudyConfig
from studies.record.records import StudyRecord
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.store.store import StudyStore
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import EPOCHS, FakeEvaluator


def config(**changes: Any) -> StudyConfig:
    base: dict[str, Any] = {
        "name": "s",
        "space": "quickstart",
        "objectives": ["reconstruction_loss", "params"],
        "search": {"sampler": "random", "trials": 6},
    }
    return StudyConfig.model_validate({**base, **changes})


def stopping_config(**changes: Any) -> StudyConfig:
    """Return a study whose trainings may be stopped early."""
    search = {"sampler": "random", "trials": 20, "early_stopping": {}}
    return config(**{"search": search, "training": {"epochs": EPOCHS}, **changes})


def run(
    root: Path,
    asked: StudyConfig,
    evaluator: FakeEvaluator | None = None,
    storage: str | None = None,
) -> StudyRecord:
    space = asked.load_space()
    store = StudyStore(root / asked.name, storage)
    with store.writing():
        store.create(asked, space, ENVIRONMENT)
        return Runner(asked, space, store, Alone(evaluator or FakeEvaluator())).run()
