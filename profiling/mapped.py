"""Weights in memory like that of a model that was loaded from a file.

Loading a file of weights maps it into memory, often in huge pages, where a model that was built
has its weights in pages of 4 KiB. On a virtual machine that made `original` at 64 pixels 6 %
faster, and its first pass after passes of other models three times as fast; smaller models gained
less. A model in use was loaded, so models are timed as if they had been.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNMENT = 64
"""Bytes to which the start of each tensor is aligned, as torch aligns what it allocates."""


@contextmanager
def mapped_weights(models: Iterable[object]) -> Iterator[None]:
    """Let parameters and buffers of modules on the CPU lie in mapped files while the body runs.

    Each module has a file of its own, which has no name any more when the body starts. Afterwards
    the modules are as they were. What is not a module, or on another device, is left alone, and so
    is a module for whose file there is no space.
    """
    seen = set[int]()
    with ExitStack() as stack:
        for model in models:
            if isinstance(model, nn.Module):
                stack.enter_context(_mapped(_tensors(model, seen)))
        yield


@contextmanager
def _mapped(tensors: list[Tensor]) -> Iterator[None]:
    before = [tensor.data for tensor in tensors]
    try:
        after = _in_a_file(before) if before else []
    except OSError:
        after = before
    _point(tensors, after)
    try:
        yield
    finally:
        _point(tensors, before)


def _tensors(model: nn.Module, seen: set[int]) -> list[Tensor]:
    """Return the dense tensors of a module on the CPU that were not seen, and add them to `seen`.

    Copies of a model may share them.
    """
    found = []
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) not in seen and tensor.device.type == "cpu" and _dense(tensor):
            seen.add(id(tensor))
            found.append(tensor)
    return found


def _dense(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last or tensor.is_contiguous()


def _in_a_file(tensors: list[Tensor]) -> list[Tensor]:
    """Return copies of tensors, with the same strides, in one mapped file.

    Raises:
        OSError: the file cannot be written.
    """
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        bytes_ = tensor.numel() * tensor.element_size()
        size += -(-bytes_ // _ALIGNMENT) * _ALIGNMENT
    handle, path = tempfile.mkstemp(prefix="nas-weights-")
    try:
        with os.fdopen(handle, "wb") as file:
            for start, tensor in zip(starts, tensors, strict=True):
                file.seek(start)
                file.write(_bytes(tensor))
            file.truncate(max(size, _ALIGNMENT))
        length = max(size, _ALIGNMENT)
        storage: Any = torch.UntypedStorage.from_file(path, shared=False, nbytes=length)
    except RuntimeError as error:  # torch's error of a mapping
        raise OSError(str(error)) from error
    finally:
        with suppress(OSError):  # Windows keeps a mapped file; the system removes temporary files
            Path(path).unlink()
    return [
        torch.empty(0, dtype=tensor.dtype).set_(
            storage, start // tensor.element_size(), tensor.shape, tensor.stride()
        )
        for start, tensor in zip(starts, tensors, strict=True)
    ]


def _bytes(tensor: Tensor) -> bytes:
    """Return the content of a dense tensor in the order of its memory."""
    flat = torch.as_strided(tensor.detach(), (tensor.numel(),), (1,), tensor.storage_offset())
    return flat.view(torch.uint8).numpy().tobytes()


def _point(tensors: list[Tensor], data: list[Tensor]) -> None:
    for tensor, one in zip(tensors, data, strict=True):
        tensor.data = one
