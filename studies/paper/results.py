"""What was found out about both models: all that the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.datasets import ImageDataset
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.paper import attributes, traversal
from studies.paper.stored import Array, Arrays
from studies.paper.timing import Timing
from studies.record.records import StudyRecord

TRAIN = 3000
"""Training images, at most, that attributes are learned from: as many as the paper's test set."""


@dataclass(frozen=True)
class Options:
    """What a reader may ask for: latent dimensions to traverse, attributes to manipulate."""

    dimensions: tuple[int, ...] = (traversal.DIMENSION,)
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelResults:
    """One trained model. See the functions that make each of these."""

    test: Arrays
    rebuilt: Array
    places: Array
    effect: Array
    dimensions: tuple[int, ...]
    traversed: Array
    ways: Arrays
    scores: Arrays
    manipulated: Mapping[str, Arrays]


@dataclass(frozen=True)
class PaperResults:
    """Both models and what they were examined on.

    Attributes:
        study: The study that trained them.
        timings: Inference times, by batch size.
        models: By name.
        samples: Images uint8 `(n, channels, height, width)`.
        photos: The test images whose reconstructions are shown.
        judged: Attributes that scores are about, columns of `labels`.
        labels: Of the test set, bool `(test, judged)`.
        pixels: What the neighbours in pixels say, as `labels`.
        pair_photos: The two photos of the ways that are shown.
        options: What was asked for.
    """

    study: StudyRecord
    timings: tuple[Timing, ...]
    models: Mapping[str, ModelResults]
    samples: Array
    photos: Array
    judged: tuple[str, ...]
    labels: Array
    pixels: Array
    pair_photos: Array
    options: Options = field(default_factory=Options)


def require_both(study: StudyRecord) -> None:
    """Refuse to go on where a model could not be trained.

    Raises:
        UserError: with the reason.
    """
    for trial in study.trials:
        if trial.reference and trial.state != "complete":
            raise UserError(
                f"{trial.name} was not trained ({trial.reason or trial.state}): use a smaller "
                "--size or --set training.batch_size=16"
            )


def check_options(
    options: Options, dataset: ImageDataset, architectures: Mapping[str, Architecture]
) -> None:
    """Refuse what cannot be shown, before hours are spent.

    Raises:
        UserError: an attribute or a dimension does not exist.
    """
    smallest = min(one.latent_size for one in architectures.values())
    traversal.require_dimensions(options.dimensions, smallest)
    judged = attributes.judgeable(dataset, dataset.train[:TRAIN], dataset.test)
    attributes.chosen(options.attributes, judged, dataset.attribute_names)
