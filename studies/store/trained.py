"""A trained model that the user names: a trial, a folder, or a file of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.artefacts import WEIGHTS
from nas.checkpoint import load_vae
from nas.vae import VAE
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.record.records import StudyRecord, TrialRecord
from studies.store.finding import address, best_weights_of, find_trial
from studies.store.store import StudyStore


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        name: Its name as the user gave it.
        weights: File of its weights.
        model: The network on the CPU, in evaluation mode.
        study: Its study; None if it was given as a folder or file.
        trial: Its trial, likewise.
        whose: Which training of the trial the weights are from, likewise "".
        result: The content of `result.json` of its folder; empty if there is none.
    """

    name: str
    weights: Path
    model: VAE
    study: StudyRecord | None = None
    trial: TrialRecord | None = None
    whose: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        """The architecture of the network."""
        return self.model.architecture


def find_trained(text: str, root: Path) -> Trained | None:
    """Return the trained model that the user names; None if `text` has another form.

    Args:
        text: `STUDY#TRIAL`, a folder such as `nas study best` writes, or a file of weights
            (.safetensors).
        root: Folder of all studies.

    Raises:
        UserError: there is no such trial or file, it has no weights, or they are damaged or of
            another architecture.
    """
    path = Path(text)
    if path.suffix == ".safetensors":
        return Trained(text, path, load_vae(path))
    if path.suffix not in {".json", ".yaml", ".yml"} and "#" in text:
        return trained_trial(*find_trial(text, root), root)
    return trained_folder(path) if path.is_dir() else None


def trained_trial(study: StudyRecord, trial: TrialRecord, root: Path) -> Trained:
    """Return the model of a trial, from its training with the lowest validation loss.

    Raises:
        UserError: it has no trained weights, or they are damaged.
    """
    store, name = StudyStore.open(root, study.name), address(study, trial)
    store.fetch(trial.digest)
    weights, whose = best_weights_of(store, trial)
    if not weights.is_file():
        raise UserError(
            f"{name}: has no trained weights in the study's folder; choose a complete trial of a "
            "study that trains"
        )
    return Trained(name, weights, weights_of(weights, trial.digest), study, trial, whose)


def trained_folder(folder: Path) -> Trained:
    """Return the model of a folder, such as `nas study best` and `nas compress` write.

    Raises:
        UserError: it has no weights, they are damaged or those of another architecture, or its
            `result.json` cannot be read.
    """
    described, result = folder / "architecture.json", folder / "result.json"
    digest = Architecture.load(described).digest if described.is_file() else None
    try:
        known = json.loads(result.read_bytes()) if result.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{result}: cannot be read ({error}); remove it") from None
    model = weights_of(folder / WEIGHTS, digest)
    known = known if isinstance(known, dict) else {}
    return Trained(str(folder), folder / WEIGHTS, model, result=known)


def weights_of(path: Path, digest: str | None) -> VAE:
    """Return the model of a file of weights.

    Args:
        path: The file.
        digest: Digest of the architecture that it must have; None if it is not known.

    Raises:
        UserError: there is no such file, it is damaged or of another architecture.
    """
    if not path.exists():
        raise UserError(
            f"{path.parent}: has no {path.name}: the model was not trained, or they are gone"
        )
    model = load_vae(path)
    if digest not in (None, model.architecture.digest):
        raise UserError(
            f"{path}: has the weights of another architecture, {model.architecture.digest} "
            f"instead of {digest}; remove it"
        )
    return model
