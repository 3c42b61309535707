"""Write the table of trained VAEs as a study, for the commands that read studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError
from studies.bench.vae import TabularEvaluator, VaeTable
from studies.config.study import StudyConfig
from studies.record.names import require_name
from studies.record.records import StudyRecord
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.run.watcher import Watcher
from studies.store.store import StudyStore


def replay(
    table: VaeTable, root: Path, name: str, progress: Callable[[int, int], None]
) -> StudyRecord:
    """Create a study of all members, as if they had been evaluated, and return its record.

    Args:
        table: The source of the findings.
        root: Folder of all studies.
        name: Name of the new study.
        progress: Called with (evaluated, all).

    Raises:
        UserError: The name is not valid for a study, the folder exists already, or it cannot be
            written.
    """
    folder = root / require_name(name, "--name")
    if folder.exists():
        raise UserError(f"{folder}: exists already; remove it, or choose another --name")
    protocol, tabulated = table.about["protocol"], table.table()
    members = len(tabulated.entries)
    config = StudyConfig.model_validate(
        {
            "name": name,
            "description": "Every member of the table, as it was trained and measured",
            "space": protocol["space"],
            "objectives": tabulated.objectives,
            "data": protocol["data"],
            "training": protocol["training"],
            "threads": protocol["threads"],
            "search": {"sampler": "enumerate", "trials": members},
        }
    )
    evaluate = TabularEvaluator(table, config.objectives)
    environment: dict[str, Any] = {
        **table.about["environment"],
        "data_fingerprint": "of the table",
        "original_latency_ms": table.anchor_ms,
    }
    store = StudyStore(folder)
    with store.writing():
        store.create(config, table.space, environment)
        watcher = _Counter(lambda study: progress(study.searched, members))
        return Runner(config, table.space, store, Alone(evaluate), watcher).run()


class _Counter(Watcher):
    """Calls a function with the study after every trial."""

    def __init__(self, call: Callable[[StudyRecord], None]) -> None:
        self._call = call

    def ended(self, number: int, study: StudyRecord) -> None:
        self._call(study)
