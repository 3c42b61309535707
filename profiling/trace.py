"""Record a trace of inference or training steps for TensorBoard, and read it.

`tensorboard --logdir DIRECTORY` shows the files that `record_trace` writes (with the plugin
torch-tb-profiler); `trace_page.write_trace_html` draws them without TensorBoard or a network.
"""

from __future__ import annotations

import copy
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median, median_low
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

from profiling.errors import ProfilingError
from profiling.progress import Progress
from profiling.spans import TraceStep, steps_of
from profiling.symbolic import Example, as_args, tensors_in
from profiling.timing import synchronise

Loss = Callable[[Any], Tensor]

_METADATA = "vae_nas"  # key of `Setup` in the trace file
_SILENT = {"KINETO_LOG_LEVEL": "6"}  # otherwise it writes to standard error
_PLAIN_STEPS, _PLAIN_S = 5, 2.0


@dataclass(frozen=True)
class Setup:
    """The traced model and facts that the trace itself does not contain.

    Attributes:
        model: Name of its class.
        training: Whether the steps are training steps.
        device: Device.
        threads: Threads of torch.
        input_shapes: Shapes of the arguments.
        plain_ms: Median time of a step without hooks and profiler.
        resident_bytes: Bytes that live through every step: parameters, buffers, the example and the
            state of the optimiser.
    """

    model: str
    training: bool
    device: str
    threads: int
    input_shapes: tuple[tuple[int, ...], ...]
    plain_ms: float
    resident_bytes: int


@dataclass(frozen=True)
class Trace:
    """A recorded trace: its file, its setup and its steps."""

    path: Path
    setup: Setup
    steps: tuple[TraceStep, ...]

    @property
    def step(self) -> TraceStep:
        """The step of median duration."""
        middle = median_low(step.duration_us for step in self.steps)
        return next(step for step in self.steps if step.duration_us == middle)

    @property
    def inflation(self) -> float:
        """Duration of `step` over that of a step without hooks and profiler."""
        return self.step.duration_us / 1000 / self.setup.plain_ms

    @property
    def peak_bytes(self) -> int:
        """Peak number of live bytes in `step`, including scratch memory of kernels."""
        return self.setup.resident_bytes + max((live for _, live in self.step.memory), default=0)


def record_trace(
    model: nn.Module,
    example: Example,
    directory: Path,
    *,
    training: bool = False,
    steps: int = 3,
    loss: Loss | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Trace:
    """Run steps of a copy of `model` under torch.profiler and write a `*.pt.trace.json`.

    An inference step is one forward pass; a training step is forward, backward and an Adam update.
    The forward pass of each module is marked with its path, the phases with "forward", "backward"
    and "optimiser". Model and random state are not changed.

    Args:
        model: The model.
        example: Its arguments.
        directory: Folder of the file.
        training: Record training steps instead of inference steps.
        steps: Number of steps.
        loss: Outputs of the model -> scalar; by default the sum of all outputs.
        device: Device.
        progress: Called with (done, total) after each step.

    Raises:
        ProfilingError: `steps` is below 1, the model does not accept the example, or the directory
            cannot be written.
    """
    if steps < 1:
        raise ProfilingError(f"steps: {steps} is not a positive number of steps")
    device = torch.device(device)
    traced = copy.deepcopy(model).to(device).train(training)
    args = tuple(tensor.to(device) for tensor in as_args(example))
    optimiser = torch.optim.Adam(traced.parameters()) if training else None
    step = partial(_step, traced, args, optimiser, loss or _sum_of)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        plain_ms = _plain_ms(step, device, f"trace: {type(model).__name__}")
        setup = Setup(
            model=type(model).__name__,
            training=training,
            device=str(device),
            threads=torch.get_num_threads(),
            input_shapes=tuple(tuple(arg.shape) for arg in args),
            plain_ms=plain_ms,
            resident_bytes=_resident_bytes(traced, args, optimiser),
        )
        with _marked(traced):
            path = _profiled(step, steps, setup, directory, progress)
    return read_trace(path)


def read_trace(path: Path) -> Trace:
    """Read a file that `record_trace` wrote.

    Raises:
        ProfilingError: the file is missing or is not such a trace.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = content[_METADATA]
        shapes = tuple(tuple(shape) for shape in facts.pop("input_shapes"))
        setup = Setup(**facts, input_shapes=shapes)
        steps = steps_of(content["traceEvents"], on_cuda=setup.device.startswith("cuda"))
    except OSError as error:
        raise ProfilingError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ProfilingError(f"{path}: not a trace of this tool; record one first") from None
    return Trace(path, setup, steps)


def _step(
    model: nn.Module,
    args: tuple[Tensor, ...],
    optimiser: torch.optim.Optimizer | None,
    loss: Loss,
) -> None:
    """Run one step; no new tensor is alive afterwards."""
    inputs = tuple(arg.clone() for arg in args)  # the first layer may work in place
    if optimiser is None:
        with torch.inference_mode(), record_function("forward"):
            model(*inputs)
        return
    with record_function("forward"):
        scalar = loss(model(*inputs))
    with record_function("backward"):
        scalar.backward()  # type: ignore[no-untyped-call]
    with record_function("optimiser"):
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def _sum_of(outputs: Any) -> Tensor:
    return torch.stack([t.sum() for t in tensors_in(outputs) if t.requires_grad]).sum()


def _plain_ms(step: Callable[[], None], device: torch.device, what: str) -> float:
    """Return the median time of a step without hooks and profiler, after a warm-up."""
    try:
        step()
    except (RuntimeError, ValueError, TypeError) as error:
        cause = str(error).strip().splitlines()
        raise ProfilingError(
            f"{what} fails on this example: {cause[0] if cause else ''}"
        ) from error
    times: list[float] = []
    while len(times) < _PLAIN_STEPS and sum(times) < _PLAIN_S:
        synchronise(device)
        start = time.perf_counter()
        step()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def _resident_bytes(
    model: nn.Module, args: tuple[Tensor, ...], optimiser: torch.optim.Optimizer | None
) -> int:
    state = tensors_in([dict(s) for s in optimiser.state.values()]) if optimiser else []
    kept = [*model.parameters(), *model.buffers(), *args, *state]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return sum(storages.values())


@contextmanager
def _marked(model: nn.Module) -> Iterator[None]:
    """Mark each module's forward by a `record_function` named as its path."""
    running: list[Any] = []  # record_function's methods are untyped

    def enter(path: str, *_: Any) -> None:
        running.append(record_function(path))
        running[-1].__enter__()

    def leave(*_: Any) -> None:
        running.pop().__exit__(None, None, None)

    handles = [
        handle
        for path, module in model.named_modules()
        if path
        for handle in (
            module.register_forward_pre_hook(partial(enter, path)),
            module.register_forward_hook(leave, always_call=True),
        )
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _profiled(
    step: Callable[[], None],
    steps: int,
    setup: Setup,
    directory: Path,
    progress: Progress | None,
) -> Path:
    cuda = [ProfilerActivity.CUDA] if setup.device.startswith("cuda") else []
    step()  # the first call of the hooks is slower
    with _silence():
        recorder = profile(
            activities=[ProfilerActivity.CPU, *cuda], record_shapes=True, profile_memory=True
        )
        with recorder:
            recorder.add_metadata_json(_METADATA, json.dumps(asdict(setup)))
            for index in range(steps):
                with record_function(f"ProfilerStep#{index}"):  # the name that TensorBoard expects
                    step()
                    synchronise(torch.device(setup.device))
                if progress:
                    progress(index + 1, steps)
        return _written(recorder, directory)


def _written(recorder: profile, directory: Path) -> Path:
    before = set(directory.glob("*")) if directory.is_dir() else set()
    try:
        tensorboard_trace_handler(str(directory))(recorder)
        return (set(directory.glob("*.pt.trace.json")) - before).pop()
    except (OSError, RuntimeError, KeyError) as error:
        raise ProfilingError(f"{directory}: cannot be written ({error})") from error


@contextmanager
def _silence() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _SILENT}
    os.environ.update({k: v for k, v in _SILENT.items() if before[k] is None})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
