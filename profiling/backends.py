"""Backends that run the same model, each checked against eager mode before it is timed.

A new backend is one function in `engines` and one line in `BACKENDS`.
"""

from __future__ import annotations

import copy
import difflib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from profiling import engines
from profiling.agreement import checked_error, repeatable_outputs
from profiling.engines import Args, ForwardPass
from profiling.environment import threads as torch_threads
from profiling.errors import ProfilingError
from profiling.latency import (
    Latency,
    LatencyConfig,
    Ratio,
    batched,
    measure_latency,
    paired_ratio,
)
from profiling.onnx_export import missing
from profiling.progress import Progress
from profiling.symbolic import Example


@dataclass(frozen=True)
class Backend:
    """A way to run a model.

    Attributes:
        about: Description in a few words.
        unavailable: Device -> why the backend cannot be used with tensors there; None if it can.
        prepare: (model, args, threads) -> a callable with the model's arguments and outputs, and a
            remark for the table or "". It may change the model, which is a private copy in
            evaluation mode on that device.
    """

    about: str
    unavailable: Callable[[torch.device], str | None]
    prepare: Callable[[nn.Module, Args, int], tuple[ForwardPass, str]]


@dataclass(frozen=True)
class PreparedBackend:
    """A backend that is ready to run one model.

    Attributes:
        name: Name of the backend.
        run: Runs the model; it takes the model's arguments.
        max_error: Largest absolute difference from eager of any output element.
        preparation_s: Seconds that the preparation took.
        note: Remark for the table, or "".
    """

    name: str
    run: ForwardPass
    max_error: float
    preparation_s: float
    note: str


@dataclass(frozen=True)
class BackendRow:
    """One row of a comparison: measurements, or the `reason` why there are none.

    `speed_up` is the time of eager over that of this backend, paired by round: above 1 is faster.
    """

    name: str
    about: str
    reason: str | None = None
    latency: Latency | None = None
    speed_up: Ratio | None = None
    max_error: float | None = None
    preparation_s: float | None = None
    note: str = ""

    def record(self) -> dict[str, str | float | bool | None]:
        """Return the row as column -> value; None where nothing was measured."""
        timed, ratio = self.latency, self.speed_up
        return {
            "backend": self.name,
            "ms": timed.median_ms if timed else None,
            "ms_low": timed.interval_ms.low if timed else None,
            "ms_high": timed.interval_ms.high if timed else None,
            "speed_up": ratio.median if ratio else None,
            "speed_up_low": ratio.interval.low if ratio else None,
            "speed_up_high": ratio.interval.high if ratio else None,
            "max_error": self.max_error,
            "preparation_s": self.preparation_s,
            "contended": timed.contended if timed else None,
            "note": self.note,
            "reason": self.reason,
        }


def prepare_backend(
    name: str,
    model: nn.Module,
    example: Example,
    device: torch.device | str = "cpu",
    threads: int = 1,
) -> PreparedBackend:
    """Prepare a backend for `model` and the shapes of `example`, and check it against eager.

    The model, torch's thread count and the random state are not changed.

    Raises:
        ProfilingError: the backend is unknown or unavailable or cannot run the model, the model is
            random (pass its noise in `example`), or an output differs by more than 1e-4.
    """
    backend, device = find_backend(name), torch.device(device)
    if reason := backend.unavailable(device):
        raise ProfilingError(f"{name}: {reason}")
    args = tuple(arg.to(device) for arg in batched(example, len(_first(example)), device))
    with _undisturbed(threads, device):
        expected = repeatable_outputs(_private(model, device), args)
        start = time.perf_counter()
        try:
            with torch.no_grad():
                run, note = backend.prepare(_private(model, device), args, threads)
            with torch.inference_mode():  # compilers compile at the first call
                run(*(arg.clone() for arg in args))
        except ProfilingError as error:
            raise ProfilingError(f"{name}: {error}") from error
        except Exception as error:  # each engine raises its own types
            raise ProfilingError(f"{name}: cannot run this model: {_first_line(error)}") from error
        seconds = time.perf_counter() - start
        return PreparedBackend(name, run, checked_error(name, run, args, expected), seconds, note)


def compare_backends(
    model: nn.Module,
    example: Example,
    names: Sequence[str] | None = None,
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    progress: Progress | None = None,
) -> tuple[BackendRow, ...]:
    """Time the named backends (default: all) in the same rounds as eager, which is the first row.

    A backend that cannot be used has a row with the reason.

    Raises:
        ProfilingError: a name is unknown, or the model is random.
    """
    config, device = config or LatencyConfig(), torch.device(device)
    wanted = list(dict.fromkeys(["eager", *(BACKENDS if names is None else names)]))
    for name in wanted:
        find_backend(name)
    args, total = batched(example, config.batch, device), len(wanted) + config.max_rounds
    prepared: dict[str, PreparedBackend | str] = {}
    for done, name in enumerate(wanted, start=1):
        prepared[name] = _prepared_or_reason(name, model, args, device, config.threads)
        if progress:
            progress(done, total)
    runs = {
        name: ready.run for name, ready in prepared.items() if isinstance(ready, PreparedBackend)
    }
    report = progress and (lambda done, _: progress(len(wanted) + done, total))
    latencies = measure_latency(runs, example, config, device, progress=report)
    if progress:
        progress(total, total)
    return tuple(_row(name, ready, latencies) for name, ready in prepared.items())


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


BACKENDS: dict[str, Backend] = {
    "eager": Backend("PyTorch as it is", _anywhere, engines.as_it_is),
    "channels_last": Backend("channels innermost in memory", _anywhere, engines.in_channels_last),
    "bn_folded": Backend(
        "BatchNorms in the layers before them", _anywhere, engines.with_folded_norms
    ),
    "compile": Backend("torch.compile, fixed shapes", _with_compiler, engines.compiled),
    "onnxruntime": Backend("ONNX Runtime", _cpu_extra("onnxruntime"), engines.in_onnxruntime),
    "openvino": Backend("OpenVINO, float32", _cpu_extra("openvino"), engines.in_openvino),
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


def _prepared_or_reason(
    name: str, model: nn.Module, args: Args, device: torch.device, threads: int
) -> PreparedBackend | str:
    try:
        return prepare_backend(name, model, args, device, threads)
    except ProfilingError as error:
        if name == "eager":  # a random model or a wrong example
            raise
        return str(error).removeprefix(f"{name}: ")


def _row(name: str, ready: PreparedBackend | str, latencies: dict[str, Latency]) -> BackendRow:
    about = BACKENDS[name].about
    if isinstance(ready, str):
        return BackendRow(name, about, reason=ready)
    return BackendRow(
        name,
        about,
        latency=latencies[name],
        speed_up=paired_ratio(latencies["eager"], latencies[name]),
        max_error=ready.max_error,
        preparation_s=ready.preparation_s,
        note=ready.note,
    )


def _first(example: Example) -> Tensor:
    return example[0] if isinstance(example, tuple) else example


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
