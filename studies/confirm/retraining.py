"""Confirm models with a budget of its own: more epochs, other images or learning rates.

Losses of another budget cannot be pooled with those of the search. The trainings form a study
record of their own, in the folder `retrained` of the study. Their loss is the mean over the seeds
on the test images, which no decision used. Costs are those of the study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter

from nas.artefacts import CHECKPOINT, folder_or_refuse, full_disk_refused, write_or_refuse
from nas.checkpoint import save_weights
from nas.datasets import DataConfig, ImageDataset
from nas.evaluate import history_row, npy, shown_images, write_pictures
from nas.floors import Floors
from nas.objectives import trained_objectives
from nas.own.objectives import judges
from nas.protocol import TrainingConfig, evaluate
from nas.training import CandidateFailed, Trainer
from profiling.environment import threads
from profiling.lane import Lane
from search_spaces.errors import UserError
from studies.confirm.candidates import asked_for, require_training
from studies.confirm.confirmation import alone_in
from studies.confirm.evaluator import renamed
from studies.record.comparison import ranked
from studies.record.earlier import complete_training
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import front_found
from studies.record.trial import IN_SEARCH, ON_TEST

FOLDER = "retrained"
"""Name of the folder below the study's, and of the entry in the record's configuration."""

_LOSS = ("ssim", "l1_weight")
"""Settings of training that floors depend on."""


@dataclass(frozen=True)
class Budget:
    """The budget of every model.

    Attributes:
        data: The images.
        training: The training protocol; its seed is the first of the seeds.
        rates: Learning rates that are tried on each model with the first seed. The other seeds
            use the best of them.
    """

    data: DataConfig
    training: TrainingConfig
    rates: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        training = self.training.model_dump(mode="json", exclude={"learning_rate"})
        data = self.data.model_dump(mode="json")
        return {"data": data, "training": training, "learning_rates": list(self.rates)}


@dataclass(frozen=True)
class TrainingRun:
    """One training of one model.

    Attributes:
        digest: Digest of the architecture.
        seed: Seed of the weights, the order of images and the noise.
        learning_rate: Adam's learning rate.
        best_epoch: Epoch of the lowest validation loss; its weights are evaluated.
        test: Means over the test images, the fields of `nas.protocol.Quality`.
        history: One mapping per epoch, as in a trial's record.
    """

    digest: str
    seed: int
    learning_rate: float
    best_epoch: int
    test: Mapping[str, float]
    history: Sequence[Mapping[str, float]]

    @property
    def duration_s(self) -> float:
        """Duration of training and validation in seconds."""
        return sum(epoch["duration_s"] for epoch in self.history)

    @property
    def validation_loss(self) -> float:
        """Total loss on the validation images at the best epoch."""
        return self.history[self.best_epoch - 1]["validation_loss"]


_RUNS = TypeAdapter(list[TrainingRun], config=ConfigDict(allow_inf_nan=False))


def _require_whole(runs: Sequence[TrainingRun]) -> None:
    """Check the entries of runs that are read from a file; raise `LookupError` if one is absent."""
    for run in runs:
        for name in ("total", "reconstruction"):
            run.test[name]
        if run.best_epoch < 1:
            raise LookupError(run.best_epoch)
        _ = run.validation_loss, run.duration_s


class Results:
    """The finished runs of a study, in a file; all have the same budget and images.

    Args:
        study: The study whose models are confirmed.
        budget: Budget of every model.
        facts: Data fingerprint, numbers of images and device, as they are recorded.

    Raises:
        UserError: the file holds runs of another budget or other images, or is damaged.
    """

    def __init__(self, study: StudyRecord, budget: Budget, facts: Mapping[str, Any]) -> None:
        self.budget, self.folder = budget, study.folder / FOLDER
        self._path = self.folder / "results.json"
        self._made_with = {**budget.to_dict(), **facts}
        self.runs: list[TrainingRun] = []
        if self._path.exists():
            self._read()

    def find(self, digest: str, seed: int, rate: float) -> TrainingRun | None:
        """Return the finished run with these values; None if there is none."""
        asked = digest, seed, rate
        return next((r for r in self.runs if (r.digest, r.seed, r.learning_rate) == asked), None)

    def best_rate(self, digest: str) -> float:
        """Return the learning rate with the lowest validation loss for the first seed."""
        seed = self.budget.training.seed
        tried = [run for run in self.runs if (run.digest, run.seed) == (digest, seed)]
        return min(tried, key=lambda run: run.validation_loss).learning_rate

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock on the results, and read the runs that other processes have added.

        Raises:
            UserError: another process holds the lock, or the folder cannot be written.
        """
        with alone_in(self.folder):
            if self._path.exists():
                self._read()
            yield

    def rates(self, digest: str, seed: int) -> tuple[float, ...]:
        """Return the learning rates to train a model with, for this seed."""
        first = seed == self.budget.training.seed
        return self.budget.rates if first else (self.best_rate(digest),)

    def leads(self, run: TrainingRun) -> bool:
        """Return whether a run is the best so far of its model's runs with the first seed."""
        tried = [r for r in self.runs if (r.digest, r.seed) == (run.digest, run.seed)]
        first = run.seed == self.budget.training.seed
        return first and all(run.validation_loss <= other.validation_loss for other in tried)

    def judged(self, digest: str) -> list[TrainingRun]:
        """Return a model's runs at its best learning rate."""
        runs = [run for run in self.runs if run.digest == digest]
        rate = self.best_rate(digest) if runs else None
        return [run for run in runs if run.learning_rate == rate]

    def add(self, run: TrainingRun) -> None:
        """Add a run to the file."""
        self.runs.append(run)
        content = {**self._made_with, "runs": [asdict(one) for one in self.runs]}
        write_or_refuse(self._path, (json.dumps(content, indent=1) + "\n").encode())

    def record(self, study: StudyRecord) -> StudyRecord:
        """Return a study record of the retrained models only, with the results of their runs."""
        trials = [_retrained(t, self.judged(t.digest)) for t in study.trials]
        seeds = sorted({run.seed for run in self.runs})
        test = self._made_with["images"]["test"]
        rates = list(self.budget.rates)
        summary = {"seeds": seeds, "learning_rates": rates, "judged_on": f"{test:,} test images"}
        training = dict(self._made_with["training"])
        if len(rates) == 1:  # otherwise each model has its own
            training["learning_rate"] = rates[0]
        config = {**study.config, "data": self._made_with["data"],
                  "training": training, FOLDER: summary}  # fmt: skip
        environment = {**study.environment, "images": self._made_with["images"]}
        return replace(
            study,
            name=f"{study.name}, retrained",
            trials=tuple(trial for trial in trials if trial is not None),
            config=config,
            environment=environment,
            folder=self.folder,
            floors=self._floors(study),
            known=None,
        ).with_intervals()

    def _floors(self, study: StudyRecord) -> Floors | None:
        """Return the study's floors on the test images; None if images or loss are others."""
        ours, theirs = self._made_with, study.config
        same = (
            ours["data"] == theirs.get("data")
            and ours["data_fingerprint"] == study.environment.get("data_fingerprint")
            and all(ours["training"][key] == theirs["training"].get(key) for key in _LOSS)
        )
        return study.floors.on("test") if study.floors and same else None

    def _read(self) -> None:
        try:
            if not self._path.is_file():  # opening a FIFO would wait for ever
                raise ValueError("not an ordinary file")
            content = json.loads(self._path.read_text(encoding="utf-8"))
            runs = _RUNS.validate_python(content.pop("runs"))
            _require_whole(runs)
            content["training"] = complete_training(content["training"])
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise UserError(f"{self._path}: damaged; remove it to begin again") from None
        differing = _differing(content, self._made_with)
        if differing:
            raise UserError(
                f"{self._path}: was made with {'; '.join(differing)}: use the same options, or "
                f"remove {self.folder} to retrain from the start"
            )
        self.runs = runs


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


def _retrained(trial: TrialRecord, runs: Sequence[TrainingRun]) -> TrialRecord | None:
    if not runs:
        return None
    tested = [renamed(run.test) for run in runs]
    means = {name: fmean(one[name] for one in tested) for name in tested[0]}
    learned = [name for name in means if name in trial.objectives]
    of_search = {f"{name}{end}" for name in (*means, *learned) for end in (IN_SEARCH, ON_TEST)}
    metrics = {name: value for name, value in trial.metrics.items() if name not in of_search}
    quality = {name: value for name, value in means.items() if name not in learned}
    used = {"seeds": len(runs), "learning_rate": runs[0].learning_rate}
    findings = replace(
        trial.findings,
        objectives={name: means.get(name, value) for name, value in trial.objectives.items()},
        intervals={n: bounds for n, bounds in trial.intervals.items() if n not in learned},
        metrics={**metrics, **quality, **used},
        history=runs[0].history,
        timings_s={"confirmation": sum(run.duration_s for run in runs)},
    )
    samples = {name: tuple(one[name] for one in tested) for name in learned}
    return replace(trial, findings=findings, runs=(), samples=samples)


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return the entries in which a file differs from this budget, as `training.epochs 12`."""
    found = []
    for name in here:
        mine, its = here[name], there.get(name)
        if isinstance(mine, Mapping) and isinstance(its, Mapping):
            found += [f"{name}.{key} {its.get(key)}" for key in mine if its.get(key) != mine[key]]
        elif mine != its:
            found.append(f"{name} {its}")
    return found
