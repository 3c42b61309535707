"""What is deployed: a trained model, and the images by which its variants are made and judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from nas.datasets import ImageDataset
from nas.datasets.dataset import ImageIndices
from nas.lower_precision import CALIBRATION_IMAGES, JUDGED_IMAGES
from nas.protocol import TrainingConfig
from search_spaces.errors import UserError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """The model that is deployed, and the images by which its variants are made and judged.

    Attributes:
        weights: File of its trained weights.
        calibration: Training images, from which int8 takes the ranges of values,
            `(n, channels, height, width)`.
        validation: Images by which variants are chosen.
        test: Images by which the chosen one is judged once; there may be none.
        training: The training settings, which have the window and the weight of the loss.
        threads: Number of threads of every pass.
        about: Description of the images.
    """

    weights: Path
    calibration: Pixels
    validation: Pixels
    test: Pixels
    training: TrainingConfig
    threads: int
    about: str

    @classmethod
    def of(
        cls, weights: Path, dataset: ImageDataset, training: TrainingConfig, threads: int
    ) -> Self:
        """Return a model with images of a data set.

        Raises:
            UserError: there are no images to calibrate with or to judge by.
        """
        if len(dataset.train) < 2 or not len(dataset.validation):
            raise UserError(
                f"data set {dataset.name!r}: has {len(dataset.train)} training and "
                f"{len(dataset.validation)} validation images; 2 are needed to calibrate, and 1 to "
                "judge by"
            )

        def pixels(rows: ImageIndices) -> Pixels:
            return np.asarray(dataset.images[rows])

        return cls(
            weights=weights.absolute(),
            calibration=pixels(dataset.train[:CALIBRATION_IMAGES]),
            validation=pixels(dataset.validation[:JUDGED_IMAGES]),
            test=pixels(dataset.test[:JUDGED_IMAGES]),
            training=training,
            threads=threads,
            about=f"images of {dataset.name} {dataset.fingerprint}",
        )
