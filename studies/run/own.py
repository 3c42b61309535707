"""Try the user's own parts before a study begins, on random images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nas.evaluate import static_costs
from nas.findings import CandidateFailed
from nas.own.losses import find_loss
from nas.own.objectives import judges, own_static_costs
from nas.own.recipes import find_recipe
from nas.vae import build_vae
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from search_spaces.sizes import sides
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig

COUNT = 8
"""Number of random images."""

_DRAWN = 100
"""Random members of a space among which its blocks are looked for."""


def try_parts(config: StudyConfig, space: SearchSpace) -> None:
    """Call each objective, loss, recipe and block of the user's own once.

    An objective that is measured on the device is not called.

    Raises:
        UserError: one of them raises an exception, or returns something else than it must.
    """
    if not config.own_parts:
        return
    try_blocks(space)
    original = ORIGINAL.resized(space.image_size, space.image_channels)
    images = _random(COUNT, space.image_channels, *sides(space.image_size))
    rebuilt = (0.9 * images + 0.05).requires_grad_()
    try:
        own_static_costs(original, config.wanted)
        for judge in judges(config.wanted).values():
            judge(images, rebuilt.detach())
        if config.trains and (loss := find_loss(config.training.loss)):
            latent = _random(COUNT, original.latent_size)
            loss(rebuilt, images, latent, -latent)
        if config.trains and config.training.recipe in config.own_parts:
            recipe = find_recipe(config.training.recipe)
            recipe.optimiser(build_vae(original, seed=0), config.training.learning_rate)
    except CandidateFailed as failure:
        raise UserError(f"{failure} (tried on {COUNT} random images)") from None


def try_blocks(space: SearchSpace) -> None:
    """Build some members of the space that have blocks of the user's own, without memory.

    Raises:
        UserError: a block raises an exception, or returns something else than it must.
    """
    rng, tried = np.random.default_rng(0), set[str]()
    for _ in range(_DRAWN if space.own_blocks else 0):
        architecture = space.architecture(space.sample(rng))
        if tried >= set(architecture.own_blocks):
            continue
        tried |= set(architecture.own_blocks)
        try:
            static_costs(architecture)
        except CandidateFailed as failure:
            raise UserError(f"{failure} (tried in {architecture.summary})") from None


def _random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))
