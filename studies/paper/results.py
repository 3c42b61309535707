"""Results of both models: all data of the page."""

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
"""Maximum number of training images to learn attributes from: the size of the paper's test set."""


@dataclass(frozen=True)
class PaperOptions:
    """Options of the page: latent dimensions to traverse, attributes to manipulate."""

    dimensions: tuple[int, ...] = (traversal.DIMENSION,)
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelResults:
    """Results of one trained model; the functions named here describe the arrays.

    Attributes:
        test: Latents and losses of the test images (`inference.examine`).
        rebuilt: Reconstructions of `PaperResults.photos`, uint8.
        places: Test images in two dimensions (`embedding.embed`).
        effect: Effect of each latent dimension (`traversal.dimension_effects`).
        dimensions: Latent dimensions that are traversed.
        traversed: Their images (`traversal.traversals`).
        interpolation: Smoothness between pairs (`smoothness.interpolate`).
        scores: Cluster scores (`clusters.cluster_scores`); empty without attributes.
        manipulated: Faces with each attribute added (`attributes.manipulate`).
    """

    test: Arrays
    rebuilt: Array
    places: Array
    effect: Array
    dimensions: tuple[int, ...]
    traversed: Array
    interpolation: Arrays
    scores: Arrays
    manipulated: Mapping[str, Arrays]


@dataclass(frozen=True)
class PaperResults:
    """Results of both models and the data that they were examined on.

    Attributes:
        study: The study that trained them.
        timings: Inference times, one entry for each batch size.
        models: Results of each model by name.
        samples: Training images, uint8 `(n, channels, height, width)`.
        photos: The test images whose reconstructions are shown.
        judged: Attributes with scores; the columns of `labels`.
        labels: Labels of the test set, bool `(test, judged)`.
        pixels: Labels predicted by nearest neighbours in pixels, as `labels`.
        pair_photos: The two photos of each interpolation shown.
        options: The requested options.
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
    options: PaperOptions = field(default_factory=PaperOptions)


def require_both(study: StudyRecord) -> None:
    """Check that both models were trained.

    Raises:
        UserError: a model was not trained; the message gives the reason.
    """
    for trial in study.trials:
        if trial.reference and trial.state != "complete":
            raise UserError(
                f"{trial.name} was not trained ({trial.reason or trial.state}): use a smaller "
                "--size or --set training.batch_size=16"
            )


def check_options(
    options: PaperOptions, dataset: ImageDataset, architectures: Mapping[str, Architecture]
) -> None:
    """Check the options before hours of training.

    Raises:
        UserError: an attribute or a dimension does not exist, or an attribute has too few images.
    """
    smallest = min(one.latent_size for one in architectures.values())
    traversal.require_dimensions(options.dimensions, smallest)
    judged = attributes.judgeable(dataset, dataset.train[:TRAIN], dataset.test)
    attributes.chosen_attributes(options.attributes, judged, dataset.attribute_names)
