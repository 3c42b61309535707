"""Build, train and evaluate VAEs from architectures, and search for better architectures.

The names in `__all__` are this package's interface; its modules are internal and may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.datasets.dataset import DataConfig, ImageDataset
    from nas.model import Model, load_model, train
    from nas.objectives import OBJECTIVES, Objective
    from nas.own.objectives import objective
    from nas.protocol import TrainingConfig
    from nas.vae import VAE, build_vae

__all__ = [
    "OBJECTIVES",
    "VAE",
    "DataConfig",
    "ImageDataset",
    "Model",
    "Objective",
    "TrainingConfig",
    "build_vae",
    "load_model",
    "objective",
    "train",
]

_HOMES = {
    "OBJECTIVES": "nas.objectives",
    "VAE": "nas.vae",
    "DataConfig": "nas.datasets.dataset",
    "ImageDataset": "nas.datasets.dataset",
    "Model": "nas.model",
    "Objective": "nas.objectives",
    "TrainingConfig": "nas.protocol",
    "build_vae": "nas.vae",
    "load_model": "nas.model",
    "objective": "nas.own.objectives",
    "train": "nas.model",
}
"""The module of each name, which is imported at its first use (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
