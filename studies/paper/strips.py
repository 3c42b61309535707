"""The page's pictures: sheets of labelled rows of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from search_spaces.errors import UserError
from studies.paper.attributes import STRENGTHS
from studies.paper.results import ModelResults, PaperResults
from studies.paper.stored import Array
from studies.paper.traversal import STEPS, USED_NATS, divergence, rank_of
from studies.report.pictures import data_uri, side_by_side


@dataclass(frozen=True)
class Strip:
    """A labelled row of images, uint8 `(n, channels, height, width)`."""

    label: str
    images: Array
    detail: str = ""

    @property
    def uri(self) -> str:
        """The row as a data URI."""
        return data_uri(self.images, "WEBP")


@dataclass(frozen=True)
class Sheet:
    """A group of rows with titles above the columns; `key` is its file name without suffix."""

    key: str
    title: str
    strips: list[Strip]
    heads: Sequence[str] = ()
    caption: str = ""


def sample_sheet(results: PaperResults) -> Sheet:
    """Return two rows of training images."""
    half = len(results.samples) // 2
    rows = [Strip("", part) for part in (results.samples[:half], results.samples[half:])]
    return Sheet("samples", "Training images", [row for row in rows if len(row.images)])


def reconstruction_sheet(results: PaperResults) -> Sheet:
    """Return test images and below them their reconstructions by both models."""
    rows = [Strip("test images", results.photos)]
    for name, one in results.models.items():
        loss, similarity = (float(np.mean(one.test[key])) for key in ("total", "ssim"))
        rows.append(Strip(name, one.rebuilt, f"test loss {loss:.4f}, SSIM {similarity:.3f}"))
    caption = (
        "Each image is decoded from its latent mean, without sampling. The numbers are means "
        "over the test set."
    )
    return Sheet("reconstructions", "Side by side", rows, caption=caption)


def traversal_sheets(results: PaperResults) -> list[Sheet]:
    """Return one sheet for each model, with a row for each dimension."""
    return [_traversals(name, one) for name, one in results.models.items()]


def attribute_sheets(results: PaperResults) -> list[Sheet]:
    """Return one sheet for each attribute, with a row for each face and model."""
    first = next(iter(results.models.values()))
    return [_attribute(results, name) for name in first.manipulated]


def interpolation_sheet(results: PaperResults) -> Sheet:
    """Return interpolations between test images, a row for each pair and model."""
    rows = []
    for index, photos in enumerate(results.pair_photos):
        for name, one in results.models.items():
            images = np.concatenate([photos[:1], one.interpolation["images"][index], photos[1:]])
            variation = one.interpolation["step_variation"][index]
            detail = (
                f"step variation {variation:.2f}" if np.isfinite(variation) else "all images equal"
            )
            rows.append(Strip(name, images, detail))
    count = len(rows[0].images) - 2 if rows else 0
    shares = [f"{100 * share:.0f} %" for share in np.linspace(0, 1, count)] if count else []
    return Sheet("ways", "From one test image to another", rows, ("photo", *shares, "photo"))


def write_sheets(sheets: Sequence[Sheet], folder: Path) -> list[Path]:
    """Write each sheet as one PNG of its rows, without labels; return the paths.

    Raises:
        UserError: the folder cannot be written.
    """
    from PIL import Image

    written = []
    for sheet in sheets:
        rows = [side_by_side(strip.images) for strip in sheet.strips]
        size = (max(row.width for row in rows), sum(row.height for row in rows))
        picture, top = Image.new("RGB", size, "white"), 0
        for row in rows:
            picture.paste(row, (0, top))
            top += row.height
        written.append(folder / f"{sheet.key}.png")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(written[-1])
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    return written


def _traversals(name: str, one: ModelResults) -> Sheet:
    nats = divergence(one.test["mean"], one.test["log_variance"])
    rows = [
        Strip(
            f"dimension {dimension}",
            images,
            f"effect {one.effect[dimension]:.4f}, rank {rank_of(dimension, one.effect)}",
        )
        for dimension, images in zip(one.dimensions, one.traversed, strict=True)
    ]
    used = int((nats > USED_NATS).sum())
    caption = f"{used} of {len(nats)} dimensions carry more than {USED_NATS} nats."
    heads = [f"{step:g}" for step in STEPS]
    return Sheet(f"traversals-{name}", name, rows, heads, caption)


def _attribute(results: PaperResults, attribute: str) -> Sheet:
    moved = {name: one.manipulated[attribute] for name, one in results.models.items()}
    faces = min(len(one["images"]) for one in moved.values())
    rows = [
        Strip(name, one["images"][face], f"face {face + 1}")
        for face in range(faces)
        for name, one in moved.items()
    ]
    heads = [f"{strength:+g}" if strength else "0" for strength in STRENGTHS]
    return Sheet(f"attribute-{attribute}", attribute.replace("_", " "), rows, heads)
