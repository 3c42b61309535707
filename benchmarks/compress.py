"""Whether pruning and distillation pay: each beside its controls, with several seeds.

    python -m benchmarks.compress train --out FOLDER      hours of two cores; resumes
    python -m benchmarks.compress summary --out FOLDER    both tables, as text

Everything is trained on rendered faces with the default recipe. Pruning: a model is trained,
narrowed to half its widths and trained further for as many epochs; the same narrow architecture
from new weights is trained for as many and for twice as many epochs. Distillation: a student with
the reference `original` as teacher, with an ensemble of `original` and a copy of itself that was
trained three times as long, without a teacher at the same weight, alone, and alone for three times
as long. `trainings.csv` has one row for each training, `weights/` what the next ones begin with.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from nas.checkpoint import load_vae, save_weights
from nas.compress.distillation import Guidance
from nas.compress.narrowing import narrowed
from nas.compress.pruning import prune
from nas.datasets import DataConfig, ImageDataset, load_dataset
from nas.evaluate import static_costs
from nas.protocol import TrainingConfig, evaluate, recalibrate
from nas.training import Trainer
from nas.vae import VAE
from profiling.allocator import tune_allocator
from profiling.environment import threads
from profiling.files import write_whole
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from studies.store.store import StudyStore

SHARE, LONGER = 0.5, 3
"""Share of the widths after pruning; factor of the epochs of the longer training."""

WINNERS = ("136", "122", "130")
"""Trials of the study `lowest-loss`; the first one is the student."""


@dataclass(frozen=True)
class Row:
    """One training, or one pruned model before it is trained further (0 epochs)."""

    table: str
    model: str
    role: str
    seed: int
    epochs: int
    best_epoch: int
    params: float
    macs: float
    validation_total: float
    validation: float
    test: float
    duration_s: float


@dataclass(frozen=True)
class Bench:
    """The trainings of one folder.

    Attributes:
        folder: Folder of the results.
        size: Side of the images in pixels.
        images: Number of images of all parts.
        epochs: Number of epochs of a training.
        thread_count: Threads of a training.
    """

    folder: Path
    size: int
    images: int
    epochs: int
    thread_count: int

    @cached_property
    def dataset(self) -> ImageDataset:
        """The images."""
        return load_dataset(DataConfig(kind="faces", count=self.images), self.size)

    @property
    def table(self) -> Path:
        """The file of all trainings."""
        return self.folder / "trainings.csv"

    def architecture(self, model: str) -> Architecture:
        """Return the architecture of a reference, or of a winner by its number."""
        if model in REFERENCES:
            return REFERENCES[model].resized(self.size)
        return _winner(int(model)).resized(self.size)

    def model(
        self,
        table: str,
        model: str,
        role: str,
        seed: int,
        make: Callable[[Path], tuple[VAE, int, int, float]],
    ) -> VAE:
        """Return a model, which is made and recorded unless it is in the table.

        Args:
            table: Which table it belongs to.
            model: What it is a variant of.
            role: Its role there.
            seed: The seed.
            make: Makes it from the path of a checkpoint; returns it with its number of epochs, the
                best epoch and the seconds of training.
        """
        name = f"{table}-{model}-{role}-{seed}".replace(" ", "_")
        weights = self.folder / "weights" / f"{name}.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        if any((row.table, row.model, row.role, row.seed) == (table, model, role, seed)
               for row in read(self.table)):  # fmt: skip
            return load_vae(weights)
        checkpoint = self.folder / "weights" / f"{name}.checkpoint"
        with threads(self.thread_count):
            found, epochs, best, duration_s = make(checkpoint)
            row = self._judged(found, (table, model, role, seed, epochs, best), duration_s)
        save_weights(found, weights)
        write(self.table, [*read(self.table), row])
        checkpoint.unlink(missing_ok=True)
        print(f"{name}: validation {row.validation:.4f}, test {row.test:.4f}", flush=True)
        return load_vae(weights)

    def _judged(
        self, model: VAE, what: tuple[str, str, str, int, int, int], duration_s: float
    ) -> Row:
        data, config, costs = self.dataset, self.config(what[3]), static_costs(model.architecture)
        held_out, test = (evaluate(model, data, part, config) for part in
                          (data.validation, data.test))  # fmt: skip
        return Row(
            *what, costs["params"], costs["macs"], held_out.total, held_out.reconstruction,
            test.reconstruction, duration_s,
        )  # fmt: skip

    def config(self, seed: int, times: int = 1) -> TrainingConfig:
        """Return the settings of a training with a multiple of the epochs."""
        epochs = times * self.epochs
        return TrainingConfig(epochs=epochs, patience=epochs, batch_size=16, seed=seed)

    def trained(
        self,
        architecture: Architecture,
        seed: int,
        times: int = 1,
        start: Mapping[str, Tensor] | None = None,
        guidance: Guidance | None = None,
    ) -> Callable[[Path], tuple[VAE, int, int, float]]:
        """Return a function that trains an architecture, for `model`."""

        def make(checkpoint: Path) -> tuple[VAE, int, int, float]:
            config = self.config(seed, times)
            trainer = Trainer(architecture, self.dataset, config, start=start, guidance=guidance)
            for _ in trainer.epochs(checkpoint):
                pass
            seconds = sum(epoch.duration_s for epoch in trainer.history)
            return trainer.best_model(), len(trainer.history), trainer.best.epoch, seconds

        return make

    def prune(self, name: str, seed: int) -> None:
        """Train what the table of pruning has of a model."""
        wide = self.architecture(name)
        narrow = narrowed(wide, SHARE)
        whole = self.model("prune", name, "trained model", seed, self.trained(wide, seed))

        def narrowed_model(_: Path) -> tuple[VAE, int, int, float]:
            cut = prune(whole, narrow)
            recalibrate(cut, self.dataset, self.config(seed))
            return cut, 0, 0, 0.0

        cut = self.model("prune", name, "pruned only", seed, narrowed_model)
        further = self.trained(narrow, seed, start=cut.state_dict())
        self.model("prune", name, "pruned, trained further", seed, further)
        self.model("prune", name, "new weights, as long", seed, self.trained(narrow, seed))
        total = self.trained(narrow, seed, 2)
        self.model("prune", name, "new weights, as long in total", seed, total)

    def distil(self, name: str, seed: int) -> None:
        """Train what the table of distillation has of a student."""
        student = self.architecture(name)

        def add(role: str, times: int = 1, guidance: Guidance | None = None) -> VAE:
            make = self.trained(student, seed, times, guidance=guidance)
            return self.model("distil", name, role, seed, make)

        reference = self.architecture("original")
        original = self.model("distil", "original", "teacher", seed, self.trained(reference, seed))
        add("plain")
        add("control: no teacher, same weight", guidance=Guidance())
        add("teacher original", guidance=Guidance(teachers=(original,)))
        longer = add(f"plain, {LONGER} times as long", LONGER)
        ensemble = Guidance(teachers=(original, longer))
        add("ensemble of original and the longer one", guidance=ensemble)


@cache
def _winner(number: int) -> Architecture:
    return StudyStore.open(Path("studies/results"), "lowest-loss").trial(number).architecture


def read(path: Path) -> list[Row]:
    """Return the rows of a table; none if the file does not exist."""
    if not path.exists():
        return []
    kinds = {field.name: {"str": str, "int": int, "float": float}[str(field.type)]
             for field in fields(Row)}  # fmt: skip
    with path.open(newline="") as file:
        return [Row(**{name: kinds[name](text) for name, text in row.items()})
                for row in csv.DictReader(file)]  # fmt: skip


def write(path: Path, rows: list[Row]) -> None:
    """Replace a table as a whole."""
    text = io.StringIO()
    names = [field.name for field in fields(Row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: getattr(row, name) for name in names} for row in rows)
    write_whole(path, text.getvalue().encode())


def summary(path: Path) -> str:
    """Return both tables: means and deviations over the seeds, by model and role."""
    table = pd.DataFrame([vars(row) for row in read(path)])
    if table.empty:
        return f"{path}: no trainings yet"
    groups = table.groupby(["table", "model", "role"], sort=False)
    found = groups.agg(
        seeds=("seed", "nunique"),
        epochs=("epochs", "max"),
        validation=("validation", "mean"),
        deviation=("validation", "std"),
        test=("test", "mean"),
        params=("params", "first"),
        macs=("macs", "first"),
        duration_s=("duration_s", "mean"),
    )
    return found.to_string(float_format=lambda value: f"{value:.4g}")


def main() -> int:
    """Run one step."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=("train", "summary"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=2000, help="number of images")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.step == "train":
        tune_allocator()
        torch.set_num_threads(options.threads)
        settings = f"{options.size} px, {options.images} images, {options.epochs} epochs\n"
        options.out.mkdir(parents=True, exist_ok=True)
        known = options.out / "settings.txt"
        if known.exists() and known.read_text() != settings:
            parser.error(f"{known}: the results are of {known.read_text().strip()}")
        write_whole(known, settings.encode())
        bench = Bench(options.out, options.size, options.images, options.epochs, options.threads)
        for seed in range(options.seeds):
            bench.distil(WINNERS[0], seed)
            for name in ("original", *WINNERS, "modified"):
                bench.prune(name, seed)
    print(summary(options.out / "trainings.csv"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
