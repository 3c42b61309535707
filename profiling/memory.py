"""Peak memory of the tensors in one forward pass or one training step."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from profiling.errors import ProfilingError
from profiling.resources import available_memory_bytes
from profiling.symbolic import Example, as_args, meta_copy, mode_of, on_meta, tensors_in

_ADAM_MOMENTS = 2


def peak_memory_bytes(
    model: nn.Module, example: Example, *, training: bool = False, moments: int = _ADAM_MOMENTS
) -> int:
    """Return the peak number of bytes of live tensors, computed on the meta device.

    Parameters, buffers, the example and live activations are counted. For training also tensors
    saved by autograd, gradients, and `moments` optimiser tensors per parameter (Adam: 2), for a
    step whose loss is the sum of the outputs. Scratch memory of kernels, fragmentation of the
    allocator and torch itself are not counted.
    """
    copied, args = meta_copy(model), on_meta(example)
    ledger = _Ledger([*copied.parameters(), *copied.buffers(), *args])
    with mode_of(copied, training), torch.set_grad_enabled(training), ledger:
        _step(copied, args, training)
    return ledger.peak_bytes + (_moment_bytes(copied, moments) if training else 0)


def require_memory(
    model: nn.Module, example: Example, device: torch.device, *, training: bool = False
) -> None:
    """Check that a pass fits in the free memory of `device`, without allocating it.

    Model and example may be meta tensors.

    Raises:
        ProfilingError: the pass needs more memory than `device` has free.
    """
    needed, free = peak_memory_bytes(model, example, training=training), free_memory_bytes(device)
    if needed > free:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in as_args(example))
        raise ProfilingError(
            f"memory: {type(model).__name__} on {shapes} needs {needed / 1e9:.1f} GB, and {device} "
            f"has {free / 1e9:.1f} GB free: use a smaller batch, size or width"
        )


def free_memory_bytes(device: torch.device) -> int:
    """Return the bytes that this process may still allocate, within limits of a container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory_bytes()


def _step(model: nn.Module, args: tuple[Tensor, ...], training: bool) -> None:
    outputs = model(*args)
    if training:
        losses = [t.sum() for t in tensors_in(outputs) if t.requires_grad]
        del outputs
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]


def _moment_bytes(model: nn.Module, moments: int) -> int:
    return moments * _total_bytes([p for p in model.parameters() if p.requires_grad])


def _total_bytes(tensors: list[Tensor]) -> int:
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every storage from the operation that makes it until it is freed."""

    def __init__(self, resident: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = self._live_bytes = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._enter(resident)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._enter(tensors_in(output))
        return output

    def _enter(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self._live_bytes += storage.nbytes()
                weakref.finalize(storage, self._leave, storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)

    def _leave(self, nbytes: int) -> None:
        self._live_bytes -= nbytes
