"""`nas export`: write a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.cli.completion import ARCHITECTURES
from studies.cli.console import stdout
from studies.cli.help import TableHelp
from studies.cli.options import (
    OutPath,
    find_architecture,
    find_artefacts,
    progress_bar,
    root_option,
)

if TYPE_CHECKING:
    from nas.vae import VAE
    from profiling.onnx_export import OnnxReport

# An output called "mean" would clash with values of that name inside the graph.
_OUTPUTS = ("reconstruction", "latent_mean", "latent_log_variance")


@click.command(cls=TableHelp)
@click.argument("architecture", shell_complete=ARCHITECTURES)
@click.option(
    "--onnx",
    "path",
    type=OutPath(dir_okay=False),
    required=True,
    help="ONNX file to write.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Trained weights (.safetensors). Default: those of STUDY#TRIAL, otherwise random weights.",
)
@click.option(
    "--deterministic/--sampling",
    default=True,
    show_default=True,
    help="Decode the latent mean, or a sample whose noise is a second input.",
)
@root_option
def export(
    architecture: str, path: Path, weights: Path | None, deterministic: bool, root: Path
) -> None:
    """Write ARCHITECTURE as one ONNX file and verify it against PyTorch.

    ARCHITECTURE is a reference ({references}, original@64), a JSON or YAML file, or
    STUDY#TRIAL. Input: images (batch, channels, size, size) in [0, 1]. Outputs: reconstruction,
    latent mean and log-variance. With --sampling, a second input `eps` (batch, latent) is the
    noise: draw it from N(0, 1).
    """
    weights = weights or _stored_weights(architecture, root)
    model = _model(find_architecture(architecture, root), weights)
    with progress_bar(f"exporting {architecture}"):
        report = _exported(model, path, deterministic)
    stdout.say(_sentence(report))
    for kind, shapes in (("input", report.inputs), ("output", report.outputs)):
        for name, shape in shapes.items():
            stdout.say(f"  {kind:6}  {name:19}  {' x '.join(map(str, shape))}", style="dim")
    if weights is None:
        random = "the weights are random: give --weights to export a trained model"
        stdout.say(random, style="dim", wrap=True)


def _stored_weights(text: str, root: Path) -> Path | None:
    from nas.artefacts import WEIGHTS

    folder = find_artefacts(text, root)
    stored = folder / WEIGHTS if folder else None
    return stored if stored and stored.exists() else None


def _model(architecture: Architecture, weights: Path | None) -> VAE:
    from nas.checkpoint import load_vae
    from nas.vae import build_vae

    if weights is None:
        return build_vae(architecture, seed=0)
    model = load_vae(weights)
    if model.architecture != architecture:
        raise UserError(
            f"--weights {weights}: these weights belong to another architecture "
            f"({model.architecture.summary}); export that one, or give other weights"
        )
    return model


def _exported(model: VAE, path: Path, deterministic: bool) -> OnnxReport:
    import torch
    from torch import Tensor, nn

    from profiling.onnx_export import export_onnx

    class OfMean(nn.Module):
        """The model's forward pass with the latent mean instead of a sample."""

        def __init__(self) -> None:
            super().__init__()
            self.vae = model

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, log_variance = self.vae.encode(images)
            return self.vae.decode(mean), mean, log_variance

    shape = model.architecture
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(1, *shape.image_shape, generator=draw)
    if deterministic:
        return export_onnx(OfMean(), images, path, _OUTPUTS)
    eps = torch.randn(1, shape.latent_size, generator=draw)
    return export_onnx(model, (images, eps), path, _OUTPUTS)


def _sentence(report: OnnxReport) -> str:
    checked = "outputs not checked because onnxruntime is not installed"
    if report.max_error is not None:
        error = f"{report.max_error:.1g} of their range"
        checked = f"outputs in ONNX Runtime within {error} of PyTorch's in float64"
    batch = "any batch" if report.dynamic_batch else "fixed batch"
    size = f"{report.file_bytes / 1e6:.1f} MB"
    return f"{report.path}: {size}, opset {report.opset}, {batch}, valid, {checked}"
