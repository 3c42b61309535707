"""The trainings of a stage: each is recorded as soon as it is finished, and can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nas.artefacts import full_disk_refused
from nas.checkpoint import load_vae, save_weights
from nas.compress.distillation import Guidance
from nas.datasets import ImageDataset
from nas.own.objectives import Judge, judges
from nas.protocol import TrainingConfig, evaluate
from nas.training import CandidateFailed, Trainer, out_of_memory_as_failure
from nas.vae import VAE
from profiling.environment import threads
from profiling.lane import Lane
from search_spaces.errors import UserError
from studies.compress.folder import StageFolder
from studies.config.study import StudyConfig
from studies.confirm.evaluator import renamed
from studies.record.compressed import Training
from studies.record.formats import format_duration
from studies.record.records import StudyRecord, TrialRecord
from studies.run.evaluators import ProgressBar


@dataclass(frozen=True)
class Setting:
    """What the stages of one compression have in common.

    Attributes:
        study: The study.
        trial: The trial whose model is compressed.
        weights: File of its trained weights.
        config: The study's configuration.
        dataset: Its images.
        device: Device of trainings and measurements.
        thread_count: Threads of a training.
        epochs: Largest number of epochs of a training.
        seeds: Seeds of the trainings.
        anchors_ms: Latency of `original` in each set-up of the study, in ms.
        say: Prints a line.
        progress_bar: Makes a progress bar from a label.
    """

    study: StudyRecord
    trial: TrialRecord
    weights: Path
    config: StudyConfig
    dataset: ImageDataset
    device: torch.device
    thread_count: int
    epochs: int
    seeds: tuple[int, ...]
    anchors_ms: Mapping[str, float]
    say: Callable[[str], None]
    progress_bar: ProgressBar

    def training(self, seed: int, epochs: int | None = None) -> TrainingConfig:
        """Return the study's training with a seed and another number of epochs."""
        changes = {"seed": seed, "epochs": epochs or self.epochs}
        return self.config.training.model_copy(update=changes)

    @property
    def common(self) -> dict[str, object]:
        """What the result of every stage depends on, as plain JSON types."""
        training = self.config.training.model_dump(mode="json", exclude={"epochs", "seed"})
        return {
            "epochs": self.epochs,
            "training": training,
            "data_fingerprint": self.dataset.fingerprint,
            "images": {part: len(getattr(self.dataset, part)) for part in ("train", "validation")},
            "device": self.device.type,
        }

    @property
    def judges(self) -> Mapping[str, Judge]:
        """The user's own objectives that are judged on images and reconstructions."""
        return judges(self.config.wanted)

    def source(self) -> Training:
        """Evaluate the trained model; the record of the search says how long it was trained."""
        trial = self.trial
        judged = self.judged(load_vae(self.weights), "source", self.config.training.seed)
        return judged.model_copy(
            update={
                "epochs": self.config.training.epochs,
                "trained": len(trial.history),
                "duration_s": trial.findings.timings_s.get("training", 0.0),
            }
        )

    def judged(self, model: VAE, role: str, seed: int) -> Training:
        """Evaluate a model that is not trained here, on the validation and test images."""
        config, data, lane = self.training(seed), self.dataset, Lane(str(self.device))
        model = model.to(self.device)
        with (
            out_of_memory_as_failure("evaluating it", self.device),
            lane.training(),
            threads(self.thread_count),
        ):
            found = [
                renamed(
                    evaluate(model, data, part, config, lambda *_: lane.enter(), self.judges).values
                )
                for part in (data.validation, data.test)
                if len(part)
            ]
        return Training(role=role, seed=seed, validation=found[0], test=(*found, {}, {})[1])


def train(
    setting: Setting,
    folder: StageFolder,
    role: str,
    config: TrainingConfig,
    start: Mapping[str, Tensor] | None = None,
    guidance: Guidance | None = None,
) -> Training:
    """Do a training unless it is recorded, and record it.

    An interrupted training resumes from its last epoch. Weights are kept of the result only.

    Args:
        setting: What all stages have in common.
        folder: The stage.
        role: The role of the training in it.
        config: The training settings, with seed and epochs.
        start: Weights to start from.
        guidance: A further term of the loss.

    Raises:
        UserError: the training diverged or ran out of memory, or a file cannot be written.
    """
    checkpoint = folder.checkpoint(role, config.seed)
    found = folder.stage.find(role, config.seed)
    if found is None:
        with full_disk_refused(folder.path):
            found = _trained(setting, folder, role, config, start, guidance)
        loss = setting.study.trained[0].name
        setting.say(
            f"{folder.stage.title}: {folder.stage.words.roles[role]}, seed {config.seed}: "
            f"{loss} {found.validation[loss]:.4f} after {found.trained} epochs, "
            f"{format_duration(found.duration_s)}"
        )
    checkpoint.unlink(missing_ok=True)  # its process may have died before it removed it
    return found


def _trained(
    setting: Setting,
    folder: StageFolder,
    role: str,
    config: TrainingConfig,
    start: Mapping[str, Tensor] | None,
    guidance: Guidance | None,
) -> Training:
    stage, lane, data = folder.stage, Lane(str(setting.device)), setting.dataset
    label = f"{stage.words.roles[role].partition(',')[0]}, seed {config.seed}, epochs"
    with (
        _failure_refused(f"{stage.title}, {role}, seed {config.seed}"),
        setting.progress_bar(label) as progress,
        threads(setting.thread_count),
        lane.training(),
    ):
        trainer = Trainer(
            stage.architecture,
            data,
            config,
            setting.device,
            start=start,
            guidance=guidance,
            judges=setting.judges,
        )

        def at_batch(done: int, total: int) -> None:
            lane.enter()
            progress(len(trainer.history) * total + done, config.epochs * total)

        for _ in trainer.epochs(folder.checkpoint(role, config.seed), at_batch):
            pass
    model = trainer.best_model()
    if role == stage.words.result:
        save_weights(model, folder.weights(role, config.seed))
    judged = setting.judged(model, role, config.seed)
    training = judged.model_copy(
        update={
            "epochs": config.epochs,
            "trained": len(trainer.history),
            "best_epoch": trainer.best.epoch,
            "duration_s": sum(epoch.duration_s for epoch in trainer.history),
            "validation": renamed(trainer.best.validation.values),
        }
    )
    folder.add(training)
    return training


@contextmanager
def _failure_refused(what: str) -> Iterator[None]:
    try:
        yield
    except CandidateFailed as failure:
        raise UserError(
            f"{what}: {failure}; finished trainings are kept: choose another model or teacher, or "
            "prune less"
        ) from None
