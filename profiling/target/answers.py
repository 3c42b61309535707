"""What an agent answers, validated."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from profiling.environment import Environment
from profiling.load import Load
from profiling.target.errors import TargetError

Milliseconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**12)]
_Text = Annotated[str, Field(max_length=300)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


_LASTING = {
    "processor": "processor",
    "cores": "number of cores",
    "system": "system",
    "python": "Python",
    "onnxruntime": "onnxruntime",
    "governor": "frequency policy",
    "max_clock_mhz": "limit of the clock",
}
"""Facts without which latencies cannot be compared, and what each is called."""


class Answer(BaseModel):
    """An answer of an agent."""

    model_config = ConfigDict(frozen=True, extra="ignore")


_Kind = TypeVar("_Kind", bound=Answer)


class Facts(Answer):
    """The properties of a target.

    Attributes:
        machine: Digest of the number of its system.
        boot: Changes whenever it starts; "" if the system does not report it.
        processor: Name of the board or the processor.
        cores: Number of logical CPUs that the agent may use.
        memory_kib: Size of its memory.
        system: Operating system and version.
        python: Version of the interpreter.
        executable: Path of the interpreter.
        managed: Whether the system forbids this interpreter's pip to install packages.
        numpy, onnxruntime: Versions; None if the package cannot be imported.
        missing: Package -> why it cannot be imported.
        temperature_c: Highest temperature of a sensor, in degrees Celsius.
        governor: CPU frequency policy.
        clock_mhz: Current clock of the processor.
        max_clock_mhz: Limit that the frequency policy has.
    """

    machine: _Text
    boot: _Text
    processor: _Text
    cores: Count
    memory_kib: _Positive | None
    system: _Text
    python: _Text
    executable: _Text
    managed: bool
    numpy: _Text | None
    onnxruntime: _Text | None
    missing: dict[_Text, str]
    temperature_c: float | None
    governor: _Text | None
    clock_mhz: _Positive | None
    max_clock_mhz: _Positive | None

    def environment(self, threads: int) -> Environment:
        """Return the environment of measurements there, with this number of threads."""
        limit = f" at {self.max_clock_mhz:.0f} MHz" if self.max_clock_mhz else ""
        return Environment(
            device="cpu",
            device_name=self.processor + limit,
            cpu_model=self.processor,
            cores=self.cores,
            threads=threads,
            torch_version="",
            python=self.python,
            os=self.system,
            allocator="default",
            mkldnn=False,
            tf32=False,
            governor=self.governor,
            runtime=f"onnxruntime {self.onnxruntime}",
        )

    @property
    def lasting(self) -> dict[str, Any]:
        """The properties that must stay the same while latencies are compared, for records."""
        return self.model_dump(mode="json", include={"machine", *_LASTING})

    def changes(self, before: Facts) -> list[str]:
        """Return the differences to earlier facts that make latencies incomparable."""
        now, then = self.lasting, before.lasting
        changed = [f"{_LASTING[k]} {then[k]} -> {now[k]}" for k in _LASTING if now[k] != then[k]]
        return ["it is another machine", *changed] if self.machine != before.machine else changed


class PerModel(Answer):
    """An answer about each model of a measurement."""

    @property
    @abstractmethod
    def names(self) -> Collection[str]:
        """Names of the models."""


class Warm(PerModel):
    """The end of the warm-up: times in ms, and the untimed and timed passes of a sample."""

    warmups: dict[str, Annotated[list[Milliseconds], Field(min_length=1)]]
    plans: dict[str, tuple[Count, Count]]

    @property
    def names(self) -> Collection[str]:
        """Names of the models."""
        return self.warmups.keys() & self.plans.keys()


class Round(PerModel):
    """One round: wall and CPU time of each model in ms, and whether the agent waits for a reply."""

    samples: dict[str, tuple[_Positive, Milliseconds]]
    asks: bool

    @property
    def names(self) -> Collection[str]:
        """Names of the models."""
        return self.samples.keys()


class _Load(Answer):
    span_s: Annotated[float, Field(ge=0)]
    others: _Share
    stolen: _Share
    clock_mhz: _Positive | None


class Done(Answer):
    """The end of a measurement."""

    load: _Load | None

    def as_load(self) -> Load | None:
        """Return the load by other work; None if the target does not report it."""
        return None if self.load is None else Load(**self.load.model_dump())


class _Array(Answer):
    shape: list[Annotated[int, Field(ge=0)]]
    dtype: Annotated[str, Field(pattern=r"^((float|int|uint)[0-9]{1,2}|bool)$")]


class Outputs(Answer):
    """The outputs of a model."""

    arrays: list[_Array]

    def read(self, payload: bytes) -> list[npt.NDArray[Any]]:
        """Return the arrays that a payload holds, one after another."""
        found, start = [], 0
        for one in self.arrays:
            dtype, count = np.dtype(one.dtype), math.prod(one.shape)
            found.append(np.frombuffer(payload, dtype, count, start).reshape(one.shape))
            start += count * dtype.itemsize
        return found


def validated(
    target: str, kind: type[_Kind], content: Any, names: Collection[str] | None = None
) -> _Kind:
    """Return an answer after validation.

    Args:
        target: Name of the target.
        kind: What is expected.
        content: What arrived.
        names: Names of the models that it must be about.

    Raises:
        TargetError: it is not as an agent writes it.
    """
    try:
        answer = kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TargetError(f"{target}: no answer of an agent ({where}: {first['msg']})") from None
    if names is not None and isinstance(answer, PerModel) and set(answer.names) != set(names):
        raise TargetError(f"{target}: no answer of an agent (it is about other models)")
    return answer
