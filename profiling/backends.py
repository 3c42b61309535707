"""Backends that run the same model, each checked against float64 before it is timed.

A new backend is one function in `engines` and one line in `BACKENDS`.
"""

from __future__ import annotations

import copy
import difflib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from profiling import engines, int8
from profiling.agreement import Exact
from profiling.batch_norms import has_new_batch_norms, randomise_batch_norms
from profiling.engines import Args, ForwardPass, Prepare
from profiling.environment import has_bfloat16
from profiling.environment import threads as torch_threads
from profiling.errors import ProfilingError
from profiling.int8 import Quantise
from profiling.latency import batched, batches_of
from profiling.onnx_export import missing
from profiling.rewrites import FOLDING, REWRITES, remark, rewritten
from profiling.symbolic import Example

FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"

_NOT_IN_INT8 = ("upsampling",)
"""Rewrites that do not pay in int8: a merged convolution is a transposed one."""


@dataclass(frozen=True)
class Int8:
    """How a backend computes in int8.

    Attributes:
        prepare: As `Backend.prepare`, with the calibration batches as a further argument.
        packages: Names of the packages that quantise, besides the one that runs the model.
    """

    prepare: Quantise
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backend:
    """A way to run a model.

    Attributes:
        about: Description in a few words.
        unavailable: Device -> why the backend cannot be used with tensors there; None if it can.
        prepare: (model, args, threads) -> a callable with the model's arguments and outputs, and a
            remark for the table or "". It may change the model, which is a private copy in
            evaluation mode on that device.
        lower: Name of a lower precision -> how the backend is prepared in it.
        rewrites: Names of the exact rewrites that are applied to the model before.
        package: Name of the package that runs the model; "" if that is torch.
        int8: How it computes in int8; None if it cannot.
    """

    about: str
    unavailable: Callable[[torch.device], str | None]
    prepare: Prepare
    lower: Mapping[str, Prepare] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    package: str = ""
    int8: Int8 | None = None

    @property
    def precisions(self) -> tuple[str, ...]:
        """Names of the precisions in which the backend can compute."""
        return (FLOAT32, *self.lower, *([INT8] if self.int8 else []))

    def packages(self, dtype: str = FLOAT32) -> tuple[str, ...]:
        """Return the names of the packages that determine what runs; none if that is torch."""
        quantising = self.int8.packages if self.int8 and dtype == INT8 else ()
        return (*([self.package] if self.package else []), *quantising)

    def rewrites_in(self, dtype: str) -> tuple[str, ...]:
        """Return the names of the rewrites that are applied in a precision."""
        return tuple(n for n in self.rewrites if dtype != INT8 or n not in _NOT_IN_INT8)

    def reason_against(self, device: torch.device, dtype: str = FLOAT32) -> str | None:
        """Return why the backend cannot be used on a device in a precision; None if it can."""
        if dtype not in self.precisions:
            return f"cannot compute in {dtype!r}: use {' or '.join(self.precisions)}"
        if dtype == BFLOAT16 and not has_bfloat16(device):
            return f"this processor has no instructions for {dtype}: use {FLOAT32}"
        reason = self.unavailable(device)
        if reason is None and dtype == INT8 and self.int8:
            return missing(*self.int8.packages)
        return reason


@dataclass(frozen=True)
class PreparedBackend:
    """A backend that is ready to run one model.

    Attributes:
        name: Name of the backend.
        run: Runs the model; it takes the model's arguments.
        max_error: Largest difference from float64 of any output element, relative to the range of
            that output.
        preparation_s: Seconds that the preparation took.
        note: Remark for the table, or "".
        dtype: The precision.
    """

    name: str
    run: ForwardPass
    max_error: float
    preparation_s: float
    note: str
    dtype: str = FLOAT32


def prepare_backend(
    name: str,
    model: nn.Module,
    example: Example,
    device: torch.device | str = "cpu",
    threads: int = 1,
    dtype: str = FLOAT32,
    calibration: Example | None = None,
) -> PreparedBackend:
    """Prepare a backend for `model` and the shapes of `example`, and judge it against float64.

    A model with new BatchNorms is judged on a copy with random statistics, which is prepared in the
    same way: new BatchNorms do nothing and hide errors. The model, torch's thread count and the
    random state are not changed.

    Args:
        name: Key of `BACKENDS`.
        model: The model.
        example: Arguments of a pass.
        device: Device of the arguments and of the outputs.
        threads: Number of threads.
        dtype: "float32", or a lower precision of the backend. The error of float32 may be a
            multiple of eager's own; that of a lower precision is only refused if it is absurd,
            because what it costs is judged by the loss on images. That of int8 is not judged here.
        calibration: Arguments of several passes, from which int8 takes the ranges of values.

    Raises:
        ProfilingError: the backend or the precision is unknown or unavailable, int8 has no
            calibration, the backend cannot
            run the model, the model is random (pass its noise in `example`) or cannot run in
            float64, or an output has a larger error than rounding explains.
    """
    backend, device = find_backend(name), torch.device(device)
    if reason := backend.reason_against(device, dtype):
        raise ProfilingError(f"{name}: {reason}")
    if dtype == INT8 and calibration is None:
        raise ProfilingError(f"{name}: int8 needs calibration images, or use {FLOAT32}")
    args = tuple(arg.to(device) for arg in batched(example, len(_first(example)), device))
    batches = batches_of(calibration, len(args[0]), device) if calibration is not None else []
    prepare = partial(_prepared, name, backend, dtype, args, threads, batches)
    with _undisturbed(threads, device):
        judged = _private(model, device)
        if is_new := has_new_batch_norms(judged) and dtype != INT8:
            randomise_batch_norms(judged, args)
        exact = Exact.of(judged, args)
        start = time.perf_counter()
        run, note = prepare(_private(model, device))
        seconds = time.perf_counter() - start
        tried = prepare(judged)[0] if is_new else run
        if dtype == INT8:
            error = exact.finite_error(name, tried, args)
        else:
            error = exact.checked_error(name, tried, args, lower=dtype != FLOAT32)
    return PreparedBackend(name, run, error, seconds, note, dtype)


def _prepared(
    name: str,
    backend: Backend,
    dtype: str,
    args: Args,
    threads: int,
    batches: Sequence[Args],
    model: nn.Module,
) -> tuple[ForwardPass, str]:
    """Rewrite and prepare a model, and run it once, because compilers compile at the first call."""
    notes = []
    try:
        with torch.no_grad():
            if backend.rewrites:
                model, done = rewritten(model, backend.rewrites_in(dtype))
                notes.append(remark(done))
            if dtype == INT8 and backend.int8:
                run, note = backend.int8.prepare(model, args, threads, batches)
            else:
                run, note = backend.lower.get(dtype, backend.prepare)(model, args, threads)
        with torch.inference_mode():
            run(*(arg.clone() for arg in args))
    except ProfilingError as error:
        raise ProfilingError(f"{name}: {error}") from error
    except Exception as error:  # each engine raises its own types
        raise ProfilingError(f"{name}: cannot run this model: {first_line(error)}") from error
    return run, "; ".join([*notes, *([note] if note else [])])


def find_backend(name: str) -> Backend:
    """Return a backend by its name.

    Raises:
        ProfilingError: the name is unknown; the message has the nearest one.
    """
    if name in BACKENDS:
        return BACKENDS[name]
    near = difflib.get_close_matches(name, BACKENDS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ProfilingError(f"backend: {name!r} is not one of {', '.join(BACKENDS)}{hint}")


def _anywhere(device: torch.device) -> str | None:
    return None


def _with_compiler(device: torch.device) -> str | None:
    if device.type == "cuda":
        return missing("triton") and "needs triton: pip install triton"
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "cl")
    found = any(shutil.which(name) for name in compilers if name)
    return None if found else "needs a C++ compiler: install g++ or clang++, or set CXX"


def _cpu_extra(package: str) -> Callable[[torch.device], str | None]:
    def unavailable(device: torch.device) -> str | None:
        if device.type != "cpu":
            return f"is set up for the CPU only: use device 'cpu', not {str(device)!r}"
        return missing("onnx", "onnxscript", package)

    return unavailable


def _cuda_device(device: torch.device) -> str | None:
    return None if torch.cuda.is_available() else "finds no CUDA device"


def _beside_cpu(device: torch.device) -> str | None:
    return "eager runs there already" if device.type == "cuda" else _cuda_device(device)


def _in_torch(
    about: str,
    prepare: Prepare,
    unavailable: Callable[[torch.device], str | None] = _anywhere,
) -> Backend:
    """Return a backend that computes in bfloat16 by autocast."""
    return Backend(about, unavailable, prepare, {BFLOAT16: engines.autocast(prepare)})


def _rewritten(backend: Backend) -> Backend:
    about = f"{backend.about}, after exact rewrites"
    return replace(backend, about=about, rewrites=tuple(REWRITES))


_CHANNELS_LAST = _in_torch("channels innermost in memory", engines.in_channels_last)
_ONNXRUNTIME = Backend(
    "ONNX Runtime",
    _cpu_extra("onnxruntime"),
    engines.in_onnxruntime,
    package="onnxruntime",
    int8=Int8(int8.in_onnxruntime),
)
_OPENVINO = Backend(
    "OpenVINO",
    _cpu_extra("openvino"),
    engines.in_openvino,
    {BFLOAT16: partial(engines.in_openvino, precision="bf16")},
    package="openvino",
    int8=Int8(int8.in_openvino, ("nncf",)),
)

BACKENDS: dict[str, Backend] = {
    "eager": _in_torch("PyTorch as it is", engines.as_it_is),
    "channels_last": _CHANNELS_LAST,
    "bn_folded": Backend(
        "BatchNorms in the layers before them", _anywhere, engines.as_it_is, rewrites=(FOLDING,)
    ),
    "rewritten": _rewritten(_CHANNELS_LAST),
    "compile": _in_torch("torch.compile, fixed shapes", engines.compiled, _with_compiler),
    "onnxruntime": _ONNXRUNTIME,
    "onnxruntime_rewritten": _rewritten(_ONNXRUNTIME),
    "openvino": _OPENVINO,
    "openvino_rewritten": _rewritten(_OPENVINO),
    "cuda": Backend("eager on the CUDA device", _beside_cpu, engines.on_cuda),
    "cuda_graph": Backend("one CUDA graph of the pass", _cuda_device, engines.as_cuda_graph),
}


@contextmanager
def _undisturbed(threads: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch_threads(threads), torch.random.fork_rng(devices=devices):
        yield


def _private(model: nn.Module, device: torch.device) -> nn.Module:
    return copy.deepcopy(model).to(device).eval()


def _first(example: Example) -> Tensor:
    return example[0] if isinstance(example, tuple) else example


def first_line(error: Exception) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
