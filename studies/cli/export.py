"""`nas export`: write a model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from search_spaces.errors import UserError
from studies.cli.completion import ARCHITECTURES
from studies.cli.console import stdout
from studies.cli.help import TableHelp
from studies.cli.options import OutPath, find_architecture, progress_bar, root_option

if TYPE_CHECKING:
    from nas.vae import VAE
    from profiling.onnx_export import OnnxReport


@click.command(cls=TableHelp)
@click.argument("model", shell_complete=ARCHITECTURES)
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
    help="Trained weights (.safetensors) of the architecture MODEL.",
)
@click.option(
    "--untrained", is_flag=True, help="Export the architecture MODEL with random weights."
)
@click.option(
    "--deterministic/--sampling",
    default=True,
    show_default=True,
    help="Decode the latent mean, or a sample whose noise is a second input.",
)
@root_option
def export(
    model: str,
    path: Path,
    weights: Path | None,
    untrained: bool,
    deterministic: bool,
    root: Path,
) -> None:
    """Write MODEL as one ONNX file and verify it against PyTorch.

    MODEL is a trained model: STUDY#TRIAL (the training with the lowest validation loss), a folder
    such as `nas study best` writes, or a file of weights (.safetensors). Or it is an architecture,
    a reference ({references}, original@64) or a JSON or YAML file, with --weights or
    --untrained. Input: images (batch, channels, size, size) in [0, 1]. Outputs: reconstruction,
    latent mean and log-variance. With --sampling, a second input `eps` (batch, latent) is the
    noise: draw it from N(0, 1).
    """
    vae, whose = _model(model, weights, untrained, root)
    with progress_bar(f"exporting {model}"):
        report = _exported(vae, path, deterministic)
    stdout.say(_sentence(report))
    for kind, shapes in (("input", report.inputs), ("output", report.outputs)):
        for name, shape in shapes.items():
            stdout.say(f"  {kind:6}  {name:19}  {' x '.join(map(str, shape))}", style="dim")
    stdout.say(f"weights: {whose}", style="dim", wrap=True)


def _model(text: str, weights: Path | None, untrained: bool, root: Path) -> tuple[VAE, str]:
    """Return the model to export, and what its weights are.

    Raises:
        UserError: there is no such model, it has no weights, or they belong to another one.
    """
    from nas.checkpoint import load_vae
    from nas.vae import build_vae
    from studies.store.trained import find_trained

    if weights is None and not untrained:
        if found := find_trained(text, root):
            return found.model, f"{found.weights} {found.whose}".rstrip()
        find_architecture(text, root)
        raise UserError(
            f"{text}: an architecture has no weights; give --weights FILE, a trained model "
            "(STUDY#TRIAL, a folder of nas study best, a .safetensors file), or --untrained"
        )
    if weights is not None and untrained:
        raise UserError("--weights and --untrained: give only one of them")
    architecture = find_architecture(text, root)
    if weights is None:
        return build_vae(architecture, seed=0), "random (--untrained)"
    model = load_vae(weights)
    if model.architecture != architecture:
        raise UserError(
            f"--weights {weights}: these weights belong to another architecture "
            f"({model.architecture.summary}); export that one, or give other weights"
        )
    return model, str(weights)


def _exported(model: VAE, path: Path, deterministic: bool) -> OnnxReport:
    import torch

    from nas.deploy.passes import MODEL, OUTPUTS, Reconstruction
    from profiling.onnx_export import export_onnx

    shape = model.architecture
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(1, *shape.image_shape, generator=draw)
    metadata = {"architecture": shape.to_json(), "digest": shape.digest}
    if deterministic:
        return export_onnx(Reconstruction(model), images, path, OUTPUTS[MODEL], metadata)
    eps = torch.randn(1, shape.latent_size, generator=draw)
    return export_onnx(model, (images, eps), path, OUTPUTS[MODEL], metadata)


def _sentence(report: OnnxReport) -> str:
    checked = "outputs not checked because onnxruntime is not installed"
    if report.max_error is not None:
        error = f"{report.max_error:.1g} of their range"
        checked = f"outputs in ONNX Runtime within {error} of PyTorch's in float64"
    batch = "any batch" if report.dynamic_batch else "fixed batch"
    size = f"{report.file_bytes / 1e6:.1f} MB"
    return f"{report.path}: {size}, opset {report.opset}, {batch}, valid, {checked}"
