"""The files beside the weights of a model that is given to a user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from nas.datasets.decoding import Fit
from nas.protocol import TrainingConfig
from search_spaces.architecture import Architecture
from search_spaces.errors import refusal


def model_files(architecture: Architecture, result: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the contents of `architecture.json` and `result.json`, by their names.

    Args:
        architecture: The model's architecture.
        result: What it is, what it costs and how good it is, as plain JSON types.
    """
    return {
        "architecture.json": (architecture.to_json() + "\n").encode(),
        "result.json": (json.dumps(dict(result), indent=1) + "\n").encode(),
    }


def fit_of(data: Any) -> Fit:
    """Return how a picture gets the model's size, from the settings of images if they are known."""
    images = data if isinstance(data, Mapping) else {"kind": "folder"}
    squashed = images.get("kind", "faces") in ("faces", "celeba")  # as `DataConfig.fitting`
    kinds: dict[Any, Fit] = {"squash": "squash", "crop": "crop", "pad": "pad"}
    fit = images.get("fit")
    usual: Fit = "squash" if squashed else "crop"
    return kinds.get(fit, usual) if isinstance(fit, str) else usual


def loss_settings(training: Any) -> TrainingConfig:
    """Return the settings of the loss, from those of the training if they are known.

    Raises:
        UserError: they are not valid.
    """
    losses = training if isinstance(training, Mapping) else {}
    used = {key: losses[key] for key in ("ssim", "l1_weight") if key in losses}
    try:
        return TrainingConfig.model_validate(used)
    except ValidationError as error:
        raise refusal(error, "training", TrainingConfig) from None
