"""What is deployed: a trained model, the images by which it is judged, and what is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.datasets import ImageDataset
from nas.datasets.decoding import Fit
from nas.deploy.source import Source
from nas.objectives import OBJECTIVES
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.record.confirmed import shown_value
from studies.record.formats import format_value
from studies.record.model_files import fit_of, loss_settings
from studies.store.trained import Trained


@dataclass(frozen=True)
class Subject:
    """A trained model with the images by which its variants are made and judged.

    Attributes:
        trained: The model.
        dataset: The images: those of its study, or others of its size.
        own_images: Whether they are those of its study.
    """

    trained: Trained
    dataset: ImageDataset
    own_images: bool

    @property
    def architecture(self) -> Architecture:
        """The architecture of the model."""
        return self.trained.architecture

    @property
    def study(self) -> str:
        """Name of the study that found it; "" if that is not known."""
        found = self.trained.study
        return found.name if found else str(self.trained.result.get("study", ""))

    @property
    def trial(self) -> str:
        """Number of its trial; "" if that is not known."""
        found = self.trained.trial
        return str(found.number if found else self.trained.result.get("trial", ""))

    @property
    def fit(self) -> Fit:
        """How a picture gets the model's size."""
        return fit_of(self._settings("data"))

    @property
    def data_fingerprint(self) -> str:
        """Fingerprint of the images of its training; "" if it is not known."""
        if self.own_images:
            return self.dataset.fingerprint
        return str(self.trained.result.get("data_fingerprint") or "")

    @property
    def values(self) -> dict[str, float]:
        """The objective values that were recorded in its study."""
        found = self.trained.trial
        known = found.objectives if found else self.trained.result.get("objectives")
        pairs = known.items() if isinstance(known, Mapping) else ()
        return {str(name): float(v) for name, v in pairs if isinstance(v, int | float)}

    @property
    def recorded(self) -> list[tuple[str, str]]:
        """What was measured, for people: (title, value), a loss with half its interval."""
        trial, exact = self.trained.trial, ("params", "macs", "flops")
        known = [OBJECTIVES[n] for n in self.values if n in OBJECTIVES and n not in exact]
        if trial is not None:
            return [(one.title, shown_value(trial, one)) for one in known]
        return [(one.title, format_value(one, self.values[one.name])) for one in known]

    @property
    def metadata(self) -> dict[str, str]:
        """What every model file says of itself."""
        return {
            "architecture": json.dumps(self.architecture.to_dict()),
            "digest": self.architecture.digest,
            "study": self.study,
            "trial": self.trial,
            "data_fingerprint": self.data_fingerprint,
            "recorded": json.dumps(self.values),
        }

    def source(self, threads: int) -> Source:
        """Return what a builder needs.

        Raises:
            UserError: there are no images to calibrate with or to judge by, or they have another
                shape than the model takes.
        """
        data, shape = self.dataset, self.architecture.image_shape
        if data.images.shape[1:] != shape:
            raise UserError(
                f"data set {data.name!r}: has images of {data.images.shape[1:]}, and the model "
                f"takes {shape} (channels, height, width)"
            )
        training = loss_settings(self._settings("training"))
        return Source.of(self.trained.weights, data, training, threads)

    def _settings(self, section: str) -> Any:
        study = self.trained.study
        return (study.config if study else self.trained.result).get(section)
