"""The environment of a measurement; latencies are comparable only in equal environments."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from profiling.allocator import AllocatorState, allocator_state
from profiling.errors import ProfilingError
from profiling.resources import logical_cpus, text_of

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPUINFO = Path("/proc/cpuinfo")


class Environment(BaseModel):
    """The properties of a machine and a process that change the time of an operation.

    Attributes:
        device: The device, as torch writes it.
        device_name: Name of the GPU or the CPU.
        cpu_model: Name of the CPU.
        cores: Number of logical CPUs that this process may use.
        threads: Number of torch's threads.
        torch_version, python, os: Versions.
        allocator: Configuration of the memory allocator.
        mkldnn: Whether torch uses oneDNN.
        tf32: Whether CUDA convolutions use TF32.
        governor: CPU frequency policy; None if the system does not report it.
        cuda: CUDA version of torch on a CUDA device, else None.
        runtime: Name and version of what runs the models; None for torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    device_name: str
    cpu_model: str
    cores: int
    threads: int
    torch_version: str
    python: str
    os: str
    allocator: AllocatorState
    mkldnn: bool
    tf32: bool
    governor: str | None = None
    cuda: str | None = None
    runtime: str | None = None


def fingerprint(device: torch.device | str = "cpu") -> Environment:
    """Return the environment of this process, with its current number of torch threads."""
    device = torch.device(device)
    cpu, on_cuda = _cpu_model(), device.type == "cuda"
    return Environment(
        device=str(device),
        device_name=torch.cuda.get_device_name(device) if on_cuda else _name_of(device, cpu),
        cpu_model=cpu,
        cores=logical_cpus(),
        threads=torch.get_num_threads(),
        torch_version=torch.__version__,
        python=platform.python_version(),
        os=f"{platform.system()} {platform.release()}",
        allocator=allocator_state(),
        mkldnn=_mkldnn(),
        tf32=on_cuda and convolution_precision() == "tf32",
        governor=text_of(_GOVERNOR) or None,
        cuda=torch.version.cuda if on_cuda else None,
    )


def differences(a: Environment, b: Environment) -> list[str]:
    """Return every field in which two environments differ, as ``field: 'a' against 'b'``."""
    left, right = a.model_dump(), b.model_dump()
    return [f"{k}: {left[k]!r} against {right[k]!r}" for k in left if left[k] != right[k]]


def select_device(name: str = "auto") -> torch.device:
    """Return the device of "auto", "cpu", "cuda", "cuda:N" or "mps"; "auto" prefers CUDA.

    "mps" is the GPU of an Apple processor. It is never chosen by "auto", because no measurement or
    training on it has been tested.

    Raises:
        ProfilingError: the name is unknown, or torch finds no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (
        index and not (kind == "cuda" and re.fullmatch(r"[0-9]{1,4}", index))
    ):
        known = "'auto', 'cpu', 'cuda', 'cuda:N', 'mps'"
        raise ProfilingError(f"device: {name!r} is not one of {known}")
    if kind == "cuda":
        _require_cuda(name, int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ProfilingError(
            f"device: 'mps' asked for, but torch {torch.__version__} finds no GPU of an Apple "
            "processor: use device 'cpu'"
        )
    return torch.device(name)


def _require_cuda(name: str, index: int) -> None:
    if not torch.cuda.is_available():
        raise ProfilingError(
            f"device: {name!r} asked for, but torch {torch.__version__} finds no CUDA device: "
            "use device 'cpu', or install a CUDA build of torch and a driver"
        )
    if index >= torch.cuda.device_count():
        raise ProfilingError(
            f"device: {name!r} asked for, but there are {torch.cuda.device_count()} CUDA devices: "
            f"use 'cuda:0' to 'cuda:{torch.cuda.device_count() - 1}'"
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices.

    Processors other than x86 count as without them: their autocast was not measured.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(known.get(key) for key in ("avx512_bf16", "amx_bf16"))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set torch's number of threads to `count` in the body, then restore it.

    Raises:
        ProfilingError: `count` is below 1.
    """
    if count < 1:
        raise ProfilingError(f"threads: {count} is not a positive number of threads")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def convolution_precision() -> str:
    """Return the precision of CUDA convolutions: "tf32", "ieee" or "none" (torch's default)."""
    return str(torch.backends.cudnn.conv.fp32_precision)  # type: ignore[attr-defined]


def _mkldnn() -> bool:
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.backends.mkldnn.enabled)


def _cpu_model() -> str:
    """Return the CPU's marketing name, or its architecture where the system reports none."""
    for line in text_of(_CPUINFO).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _name_of(device: torch.device, cpu: str) -> str:
    return f"GPU of {cpu}" if device.type == "mps" else cpu
