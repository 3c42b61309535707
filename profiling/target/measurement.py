"""One measurement over a connection: the request, and the answers until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from profiling.latency import Latency, LatencyConfig, TimedModel
from profiling.load import Load
from profiling.progress import Progress
from profiling.target.agent import Header
from profiling.target.answers import Done, Facts, Outputs, PerModel, Round, Warm, validated
from profiling.target.channel import Channel
from profiling.timing import Sample

Array = npt.NDArray[Any]
Arrays = Sequence[Array]
Enough = Callable[[Mapping[str, list[float]]], bool]
Note = Callable[[str], None]
_Kind = TypeVar("_Kind", bound=PerModel)

MATMUL = "matmul"
"""What is timed where no model is given: the square of a float32 matrix, `(384, 384)`."""


@dataclass(frozen=True)
class Measurement:
    """What is measured; `profiling.target.client.Target.measure_latency` describes each field."""

    models: Mapping[str, bytes]
    batches: Mapping[str, Sequence[Arrays]]
    config: LatencyConfig
    enough: Enough
    progress: Progress | None = None

    def run(self, channel: Channel, facts: Facts, note: Note) -> tuple[dict[str, Latency], float]:
        """Measure, and return name -> latency, and the seconds spent waiting for the lane there.

        Args:
            channel: The connection.
            facts: The properties of the target.
            note: Called with one line if another measurement is running there.
        """
        header, payload = self._request(channel.keep(self.models))
        channel.send(header, payload)
        answer, waited_s = _when_free(channel, note)
        warm = self._per_model(channel, Warm, answer)
        samples, load = self._rounds(channel)
        where = facts.environment(self.config.threads)
        taken = {
            name: Latency(
                self._subject(name, warm),
                where,
                tuple(samples[name]),
                tuple(warm.warmups[name]),
                load,
            )
            for name in self._names
        }
        return taken, waited_s

    @property
    def _names(self) -> list[str]:
        return list(self.models) or [MATMUL]

    def _request(self, digests: Mapping[str, str]) -> tuple[Header, bytes]:
        content = _Content()
        batches = {
            name: [{"arrays": content.describe(batch)} for batch in self.batches[name]]
            for name in digests
        }
        config = self.config.model_dump(mode="json")
        header = {"do": "measure", "models": digests, "config": config, "batches": batches}
        return header, content.packed

    def _rounds(self, channel: Channel) -> tuple[dict[str, list[Sample]], Load | None]:
        """Collect the samples; answer when the agent asks whether they are enough."""
        samples: dict[str, list[Sample]] = {name: [] for name in self._names}
        for done in range(1, self.config.max_rounds + 2):
            header, _ = channel.receive()
            if header.get("is") == "done":
                break
            taken = self._per_model(channel, Round, header)
            for name, times in taken.samples.items():
                samples[name].append(Sample(*times))
            if self.progress:
                self.progress(done, self.config.max_rounds)
            if taken.asks:
                walls = {name: [one.wall_ms for one in past] for name, past in samples.items()}
                channel.send({"do": "continue", "enough": bool(self.enough(walls))})
        return samples, validated(channel.name, Done, header).as_load()

    def _per_model(self, channel: Channel, kind: type[_Kind], header: Header) -> _Kind:
        return validated(channel.name, kind, header, self._names)

    def _subject(self, name: str, warm: Warm) -> TimedModel:
        primings, repeats = warm.plans[name]
        matrix: Arrays = [np.empty((384, 384), np.float32)]
        arrays = self.batches[name][0] if self.models else matrix
        shapes, dtype = tuple(array.shape for array in arrays), str(arrays[0].dtype)
        backend = "onnxruntime" if self.models else "numpy"
        return TimedModel(
            name, shapes, dtype, self.config.threads, repeats, primings, backend=backend
        )


def run_once(channel: Channel, model: bytes, arguments: Arrays, threads: int) -> list[Array]:
    """Return the outputs of an ONNX model on the target."""
    digest = channel.keep({"": model}, drop=False)[""]
    content = _Content()
    request = {"do": "outputs", "digest": digest, "threads": threads}
    channel.send({**request, "arrays": content.describe(arguments)}, content.packed)
    header, payload = channel.receive()
    return validated(channel.name, Outputs, header).read(payload)


def _when_free(channel: Channel, note: Note) -> tuple[Header, float]:
    """Return the first answer after the lane of the target was acquired, and the seconds of it."""
    header, _ = channel.receive()
    since, waited_s = time.monotonic(), 0.0
    while header.get("is") == "waiting":
        note(f"{channel.name}: another measurement is running there; waiting for it")
        header, _ = channel.receive()
        waited_s = time.monotonic() - since
    return header, waited_s


class _Content:
    """The arrays of a request, one after another; equal ones once."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._size = 0

    @property
    def packed(self) -> bytes:
        """The content of the frame."""
        return b"".join(self._places)

    def describe(self, arrays: Arrays) -> list[Header]:
        """Add arrays, and return where each is."""
        return [
            {"shape": list(one.shape), "dtype": str(one.dtype), "offset": self._place(one)}
            for one in arrays
        ]

    def _place(self, array: Array) -> int:
        content = array.tobytes()
        if content not in self._places:
            self._places[content] = self._size
            self._size += len(content)
        return self._places[content]
