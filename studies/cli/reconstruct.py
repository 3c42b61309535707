"""`nas reconstruct`: pictures of one's own through a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search_spaces.errors import UserError, quoted
from studies.cli.console import stdout
from studies.cli.data import save_picture
from studies.cli.options import OutPath, root_option
from studies.record.formats import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from nas.datasets.decoding import Fit, Shape
    from nas.protocol import TrainingConfig
    from nas.vae import VAE

_COLUMNS = 16


@dataclass(frozen=True)
class _Trained:
    """A model, how its images are read, and the settings of its training."""

    model: VAE
    fit: Fit
    bits: int | None
    training: TrainingConfig


@click.command()
@click.argument("model", metavar="STUDY#TRIAL|FOLDER")
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--fit",
    type=click.Choice(["squash", "crop", "pad"]),
    help="How an image gets the model's size. Default: as in the model's study.",
)
@click.option("-o", "--out", type=OutPath(), default=Path("reconstructions.png"),
              show_default=True, help="PNG file to write.")  # fmt: skip
@root_option
def reconstruct(
    model: str, images: tuple[Path, ...], fit: str | None, out: Path, root: Path
) -> None:
    """Show images beside their reconstructions by a trained model, with their losses.

    FOLDER is one that `nas study best` wrote. Below each row of images are their reconstructions
    from the mean of the latent.
    """
    import numpy as np

    trained = _of_trial(model, root) if "#" in model else _of_folder(Path(model))
    shape = _shape(trained, fit)
    pixels = np.stack([_read(path, shape) for path in images])
    rebuilt, losses = _rebuilt(trained, pixels)
    save_picture(_sheet(pixels, rebuilt), out)
    for path, (reconstruction, ssim, l1) in zip(images, losses, strict=True):
        stdout.say(
            f"{path}: reconstruction loss {reconstruction:.4f}, SSIM {ssim:.4f}, L1 {l1:.4f}"
        )
    count = counted(len(images), "image")
    stdout.say(f"{out}: {count} ({shape.fit}) above their reconstructions")


def _of_trial(text: str, root: Path) -> _Trained:
    from nas.artefacts import WEIGHTS
    from studies.store.finding import artefacts_of, find_trial
    from studies.store.trained import weights_of

    record, trial = find_trial(text, root)
    model = weights_of(artefacts_of(text, root) / WEIGHTS, trial.digest)
    return _trained(model, record.config.get("data"), record.config.get("training"))


def _of_folder(folder: Path) -> _Trained:
    from studies.store.trained import trained_folder

    if not folder.is_dir():
        raise UserError(
            f"{quoted(str(folder))}: is neither STUDY#TRIAL, such as quickstart#3, nor a folder, "
            "such as nas study best writes"
        )
    found = trained_folder(folder)
    return _trained(found.model, found.result.get("data"), found.result.get("training"))


def _trained(model: VAE, data: Any, training: Any) -> _Trained:
    """Return a model with the settings of images and training of its study, if they are known."""
    from studies.record.model_files import fit_of, loss_settings

    bits = data.get("grey_bits") if isinstance(data, Mapping) else None
    stated = bits if isinstance(bits, int) else None
    return _Trained(model, fit_of(data), stated, loss_settings(training))


def _shape(trained: _Trained, fit: str | None) -> Shape:
    from nas.datasets.decoding import Shape
    from studies.record.model_files import fit_of

    found = trained.model.architecture
    used = fit_of({"fit": fit}) if fit else trained.fit
    return Shape(found.image_size, found.image_channels, used, trained.bits)


def _read(path: Path, shape: Shape) -> NDArray[np.uint8]:
    from nas.datasets.decoding import decoded, quiet_decoders, reason

    if path.is_dir():
        raise UserError(f"{path}: is a folder; give images, such as {path}/*.jpg")
    try:
        with quiet_decoders():
            return decoded(path, shape).pixels
    except Exception as error:  # decoders raise any type for a damaged file
        raise UserError(f"{path}: cannot be read as an image: {reason(error)}") from None


def _rebuilt(
    trained: _Trained, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], list[tuple[float, float, float]]]:
    """Return reconstructions of images, and reconstruction loss, SSIM and L1 of each."""
    import numpy as np
    import torch

    from nas.protocol import forward

    rebuilt, losses = [], []
    with torch.inference_mode():
        for one in pixels:
            image = torch.from_numpy(one[None]).float() / 255
            terms, decoded, _ = forward(trained.model, image, trained.training, None)
            losses.append((float(terms.reconstruction), float(terms.ssim), float(terms.l1)))
            rebuilt.append(np.rint(decoded[0].numpy() * 255).clip(0, 255).astype(np.uint8))
    return np.stack(rebuilt), losses


def _sheet(pixels: NDArray[np.uint8], rebuilt: NDArray[np.uint8]) -> Image.Image:
    """Return rows of images, each above the row of its reconstructions."""
    import numpy as np

    from studies.report.pictures import side_by_side

    pairs = np.concatenate([pixels, rebuilt], axis=2)
    columns = min(_COLUMNS, len(pairs))
    white = np.full((-len(pairs) % columns, *pairs.shape[1:]), 255, np.uint8)
    filled = np.concatenate([pairs, white])
    rows: Sequence[NDArray[np.uint8]] = np.split(filled, len(filled) // columns)
    return side_by_side(np.concatenate(rows, axis=2))
