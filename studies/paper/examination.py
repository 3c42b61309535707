"""Examine both trained models once and store the results in the study's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nas.artefacts import WEIGHTS
from nas.checkpoint import load_vae
from nas.datasets import ImageDataset
from nas.protocol import load_batch, memory_format
from nas.training import TrainingConfig
from nas.vae import VAE
from profiling.lane import Lane
from profiling.progress import Progress
from search_spaces.errors import UserError
from studies.paper import attributes, clusters, embedding, inference, smoothness, traversal
from studies.paper.attributes import LabelledLatents
from studies.paper.inference import as_bytes, decode
from studies.paper.results import TRAIN, ModelResults, PaperOptions, PaperResults
from studies.paper.stored import Array, Arrays, Stored, file_digest
from studies.paper.timing import Timing
from studies.record.records import StudyRecord
from studies.run.evaluators import ProgressBar

SHOWN_PHOTOS = 8
"""Test images whose reconstructions are shown."""

FACES = 2
"""Number of test faces to which attributes are added."""

BASES = 4
"""Number of test faces over which the effect of a dimension is averaged."""


class Examination:
    """The examination of both models of a finished study. Stored results are not computed again.

    Args:
        study: A study in which both references are complete.
        dataset: The images that it was trained on.
        config: Its training protocol.
        device: The device that runs the models.
        progress_bar: Makes a progress bar from a label.
    """

    def __init__(
        self,
        study: StudyRecord,
        dataset: ImageDataset,
        config: TrainingConfig,
        device: torch.device,
        progress_bar: ProgressBar,
    ) -> None:
        self.study, self.dataset, self.config, self.device = study, dataset, config, device
        self._bar, self._lane = progress_bar, Lane(str(device))
        self._stored = Stored(study.folder / "paper")

    def results(self, timings: tuple[Timing, ...], options: PaperOptions) -> PaperResults:
        """Examine both models with options that `check_options` has accepted."""
        wanted = attributes.chosen_attributes(
            options.attributes, self.judged, self.dataset.attribute_names
        )
        images, test = self.dataset.images, self.dataset.test
        models = {
            name: _OneModel(self, name).results(options.dimensions, wanted)
            for name in self.study.references
        }
        shown = self.pairs[: smoothness.SHOWN_PAIRS]
        return PaperResults(
            study=self.study,
            timings=timings,
            models=models,
            samples=np.asarray(images[self.dataset.train[: 2 * SHOWN_PHOTOS]]),
            photos=np.asarray(images[test[:SHOWN_PHOTOS]]),
            judged=tuple(self.judged),
            labels=self.test_labels,
            pixels=self._pixels(),
            pair_photos=np.asarray(images[test[shown]]),
            options=options,
        )

    @cached_property
    def train(self) -> Array:
        """Indices of the training images that attributes are learned from."""
        return self.dataset.train[:TRAIN]

    @cached_property
    def judged(self) -> list[str]:
        """Attributes with enough images with and without them."""
        return attributes.judgeable(self.dataset, self.train, self.dataset.test)

    @cached_property
    def train_labels(self) -> Array:
        """Labels of `train`, bool `(train, judged)`."""
        return attributes.labels_of(self.dataset, self.train, self.judged)

    @cached_property
    def test_labels(self) -> Array:
        """Labels of the test set, bool `(test, judged)`."""
        return attributes.labels_of(self.dataset, self.dataset.test, self.judged)

    @cached_property
    def pairs(self) -> Array:
        """Pairs of test images to interpolate between."""
        return smoothness.pairs_of(len(self.dataset.test))

    def stored(self, name: str, source: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays stored under `name`, or make them in the lane and store them."""

        def made() -> Arrays:
            with self._lane.training():
                return make()

        return self._stored.arrays(name, {"data": self.dataset.fingerprint, **source}, made)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show a progress bar; at each step, wait while others measure."""
        with self._bar(label) as show:

            def report(done: int, total: int) -> None:
                self._lane.enter()
                show(done, total)

            yield report

    def _pixels(self) -> Array:
        def make() -> Arrays:
            train, test = (
                clusters.small_pixels(self.dataset, part)
                for part in (self.train, self.dataset.test)
            )
            return {"seen": clusters.neighbours_see(train, self.train_labels, test)}

        if not self.judged:
            return self.test_labels
        return self.stored("pixels", {"judged": self.judged}, make)["seen"]


class _OneModel:
    """One model of an examination; it is loaded only if a result is missing."""

    def __init__(self, parent: Examination, name: str) -> None:
        self._all, self._name = parent, name
        digest = parent.study.references[name].digest
        self._weights = parent.study.folder / "artefacts" / digest / WEIGHTS
        if not self._weights.is_file():
            raise UserError(
                f"{self._weights}: missing, but needed to examine {name}; restore the file, or "
                "train again with another --name"
            )
        self._batch = parent.config.batch_size
        self._id = {"weights": file_digest(self._weights)}

    @cached_property
    def model(self) -> VAE:
        """The trained model on its device, in the memory format that is fastest there."""
        layout = memory_format(self._all.config, self._all.device)
        model = load_vae(self._weights)
        return model.to(self._all.device, memory_format=layout)  # type: ignore[call-overload,no-any-return]

    def results(self, dimensions: tuple[int, ...], wanted: list[str]) -> ModelResults:
        test, effect = self._test(), self._effect()
        shown = tuple(traversal.shown_dimensions(dimensions, effect))
        labelled = bool(self._all.judged)
        return ModelResults(
            test=test,
            rebuilt=self._kept("rebuilt", {"count": SHOWN_PHOTOS}, self._rebuild)["images"],
            places=self._kept("tsne", {"seed": embedding.SEED}, self._embed)["places"],
            effect=effect,
            dimensions=shown,
            traversed=self._traversed(shown),
            interpolation=self._kept("ways", {"pairs": len(self._all.pairs)}, self._walk),
            scores=self._kept("clusters", self._judged, self._score) if labelled else {},
            manipulated={name: self._manipulated(name) for name in wanted},
        )

    @property
    def _judged(self) -> dict[str, Any]:
        return {"judged": self._all.judged}

    @cached_property
    def _latents(self) -> LabelledLatents:
        train = self._kept("train", {"count": len(self._all.train)}, self._encode)["mean"]
        test = self._test()["mean"]
        return LabelledLatents(train, self._all.train_labels, test, self._all.test_labels)

    def _kept(self, what: str, source: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        return self._all.stored(f"{what}-{self._name}", {**self._id, **source}, make)

    def _progress(self, what: str) -> Any:
        return self._all.progress(f"{self._name}: {what}")

    def _test(self) -> Arrays:
        def make() -> Arrays:
            data, config = self._all.dataset, self._all.config
            with self._progress("test images") as progress:
                return inference.examine(self.model, data, data.test, config, progress)

        config = self._all.config.model_dump(
            mode="json", include={"ssim", "l1_weight", "kl_weight"}
        )
        return self._kept("test", config, make)

    def _encode(self) -> Arrays:
        data, config = self._all.dataset, self._all.config
        with self._progress("training images") as progress:
            train = self._all.train
            return {"mean": inference.latent_means(self.model, data, train, config, progress)}

    def _rebuild(self) -> Arrays:
        test = self._all.dataset.test[:SHOWN_PHOTOS]
        images = load_batch(self._all.dataset, test, self._all.config, self._all.device)
        return {
            "images": as_bytes(
                decode(self.model, inference.encode(self.model, images), SHOWN_PHOTOS)
            )
        }

    def _embed(self) -> Arrays:
        with self._progress("t-SNE"):
            return embedding.embed(self._test()["mean"])

    def _effect(self) -> Array:
        def make() -> Arrays:
            bases = self._test()["mean"][:BASES]
            with self._progress("latent dimensions") as progress:
                return traversal.dimension_effects(self.model, bases, self._batch, progress)

        return self._kept("effects", {"bases": BASES}, make)["effect"]

    def _traversed(self, dimensions: tuple[int, ...]) -> Array:
        def make() -> Arrays:
            base = self._test()["mean"][0]
            return traversal.traversals(self.model, base, dimensions, self._batch)

        return self._kept("traversals", {"dimensions": list(dimensions)}, make)["images"]

    def _walk(self) -> Arrays:
        data, pairs = self._all.dataset, self._all.pairs
        photos = np.asarray(data.images[data.test[pairs]])
        window, means = self._all.config.ssim, self._test()["mean"]
        with self._progress("interpolations") as progress:
            return smoothness.interpolate(
                self.model, means, pairs, photos, window, self._batch, progress
            )

    def _score(self) -> Arrays:
        with self._progress("clusters"):
            return clusters.cluster_scores(self._latents)

    def _manipulated(self, name: str) -> Arrays:
        def make() -> Arrays:
            column = self._all.judged.index(name)
            with self._progress(name) as progress:
                return attributes.manipulate(
                    self.model, self._latents, column, FACES, self._batch, progress
                )

        settings = {"train": len(self._all.train), "faces": FACES}
        return self._kept(f"attribute-{name}", settings, make)
