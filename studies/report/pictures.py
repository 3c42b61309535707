"""Reconstructions as embedded pictures: one row of images for each model."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas.artefacts import read_pixels
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import spread

if TYPE_CHECKING:
    from PIL import Image

_PIXELS = 512
"""Maximum width of a row in pixels: large images are fewer, which keeps the file small."""
_MEMBERS = 8


@dataclass(frozen=True)
class PictureRow:
    """A row of images.

    Attributes:
        trial: The trial that reconstructed them; None for the original images.
        uri: The row as a PNG data URI.
        images: Number of images.
    """

    trial: TrialRecord | None
    uri: str
    images: int


def picture_rows(study: StudyRecord) -> list[PictureRow]:
    """Return the originals, the references, then up to eight front members, best quality first.

    Trials without readable reconstructions are left out; without originals there are no rows.
    """
    samples = read_pixels(study.samples)
    if samples is None:
        return []
    members = [t for t in study.front if not t.reference and study.reconstructions(t).exists()]
    shown = [*study.references.values(), *spread(members, _MEMBERS)]
    loaded = [(trial, read_pixels(study.reconstructions(trial))) for trial in shown]
    rows = [(trial, images) for trial, images in loaded if images is not None]
    count = min(len(images) for _, images in [(None, samples), *rows])
    count = min(count, max(4, _PIXELS // samples.shape[-1]))
    return [
        PictureRow(trial, data_uri(images[:count]), count)
        for trial, images in [(None, samples), *rows]
    ]


def data_uri(images: npt.NDArray[np.uint8], kind: str = "PNG") -> str:
    """Return images uint8 `(n, channels, height, width)` side by side, as a data URI.

    `PNG` is lossless; for photos `WEBP` needs a tenth of the bytes.
    """
    options: dict[str, Any] = {"quality": 90} if kind == "WEBP" else {"optimize": True}
    buffer = io.BytesIO()
    side_by_side(images).save(buffer, kind, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{encoded}"


def side_by_side(images: npt.NDArray[np.uint8]) -> Image.Image:
    """Return images uint8 `(n, channels, height, width)` as one picture, side by side."""
    from PIL import Image

    pixels = np.concatenate(list(images.transpose(0, 2, 3, 1)), axis=1)
    return Image.fromarray(pixels.squeeze() if pixels.shape[-1] == 1 else pixels)
