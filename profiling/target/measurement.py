"""One measurement over a connection: the request, and the answers until it ends."""

from __future__ import annotations

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
    batches: Sequence[Arrays]
    config: LatencyConfig
    enough: Enough
    progress: Progress | None = None

    def run(self, channel: Channel, facts: Facts, note: Note) -> dict[str, Latency]:
        """Measure, and return name -> latency.

        Args:
            channel: The connection.
            facts: The properties of the target.
            note: Called with one line if another measurement is running there.
        """
        header, payload = self._request(channel.keep(self.models))
        channel.send(header, payload)
        warm = self._per_model(channel, Warm, _when_free(channel, note))
        samples, load = self._rounds(channel)
        where = facts.environment(self.config.threads)
        return {
            name: Latency(
                self._subject(name, warm),
                where,
                tuple(samples[name]),
                tuple(warm.warmups[name]),
                load,
            )
            for name in self._names
        }

    @property
    def _names(self) -> list[str]:
        return list(self.models) or [MATMUL]

    def _request(self, digests: Mapping[str, str]) -> tuple[Header, bytes]:
        content = bytearray()
        batches = [{"arrays": _packed(batch, content)} for batch in self.batches]
        config = self.config.model_dump(mode="json")
        header = {"do": "measure", "models": digests, "config": config, "batches": batches}
        return header, bytes(content)

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
        arrays: Arrays = self.batches[0] if self.batches else [np.empty((384, 384), np.float32)]
        shapes, dtype = tuple(array.shape for array in arrays), str(arrays[0].dtype)
        backend = "onnxruntime" if self.models else "numpy"
        return TimedModel(
            name, shapes, dtype, self.config.threads, repeats, primings, backend=backend
        )


def run_once(channel: Channel, model: bytes, arguments: Arrays, threads: int) -> list[Array]:
    """Return the outputs of an ONNX model on the target."""
    digest = channel.keep({"": model})[""]
    content = bytearray()
    request = {"do": "outputs", "digest": digest, "threads": threads}
    channel.send({**request, "arrays": _packed(arguments, content)}, bytes(content))
    header, payload = channel.receive()
    return validated(channel.name, Outputs, header).read(payload)


def _when_free(channel: Channel, note: Note) -> Header:
    """Return the first answer after the lane of the target was acquired."""
    header, _ = channel.receive()
    while header.get("is") == "waiting":
        note(f"{channel.name}: another measurement is running there; waiting for it")
        header, _ = channel.receive()
    return header


def _packed(arrays: Arrays, content: bytearray) -> list[Header]:
    """Append arrays to the content of a frame, and return where each is."""
    described: list[Header] = []
    for array in arrays:
        where = {"shape": list(array.shape), "dtype": str(array.dtype), "offset": len(content)}
        described.append(where)
        content += np.ascontiguousarray(array).tobytes()
    return described
