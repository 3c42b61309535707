"""Models of a front trained once more: several seeds, a larger budget, judged on the test images.

A search trains each candidate once, briefly, and the validation images choose: its winners are
partly the lucky ones. What is retrained here is a study record of its own, in the folder
`retrained` of the study: its reconstruction loss is the mean of the seeds on images that decided
nothing, with the lowest and the highest seed as its interval. Costs are those of the study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from nas.artefacts import full_disk_refused, write_whole
from nas.checkpoint import save_weights
from nas.datasets import DataConfig, ImageDataset
from nas.evaluate import history_row, npy, reconstructions, shown_images
from nas.protocol import TrainingConfig, evaluate
from nas.training import CandidateFailed, Trainer
from profiling.environment import threads
from profiling.lane import Lane
from search_spaces.errors import UserError
from studies.comparison import ranked
from studies.records import StudyRecord, TrialRecord
from studies.tables import front_found

FOLDER = "retrained"
_LOSS = "reconstruction_loss"


@dataclass(frozen=True)
class Budget:
    """What every model gets; `training.seed` is the first of the seeds."""

    data: DataConfig
    training: TrainingConfig

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {name: part.model_dump(mode="json") for name, part in vars(self).items()}


@dataclass(frozen=True)
class Run:
    """One training of one model.

    Attributes:
        seed: Of weights, order of images and noise.
        best_epoch: Epoch of the lowest validation loss, whose weights were judged.
        test: Means over the test images: `nas.protocol.Quality`.
        history: As a trial's.
    """

    digest: str
    seed: int
    best_epoch: int
    test: Mapping[str, float]
    history: Sequence[Mapping[str, float]]

    @property
    def duration_s(self) -> float:
        """Seconds of training and validation."""
        return sum(epoch["duration_s"] for epoch in self.history)


class Results:
    """The finished runs of a study, in a file; all of them had the same budget and images.

    Raises:
        UserError: the file holds runs of another budget or other images, or is damaged.
    """

    def __init__(self, study: StudyRecord, budget: Budget, facts: Mapping[str, Any]) -> None:
        self.budget, self.folder = budget, study.folder / FOLDER
        self._path = self.folder / "results.json"
        self._made_with = {**budget.to_dict(), **facts}
        self.runs: list[Run] = []
        if self._path.exists():
            self._read()

    def find(self, digest: str, seed: int) -> Run | None:
        """Return a run that is finished."""
        return next((r for r in self.runs if (r.digest, r.seed) == (digest, seed)), None)

    def add(self, run: Run) -> None:
        """Keep a run."""
        self.runs.append(run)
        content = {**self._made_with, "runs": [asdict(one) for one in self.runs]}
        write_whole(self._path, (json.dumps(content, indent=1) + "\n").encode())

    def record(self, study: StudyRecord) -> StudyRecord:
        """Return the study of the retrained models alone, with what their runs found."""
        trials = [
            _retrained(t, [r for r in self.runs if r.digest == t.digest]) for t in study.trials
        ]
        seeds = sorted({run.seed for run in self.runs})
        test = self._made_with["images"]["test"]
        told = {"seeds": seeds, "judged_on": f"{test:,} test images"}
        config = {**study.config, "data": self._made_with["data"],
                  "training": self._made_with["training"], FOLDER: told}  # fmt: skip
        environment = {**study.environment, "images": self._made_with["images"]}
        return replace(
            study,
            name=f"{study.name}, retrained",
            trials=tuple(trial for trial in trials if trial is not None),
            config=config,
            environment=environment,
            folder=self.folder,
        )

    def _read(self) -> None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            runs = [Run(**run) for run in content.pop("runs")]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{self._path}: is damaged; remove it to retrain anew") from None
        differing = _differing(content, self._made_with)
        if differing:
            raise UserError(
                f"{self._path}: was made with {'; '.join(differing)}: ask for the same, or remove "
                f"{self.folder} to retrain anew"
            )
        self.runs = runs


def chosen(
    study: StudyRecord, top: int, numbers: Sequence[int] = (), names: Sequence[str] = ()
) -> list[TrialRecord]:
    """Return the references, or those of `names`, then trials of these numbers or the front's best.

    The best are the `top` members that beat the first reference in most objectives and by most.

    Raises:
        UserError: there is no such trial, or it was not trained to the end.
    """
    if _LOSS not in study.objective_names:
        raise UserError(
            f"study {study.name!r} has no {_LOSS} among its objectives: nothing to train"
        )
    yardsticks = list(study.references.values())
    references = [one for name, one in study.references.items() if not names or name in names]
    if not numbers:
        members = list(front_found(study))
        return references + (ranked(study, members, yardsticks[0]) if yardsticks else members)[:top]
    complete = {trial.number: trial for trial in study.complete}
    for number in numbers:
        if number not in complete:
            raise UserError(
                f"--trial {number}: study {study.name!r} has no complete trial {number}"
            )
    asked = [complete[number] for number in dict.fromkeys(numbers)]
    return references + [trial for trial in asked if not trial.reference]


def retrain(
    results: Results,
    trials: Sequence[TrialRecord],
    seeds: Sequence[int],
    dataset: ImageDataset,
    device: torch.device,
    thread_count: int,
    begun: Callable[[TrialRecord, int], Callable[[int, int], None]],
    ended: Callable[[TrialRecord, Run], None],
) -> None:
    """Train what is not trained yet; an interrupted training goes on from its last epoch.

    Every model is trained with the first seed before any gets the next. `begun` returns what is
    told (done, total) batches of all epochs.

    Raises:
        UserError: a training diverged or ran out of memory, or something cannot be written.
    """
    lane = Lane(str(device))
    results.folder.mkdir(parents=True, exist_ok=True)
    shown = results.folder / "artefacts" / "samples.npy"
    shown.parent.mkdir(exist_ok=True)
    write_whole(shown, npy(shown_images(dataset)))
    for seed in seeds:
        for trial in trials:
            if results.find(trial.digest, seed):
                continue
            tell = begun(trial, seed)
            with full_disk_refused(results.folder), threads(thread_count), lane.training():
                config = results.budget.training.model_copy(update={"seed": seed})
                try:
                    run = _Training(trial, config, dataset, device, results.folder, lane).run(tell)
                except CandidateFailed as failure:
                    raise UserError(
                        f"{trial.name}, seed {seed}: {failure}; the other runs are kept: name "
                        "others with --trial, or change the budget"
                    ) from None
                results.add(run)
            (results.folder / _checkpoint(trial, seed)).unlink(missing_ok=True)
            ended(trial, run)


@dataclass
class _Training:
    trial: TrialRecord
    config: TrainingConfig
    dataset: ImageDataset
    device: torch.device
    folder: Path
    lane: Lane

    def run(self, tell: Callable[[int, int], None]) -> Run:
        """Train, judge, and keep the weights; of the first seed also what it reconstructs."""
        trainer = Trainer(self.trial.architecture, self.dataset, self.config, self.device)

        def at_batch(done: int, total: int) -> None:
            self.lane.enter()
            tell(len(trainer.history) * total + done, self.config.epochs * total)

        seed = self.config.seed
        for _ in trainer.epochs(self.folder / _checkpoint(self.trial, seed), at_batch):
            pass
        model = trainer.best_model()
        test = evaluate(model, self.dataset, self.dataset.test, self.config)
        folder = self.folder / "artefacts" / self.trial.digest
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(model, folder / f"weights-{seed}.safetensors")
        if not (folder / "reconstructions.npy").exists():
            write_whole(folder / "reconstructions.npy", npy(reconstructions(model, self.dataset)))
        history = [history_row(result) for result in trainer.history]
        return Run(self.trial.digest, seed, trainer.best.epoch, asdict(test), history)


def _checkpoint(trial: TrialRecord, seed: int) -> str:
    return f"{trial.digest}-{seed}.checkpoint.safetensors"


def _retrained(trial: TrialRecord, runs: Sequence[Run]) -> TrialRecord | None:
    if not runs:
        return None
    means = {name: fmean(run.test[name] for run in runs) for name in runs[0].test}
    losses = [run.test["reconstruction"] for run in runs]
    quality = {"total_loss": means.pop("total"), **means}
    return replace(
        trial,
        objectives={**trial.objectives, _LOSS: quality.pop("reconstruction")},
        intervals={**trial.intervals, _LOSS: (min(losses), max(losses))},
        metrics={**trial.metrics, **quality, "seeds": len(runs)},
        history=runs[0].history,
        timings_s={"training": sum(run.duration_s for run in runs)},
    )


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return what another budget was made with, as `training.epochs 12`."""
    found = []
    for name in here:
        mine, its = here[name], there.get(name)
        if isinstance(mine, Mapping) and isinstance(its, Mapping):
            found += [f"{name}.{key} {its.get(key)}" for key in mine if its.get(key) != mine[key]]
        elif mine != its:
            found.append(f"{name} {its}")
    return found
