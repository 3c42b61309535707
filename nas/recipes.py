"""Training recipes: which optimiser trains a model, and with which weights the model is evaluated.

`paper` is the paper's protocol, unchanged: Adam at a constant rate, the latest weights, and the
running statistics of BatchNorm. `schedule_free` is the default; docs/training.md says why, and
`benchmarks.recipes` compares it with others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from nas.vae import VAE

Precision = Literal["auto", "float32", "bfloat16"]

FAN_IN = 256
"""Largest fan-in at which a head of the latent is trained at the full learning rate."""

WARMUP_STEPS = 16
"""Steps over which the learning rate of `schedule_free` rises from 0."""


class Optimiser(Protocol):
    """Trains the parameters of one model from their gradients.

    A model has two sets of weights, which may be equal: those at which gradients are computed, and
    those that are evaluated. `begin` switches to the former and `end` to the latter. State is
    stored and restored while the model has its evaluated weights.
    """

    def begin(self) -> None:
        """Give the model the weights that are trained."""

    def step(self) -> None:
        """Take one step from the gradients, then remove them."""

    def end(self) -> None:
        """Give the model the weights that are evaluated."""

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Return the tensors by name, and the numbers of each group of parameters."""

    def restore(self, tensors: Mapping[str, Tensor], numbers: list[dict[str, Any]]) -> None:
        """Continue from what `state` returned.

        Raises:
            LookupError, RuntimeError: something is missing or has another shape.
        """


@dataclass(frozen=True)
class Recipe:
    """A way to train that has one setting for every architecture.

    Attributes:
        learning_rate: The default learning rate.
        recalibrates: Whether the BatchNorm statistics are computed again, with the weights that are
            evaluated, before each evaluation.
        optimiser: Returns the optimiser of a model at a learning rate.
        explanation: One sentence for people.
        precision: The default precision of the steps.
    """

    learning_rate: float
    recalibrates: bool
    optimiser: Callable[[VAE, float], Optimiser]
    explanation: str
    precision: Precision = "auto"


class Adam:
    """Adam at a constant learning rate (Kingma and Ba 2015), as in the paper."""

    def __init__(self, model: VAE, learning_rate: float) -> None:
        self._parameters = dict(model.named_parameters())
        fused = next(model.parameters()).device.type in ("cpu", "cuda")
        self._adam = torch.optim.Adam(self._parameters.values(), learning_rate, fused=fused)

    def begin(self) -> None:
        """Do nothing: the evaluated weights are the trained ones."""

    def end(self) -> None:
        """Do nothing."""

    def step(self) -> None:
        """Take one step, then remove the gradients."""
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)  # frees the memory before the next forward pass

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Return both moments and the number of steps of each parameter."""
        return _named("adam", self._parameters, self._adam), []

    def restore(self, tensors: Mapping[str, Tensor], numbers: list[dict[str, Any]]) -> None:
        """Continue from a state."""
        state = {}
        for index, (name, parameter) in enumerate(self._parameters.items()):
            moments = {
                key: _like(parameter, tensors[f"adam.{key}.{name}"])
                for key in ("exp_avg", "exp_avg_sq")
            }
            state[index] = {"step": tensors[f"adam.step.{name}"], **moments}
        groups = self._adam.state_dict()["param_groups"]
        self._adam.load_state_dict({"state": state, "param_groups": groups})


class ScheduleFree:
    """Schedule-free AdamW with smaller steps for the heads of the latent.

    The evaluated weights are an average over all steps, which replaces the decay of the learning
    rate: no step depends on the length of the training (Defazio et al. 2024, "The Road Less
    Scheduled"). Adam's first step changes *every* weight by the learning rate. The log-variance
    therefore changes by the rate times the sum of its inputs, 20,736 positive numbers in
    `original`, and the KL divergence explodes. So the rate of both heads is multiplied by
    `FAN_IN / inputs` where they have more inputs than `FAN_IN`.
    """

    def __init__(self, model: VAE, learning_rate: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._optimiser = AdamWScheduleFree(
            parameter_groups(model, learning_rate), lr=learning_rate, warmup_steps=WARMUP_STEPS
        )

    def begin(self) -> None:
        """Give the model the weights between the average and the last step."""
        self._optimiser.train()

    def end(self) -> None:
        """Give the model the average."""
        self._optimiser.eval()

    def step(self) -> None:
        """Take one step, then remove the gradients."""
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Return the last step and the second moment of each parameter, and the averages' sums."""
        groups = self._optimiser.param_groups
        numbers = [{key: group[key] for key in _NUMBERS} for group in groups]
        return _named("schedule_free", self._parameters, self._optimiser), numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: list[dict[str, Any]]) -> None:
        """Continue from a state."""
        kept = [{key: group[key] for key in _NUMBERS} for group in numbers]
        state = {
            parameter: {
                key: _like(parameter, tensors[f"schedule_free.{key}.{name}"])
                for key in ("z", "exp_avg_sq")
            }
            for name, parameter in self._parameters.items()
        }
        for group, changed in zip(self._optimiser.param_groups, kept, strict=True):
            group.update(changed)
        self._optimiser.state.update(state)


_NUMBERS = ("k", "weight_sum", "lr_max", "scheduled_lr")
"""The entries of a group of `AdamWScheduleFree` that change from step to step."""


def parameter_groups(model: VAE, learning_rate: float) -> list[dict[str, Any]]:
    """Return the parameters of a model in groups: the heads of the latent, with their rate, last.

    A rate is `learning_rate` times min(1, `FAN_IN` / inputs of the head).
    """
    heads: list[nn.Linear] = [model.encoder.mean, model.encoder.log_variance]
    scale = min(1.0, FAN_IN / heads[0].in_features)
    special = [parameter for head in heads for parameter in head.parameters()]
    known = {id(parameter) for parameter in special}
    others = [one for one in model.parameters() if id(one) not in known]
    return [{"params": others}, {"params": special, "lr": learning_rate * scale}]


def _named(
    prefix: str, parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    def values() -> Iterator[tuple[str, Tensor]]:
        for name, parameter in parameters.items():
            for key, value in optimiser.state[parameter].items():
                yield f"{prefix}.{key}.{name}", value

    return dict(values())


def _like(parameter: Tensor, stored: Tensor) -> Tensor:
    """Return a stored value in the memory layout of its parameter.

    A fused step reads parameter and moments in memory order.

    Raises:
        RuntimeError: the shapes differ.
    """
    return torch.empty_like(parameter.detach()).copy_(stored)


RECIPES: dict[str, Recipe] = {
    "schedule_free": Recipe(
        1e-2,
        recalibrates=True,
        optimiser=ScheduleFree,
        explanation="schedule-free AdamW, averaged weights, smaller steps for the latent's heads",
    ),
    "paper": Recipe(
        1e-4,
        recalibrates=False,
        optimiser=Adam,
        explanation="the paper's protocol: Adam at a constant learning rate",
        precision="float32",
    ),
}
"""Name -> recipe; the first is the default."""

DEFAULT_RECIPE = next(iter(RECIPES))
