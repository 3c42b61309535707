"""`nas reconstruct`: pictures of one's own through a trained model."""

from __future__ import annotations

import json
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

    from nas.datasets.decoding import Shape
    from nas.protocol import TrainingConfig
    from nas.vae import VAE

_COLUMNS = 16


@dataclass(frozen=True)
class _Trained:
    """A model, how its images get their size, and the settings of its training."""

    model: VAE
    fit: str
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
    shape = _shape(trained, fit or trained.fit)
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
    from studies.store.finding import artefacts_of, find_trial

    record, trial = find_trial(text, root)
    folder, config = artefacts_of(text, root), record.config
    return _trained(folder, trial.digest, config.get("data"), config.get("training"))


def _of_folder(folder: Path) -> _Trained:
    from search_spaces.architecture import Architecture

    if not folder.is_dir():
        raise UserError(
            f"{quoted(str(folder))}: is neither STUDY#TRIAL, such as quickstart#3, nor a folder, "
            "such as nas study best writes"
        )
    described, result = folder / "architecture.json", folder / "result.json"
    digest = Architecture.load(described).digest if described.is_file() else None
    try:
        told = json.loads(result.read_bytes()) if result.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{result}: cannot be read ({error}); remove it") from None
    told = told if isinstance(told, dict) else {}
    return _trained(folder, digest, told.get("data"), told.get("training"))


def _trained(folder: Path, digest: str | None, data: Any, training: Any) -> _Trained:
    """Return the model of a folder.

    Args:
        folder: The folder of its weights.
        digest: Digest of the architecture that the weights must have; None if it is not known.
        data: The study's settings of images, if known.
        training: The study's settings of training, if known.

    Raises:
        UserError: there are no weights, or those of another architecture.
    """
    from nas.artefacts import WEIGHTS
    from nas.checkpoint import load_vae
    from nas.protocol import TrainingConfig

    if not (folder / WEIGHTS).exists():
        raise UserError(f"{folder}: has no {WEIGHTS}: the model was not trained, or they are gone")
    model = load_vae(folder / WEIGHTS)
    if digest not in (None, model.architecture.digest):
        raise UserError(
            f"{folder / WEIGHTS}: has the weights of another architecture, "
            f"{model.architecture.digest} instead of {digest}; remove it"
        )
    images = data if isinstance(data, Mapping) else {"kind": "folder"}
    squashed = images.get("kind", "faces") in ("faces", "celeba")  # as `DataConfig.fitting`
    fit = images.get("fit") or ("squash" if squashed else "crop")
    losses = training if isinstance(training, Mapping) else {}
    used = {key: losses[key] for key in ("ssim", "l1_weight") if key in losses}
    return _Trained(model, str(fit), TrainingConfig.model_validate(used))


def _shape(trained: _Trained, fit: str) -> Shape:
    from nas.datasets.decoding import Fit, Shape

    kinds: dict[str, Fit] = {"squash": "squash", "pad": "pad"}
    found = trained.model.architecture
    return Shape(found.image_size, found.image_channels, kinds.get(fit, "crop"))


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
