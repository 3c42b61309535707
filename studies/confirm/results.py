"""The results of confirmations with a budget of its own: more epochs, other images or rates.

Losses of another budget cannot be pooled with those of the search. The trainings form a study
record of their own, in the folder `retrained` of the study. Their loss is the mean over the seeds
on the test images, which no decision used. Costs are those of the study.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from nas.artefacts import write_or_refuse
from nas.datasets import DataConfig
from nas.floors import Floors
from nas.protocol import TrainingConfig
from search_spaces.errors import UserError
from studies.confirm.confirmation import alone_in
from studies.confirm.evaluator import renamed
from studies.record.earlier import complete_training
from studies.record.records import StudyRecord, TrialRecord
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
        self._other_floors: Floors | None = None
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
        self._write()

    def missing_floors(self, study: StudyRecord, sizes: Collection[int]) -> list[int]:
        """Return the latent sizes for which floors are to be computed, in ascending order.

        There are none where the study's floors hold or all sizes are known. Otherwise the known
        ones are among them, so that all floors are replaced together.
        """
        known = self._other_floors
        there = {*known.test.pca, *known.absent} if known else set()
        if self._shared_floors(study) or {*sizes} <= there:
            return []
        return sorted({*sizes, *there})

    def set_floors(self, floors: Floors) -> None:
        """Record the floors of these images and this loss in the file."""
        self._other_floors = floors
        self._write()

    def _write(self) -> None:
        floors = self._other_floors
        content = {
            **self._made_with,
            **({"floors": floors.to_dict()} if floors else {}),
            "runs": [asdict(one) for one in self.runs],
        }
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
        """Return the floors on the test images; None if there are none."""
        floors = self._shared_floors(study) or self._other_floors
        return floors.on("test") if floors else None

    def _shared_floors(self, study: StudyRecord) -> Floors | None:
        """Return the study's floors; None if images or loss are others."""
        ours, theirs = self._made_with, study.config
        same = (
            ours["data"] == theirs.get("data")
            and ours["data_fingerprint"] == study.environment.get("data_fingerprint")
            and all(ours["training"][key] == theirs["training"].get(key) for key in _LOSS)
        )
        return study.floors if same else None

    def _read(self) -> None:
        try:
            if not self._path.is_file():  # opening a FIFO would wait for ever
                raise ValueError("not an ordinary file")
            content = json.loads(self._path.read_text(encoding="utf-8"))
            runs = _RUNS.validate_python(content.pop("runs"))
            floors = Floors.from_dict(content.pop("floors")) if "floors" in content else None
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
        self.runs, self._other_floors = runs, floors


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
