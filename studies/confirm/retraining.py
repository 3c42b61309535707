"""Train chosen models with a budget of its own, as many as are missing in the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from nas.artefacts import CHECKPOINT, folder_or_refuse, full_disk_refused, write_or_refuse
from nas.checkpoint import save_weights
from nas.datasets import ImageDataset
from nas.evaluate import history_row, npy, shown_images, write_pictures
from nas.objectives import trained_objectives
from nas.own.objectives import judges
from nas.protocol import TrainingConfig, evaluate
from nas.training import CandidateFailed, Trainer
from profiling.environment import threads
from profiling.lane import Lane
from search_spaces.errors import UserError
from studies.confirm.candidates import asked_for, require_training
from studies.confirm.results import Results, TrainingRun
from studies.record.comparison import ranked
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import front_found


def chosen(
    study: StudyRecord, top: int, numbers: Sequence[int] = (), names: Sequence[str] = ()
) -> list[TrialRecord]:
    """Return the models to train: references, then the trials of `numbers` or the best ones.

    Args:
        study: The study.
        top: Number of front members to return where `numbers` is empty. Those come first that are
            better than the first reference in most objectives and by the largest factor.
        numbers: Numbers of complete trials; without any, the best members of the front.
        names: Names of references; without any, all references.

    Raises:
        UserError: a number names no complete trial, or the study trains nothing.
    """
    require_training(study)
    yardsticks = list(study.references.values())
    references = [one for name, one in study.references.items() if not names or name in names]
    if not numbers:
        members = list(front_found(study))
        return references + (ranked(study, members, yardsticks[0]) if yardsticks else members)[:top]
    return references + asked_for(study, numbers)


def retrain(
    results: Results,
    trials: Sequence[TrialRecord],
    seeds: Sequence[int],
    dataset: ImageDataset,
    device: torch.device,
    thread_count: int,
    begun: Callable[[TrialRecord, TrainingConfig], Callable[[int, int], None]],
    ended: Callable[[TrialRecord, TrainingRun], None],
) -> None:
    """Train all missing runs; an interrupted training resumes from its last epoch.

    All models are trained with the first seed, at all learning rates, before any is trained with
    the next seed.

    Args:
        results: The finished runs; new ones are added.
        trials: The models.
        seeds: Seeds, the first one first.
        dataset: Images at the models' size.
        device: Device of the trainings.
        thread_count: Threads of a training.
        begun: Called when a training starts; returns a callback for (done, total) batches of all
            epochs.
        ended: Called with each finished run.

    Raises:
        UserError: a training diverged or ran out of memory, or a file cannot be written.
    """
    lane = Lane(str(device))
    with results.alone():
        shown = results.folder / "artefacts" / "samples.npy"
        folder_or_refuse(shown.parent)
        write_or_refuse(shown, npy(shown_images(dataset)))
        for earlier in results.runs:  # whose process may have died before it removed it
            _remove_checkpoint(results, earlier)
        for trial, config in _missing(results, trials, seeds):
            report = begun(trial, config)
            training = _Training(trial, config, dataset, device, results, lane)
            with full_disk_refused(results.folder), threads(thread_count), lane.training():
                try:
                    run = training.run(report)
                except CandidateFailed as failure:
                    raise UserError(
                        f"{trial.name}, seed {config.seed}, learning rate "
                        f"{config.learning_rate:g}: {failure}; the finished runs are kept: choose "
                        "other models with --trial, or change the budget"
                    ) from None
                results.add(run)
            _remove_checkpoint(results, run)
            ended(trial, run)


def _missing(
    results: Results, trials: Sequence[TrialRecord], seeds: Sequence[int]
) -> Iterator[tuple[TrialRecord, TrainingConfig]]:
    """Yield the missing runs in order; seeds after the first use the best learning rate."""
    for seed in seeds:
        for trial in trials:
            for rate in results.rates(trial.digest, seed):
                if not results.find(trial.digest, seed, rate):
                    changed = {"seed": seed, "learning_rate": rate}
                    yield trial, results.budget.training.model_copy(update=changed)


@dataclass
class _Training:
    trial: TrialRecord
    config: TrainingConfig
    dataset: ImageDataset
    device: torch.device
    results: Results
    lane: Lane

    def run(self, report: Callable[[int, int], None]) -> TrainingRun:
        """Train, evaluate, save the weights, and the images of the best first-seed run."""
        home = self.results.folder
        own = judges(trained_objectives(self.trial.objectives))
        trainer = Trainer(
            self.trial.architecture, self.dataset, self.config, self.device, judges=own
        )

        def at_batch(done: int, total: int) -> None:
            self.lane.enter()
            report(len(trainer.history) * total + done, self.config.epochs * total)

        seed, rate = self.config.seed, self.config.learning_rate
        checkpoint = home / _checkpoint(self.trial.digest, seed, rate)
        for _ in trainer.epochs(checkpoint, at_batch):
            pass
        model = trainer.best_model()
        test = evaluate(model, self.dataset, self.dataset.test, self.config, judges=own)
        folder = home / "artefacts" / self.trial.digest
        folder_or_refuse(folder)
        save_weights(model, folder / f"weights-{seed}-{rate:g}.safetensors")
        wanted = trained_objectives(self.trial.objectives)
        history = [history_row(result, wanted) for result in trainer.history]
        run = TrainingRun(self.trial.digest, seed, rate, trainer.best.epoch, test.values, history)
        if self.results.leads(run):
            write_pictures(model, self.dataset, folder)
        return run


def _checkpoint(digest: str, seed: int, rate: float) -> str:
    return f"{digest}-{seed}-{rate:g}.{CHECKPOINT}"


def _remove_checkpoint(results: Results, run: TrainingRun) -> None:
    name = _checkpoint(run.digest, run.seed, run.learning_rate)
    (results.folder / name).unlink(missing_ok=True)
