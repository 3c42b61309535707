"""The folder of one stage: its record, its checkpoints and its models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.artefacts import CHECKPOINT, WEIGHTS, folder_or_refuse, write_or_refuse
from profiling.files import sweep
from search_spaces.errors import UserError
from studies.record.compressed import FOLDER, RECORD, Costs, Stage, Training, read_stage
from studies.record.model_files import model_files


def stage_name(trial: int, kind: str, settings: Mapping[str, Any]) -> str:
    """Return the name of a stage's folder, which depends on all that its result depends on."""
    text = json.dumps(settings, sort_keys=True)
    return f"{trial}-{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class StageFolder:
    """The folder of one stage, which is created.

    Args:
        study: The study's folder.
        stage: The stage as asked for; its record is read if there is one.

    Raises:
        UserError: the record is damaged or of other settings, or the folder cannot be written.
    """

    def __init__(self, study: Path, stage: Stage) -> None:
        self.path = folder_or_refuse(study / FOLDER / stage.name)
        sweep(self.path)
        self.stage = stage
        if (self.path / RECORD).exists():
            self.stage = read_stage(self.path / RECORD)
            if self.stage.settings != stage.settings:
                raise UserError(
                    f"{self.path / RECORD}: is of other settings than its name says; remove its "
                    "folder to begin the stage again"
                )

    @property
    def begun(self) -> bool:
        """Whether its record is written, which has the costs."""
        return (self.path / RECORD).exists()

    def begin(
        self,
        source: Costs,
        costs: Costs,
        *evaluated: Training,
        others: Mapping[str, Costs] | None = None,
    ) -> None:
        """Write the record with the costs and the models that are only evaluated."""
        changes = {"source": source, "costs": costs, "trainings": evaluated}
        self._write(self.stage.model_copy(update={**changes, "others": dict(others or {})}))

    def add(self, *finished: Training) -> None:
        """Add finished trainings to the record."""
        trainings = (*self.stage.trainings, *finished)
        self._write(self.stage.model_copy(update={"trainings": trainings}))

    def weights(self, role: str, seed: int) -> Path:
        """Return the path of the weights of a training."""
        return self.path / f"{role}-{seed}.safetensors"

    def checkpoint(self, role: str, seed: int) -> Path:
        """Return the path of the state of an unfinished training."""
        return self.path / f"{role}-{seed}.{CHECKPOINT}"

    def publish(self, study: str) -> Path:
        """Write the best model of the result as `nas study best` does; return the folder.

        Args:
            study: The study's name.
        """
        stage, best = self.stage, self.stage.best
        result = {
            "study": study,
            "trial": stage.trial,
            "digest": stage.architecture.digest,
            "stage": stage.title,
            "seed": best.seed,
            "objectives": {**stage.costs.values, **best.validation},
            "on_test": dict(best.test),
            **({"variant": stage.settings["variant"]} if best.lowered else {}),
        }
        files = model_files(stage.architecture, result)
        files[WEIGHTS] = self.weights(best.role, best.seed).read_bytes()
        for name, content in files.items():
            write_or_refuse(self.path / name, content)
        return self.path

    def _write(self, stage: Stage) -> None:
        text = stage.model_dump_json(indent=1) + "\n"
        write_or_refuse(self.path / RECORD, text.encode())
        self.stage = stage
