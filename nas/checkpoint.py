"""Weights and training state on disk: safetensors files with a checksum, written atomically.

The files contain no code, and any safetensors reader can open them. Every load verifies the
checksum of tensors and metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nas.artefacts import write_or_refuse
from nas.vae import VAE, build_vae
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

_CHECKSUM, _ARCHITECTURE = "sha256", "architecture"


def save_weights(model: VAE, path: Path) -> None:
    """Write a model's weights with its architecture; `load_vae` restores the model.

    Raises:
        UserError: the file cannot be written.
    """
    metadata = {_ARCHITECTURE: json.dumps(model.architecture.to_dict())}
    write_tensors(path, model.state_dict(), metadata)


def load_vae(path: Path) -> VAE:
    """Return the model that `save_weights` wrote, on the CPU in evaluation mode.

    Raises:
        UserError: the file is missing, damaged, or not written by `save_weights`.
    """
    tensors, metadata = read_tensors(path)
    if _ARCHITECTURE not in metadata:
        raise UserError(
            f"{path}: contains no architecture; give a file of weights that this tool wrote"
        )
    try:
        described = json.loads(metadata[_ARCHITECTURE])
    except (ValueError, RecursionError):
        raise UserError(f"{path}: damaged (its architecture is not JSON); remove it") from None
    architecture = Architecture.from_dict(described, str(path))
    with torch.device("meta"):
        expected = build_vae(architecture).state_dict()
    if difference := misfit(expected, tensors):
        raise UserError(f"{path}: does not fit its architecture ({difference}); remove it")
    return with_weights(architecture, tensors)


def with_weights(architecture: Architecture, weights: Mapping[str, Tensor]) -> VAE:
    """Return the network of `architecture` in evaluation mode, sharing the tensors of `weights`."""
    with torch.device("meta"):
        model = build_vae(architecture)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def misfit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """Return the first difference in names, shapes and types of two sets of weights; or None."""
    for name in sorted({*expected, *weights}):
        wanted, found = expected.get(name), weights.get(name)
        if wanted is None or found is None:
            return f"{name[:80]!r} is {'missing' if found is None else 'unknown'}"
        if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            return (
                f"{name} is {found.dtype} {tuple(found.shape)}, expected {wanted.dtype} "
                f"{tuple(wanted.shape)}"
            )
    return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write named tensors and metadata to `path`, replacing an existing file in one step.

    Raises:
        UserError: the file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_or_refuse(path, save(plain, {**metadata, _CHECKSUM: _checksum(plain, metadata)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, on the CPU, and the metadata that `write_tensors` wrote.

    Raises:
        UserError: the file is missing, damaged, or not written by `write_tensors`.
    """
    if path.exists() and not path.is_file():  # opening a FIFO would wait for ever
        raise UserError(f"{path}: cannot be read (not an ordinary file)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if metadata.pop(_CHECKSUM, None) != _checksum(tensors, metadata):
        raise UserError(f"{path}: damaged (its checksum does not match); remove it")
    return tensors, metadata


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return sixteen hexadecimal digits that identify weights: equal for equal ones."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return _checksum(plain, {})[:16]


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
