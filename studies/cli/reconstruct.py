"""`nas reconstruct`: pictures of one's own through a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search_spaces.errors import UserError
from studies.cli.console import stdout
from studies.cli.data import save_picture
from studies.cli.options import OutPath, find_artefacts, root_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nas.vae import VAE


@click.command()
@click.argument("trial", metavar="STUDY#TRIAL")
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--fit", type=click.Choice(["squash", "crop", "pad"]), default="crop",
              show_default=True, help="How an image gets the size of the model's.")  # fmt: skip
@click.option("-o", "--out", type=OutPath(), default=Path("reconstructions.png"),
              show_default=True, help="PNG file to write.")  # fmt: skip
@root_option
def reconstruct(trial: str, images: tuple[Path, ...], fit: str, out: Path, root: Path) -> None:
    """Show images beside their reconstructions by a trained model, with their losses.

    The first row has the images, the second one the reconstructions from the mean of the latent.
    """
    import numpy as np

    from nas.artefacts import WEIGHTS
    from nas.checkpoint import load_vae
    from studies.report.pictures import side_by_side

    folder = find_artefacts(trial, root)
    if folder is None:
        raise UserError(f"{trial}: is no trial; give STUDY#TRIAL, such as quickstart#3")
    model = load_vae(folder / WEIGHTS)
    pixels = np.stack([_read(path, fit, model) for path in images])
    rebuilt, losses = _rebuilt(model, pixels)
    save_picture(side_by_side(np.concatenate([pixels, rebuilt], axis=2)), out)
    for path, (reconstruction, ssim, l1) in zip(images, losses, strict=True):
        stdout.say(
            f"{path}: reconstruction loss {reconstruction:.4f}, SSIM {ssim:.4f}, L1 {l1:.4f}"
        )
    stdout.say(f"{out}: {len(images)} images above their reconstructions")


def _read(path: Path, fit: str, model: VAE) -> NDArray[np.uint8]:
    from nas.datasets.decoding import Fit, Shape, decoded, quiet_decoders, reason

    kind: Fit = "squash" if fit == "squash" else "pad" if fit == "pad" else "crop"
    shape = Shape(model.architecture.image_size, model.architecture.image_channels, kind)
    try:
        with quiet_decoders():
            return decoded(path, shape).pixels
    except Exception as error:  # decoders raise any type for a damaged file
        raise UserError(f"{path}: cannot be read as an image: {reason(error)}") from None


def _rebuilt(
    model: VAE, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], list[tuple[float, float, float]]]:
    """Return reconstructions of images, and reconstruction loss, SSIM and L1 of each."""
    import numpy as np
    import torch

    from nas.losses import vae_loss

    images = torch.from_numpy(pixels).float() / 255
    losses = []
    with torch.inference_mode():
        mean, log_variance = model.eval().encode(images)
        decoded = model.decode(mean)
        for row in range(len(images)):
            one = slice(row, row + 1)
            terms = vae_loss(decoded[one], images[one], mean[one], log_variance[one])
            losses.append((float(terms.reconstruction), float(terms.ssim), float(terms.l1)))
    return np.rint(decoded.numpy() * 255).clip(0, 255).astype(np.uint8), losses
