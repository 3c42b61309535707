"""Objectives. The names of the arguments say what a value is computed from."""

from __future__ import annotations

import time

from torch import Tensor, nn

from nas import VAE, objective


@objective(unit="layers", compared_by="factor")
def convolutions(model: VAE) -> float:
    """Number of convolutions, from the network alone."""
    kinds = nn.Conv2d | nn.ConvTranspose2d
    return float(sum(isinstance(module, kinds) for module in model.modules()))


@objective(unit="ms", compared_by="factor", title="CPU time")
def cpu_ms(model: VAE, images: Tensor) -> float:
    """Processor time of one forward pass, the least of five, measured on the study's device."""
    return 1000 * min(_seconds(model, images) for _ in range(5))


def _seconds(model: VAE, images: Tensor) -> float:
    begun = time.process_time()
    model(images)
    return time.process_time() - begun


@objective(direction="maximise", ideal=1.0)
def sharpness(images: Tensor, reconstructions: Tensor) -> float:
    """Share of the images' contrast between neighbouring pixels that reconstructions keep."""
    kept = _contrast(reconstructions) / _contrast(images).clamp_min(1e-6)
    return float(kept.clamp(0, 1))


def _contrast(images: Tensor) -> Tensor:
    return images.diff(dim=-1).abs().mean()
