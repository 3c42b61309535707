"""Latencies of architectures on a target: models are exported and judged here, and run there.

The process that exports holds this machine's measurement lane only as a training does. Trainings
here therefore do not pause while models are timed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nas.setups import EngineRefused, SetUp
from nas.timed_models import TimedImages, timed_model
from nas.timed_parts import TimedPart, described, quiet_speed
from profiling.agreement import Exact
from profiling.backends import find_backend
from profiling.environment import threads
from profiling.errors import ProfilingError
from profiling.lane import Lane
from profiling.latency import Latency, LatencyConfig, batches_of
from profiling.onnx_export import onnx_model
from profiling.paired import (
    TWIN,
    Enough,
    InterleavedLatencies,
    PairedLatency,
    until_quiet,
)
from profiling.progress import Progress
from profiling.quiet import QuietSpeed
from profiling.rewrites import rewritten
from profiling.symbolic import Example, as_args
from profiling.target.client import KnownTarget, Target
from profiling.target.errors import ModelRefusedError, TargetError
from profiling.target.measurement import Arrays, Note
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL

_CPU = torch.device("cpu")


class TargetMeter:
    """Measures latencies on a target; `nas.latency.Meter` calls it in another process.

    Args:
        setup: What to measure, and how.
        known: The target, and the properties that it must still have.
        images: Images that the models are fed; None takes noise.
    """

    def __init__(self, setup: SetUp, known: KnownTarget, images: TimedImages | None) -> None:
        self._setup, self._known, self._images = setup, known, images
        self._lane = Lane("cpu")
        self._note: Note = lambda line: None
        self._target = Target(known.address, self._say, facts=known.facts)
        self._originals: dict[str, bytes] = {}

    def measure(
        self, architecture: Architecture, note: Note = lambda line: None
    ) -> tuple[PairedLatency, float]:
        """Time an architecture and `original` on images of its shape.

        Args:
            architecture: The candidate.
            note: Called with one line when the target cannot be reached, is busy, or is back.

        Returns:
            The latencies, and the seconds spent waiting for lanes and for the target.

        Raises:
            EngineRefused: the target cannot run the architecture, or computes something else.
            TargetError: the target cannot be used.
        """
        self._note, before = note, self._waited_s
        original = ORIGINAL.resized(architecture.image_size, architecture.image_channels)
        images = self._images or TimedImages.noise(original.image_size, original.image_channels)
        parts = self._parts({"candidate": architecture, "reference": original}, images, {})
        models = {"candidate": self._exported("candidate", parts["candidate"])}
        if original.digest not in self._originals:
            self._originals = {original.digest: self._exported("original", parts["reference"])}
        models["reference"] = self._originals[original.digest]
        quiet = self._quiet_speed(original, images, parts["reference"].weights)
        found, attempts = self._timed(models, parts, "reference", self._setup, quiet)
        digests = dict.fromkeys(found.taken, original.digest) | {"candidate": architecture.digest}
        states = {name: one.weights for name, one in parts.items()}
        named = described(found, self._setup, images.about, states, digests)
        return PairedLatency(named, attempts), self._waited_s - before

    def together(
        self,
        architectures: Mapping[str, Architecture],
        base: str,
        weights: Mapping[str, Path],
        progress: Progress | None = None,
        note: Note = lambda line: None,
    ) -> InterleavedLatencies:
        """Measure several architectures in the same rounds, as `nas.latency.measure_together`."""
        self._note, original = note, architectures[base]
        images = self._images or TimedImages.noise(original.image_size, original.image_channels)
        parts = self._parts(architectures, images, weights)
        models = {name: self._exported(name, part) for name, part in parts.items()}
        states = {name: one.weights for name, one in parts.items()}
        config = self._setup.model_copy(update={"max_s": self._setup.max_s * len(parts)})
        quiet = self._quiet_speed(original, images, states[base])
        found, _ = self._timed(models, parts, base, config, quiet, progress)
        return described(found, self._setup, images.about, states | {TWIN: states[base]})

    @property
    def _waited_s(self) -> float:
        return self._lane.waited_s + self._target.waited_s

    def _say(self, line: str) -> None:
        self._note(line)

    def _parts(
        self,
        architectures: Mapping[str, Architecture],
        images: TimedImages,
        weights: Mapping[str, Path],
    ) -> dict[str, TimedPart]:
        with self._lane.training(), threads(self._setup.threads):
            fed = images.tensor(batch=self._setup.batch)
            return {
                name: TimedPart.of(
                    timed_model(one, images, _CPU, weights.get(name)), fed, self._setup
                )
                for name, one in architectures.items()
            }

    def _exported(self, name: str, part: TimedPart) -> bytes:
        """Return the ONNX file of a part, after its output on the target was judged by float64."""
        first = tuple(arg[: self._setup.batch] for arg in as_args(part.inputs))
        rewrites = find_backend(self._setup.backend).rewrites
        with self._lane.training(), threads(self._setup.threads):
            try:
                exact = Exact.of(part.module, first)
                module = rewritten(part.module, rewrites)[0] if rewrites else part.module
                content: bytes = onnx_model(module, first).SerializeToString()
            except Exception as error:  # torch.fx and the exporter raise their own types
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise EngineRefused(f"{name}: cannot be exported ({reason})") from None
        where = f"{name} on {self._known.address.name}"
        try:
            exact.checked_error(where, partial(self._outputs, content), first)
        except ModelRefusedError as error:
            raise EngineRefused(str(error)) from None
        except TargetError:
            raise
        except ProfilingError as error:
            raise EngineRefused(str(error)) from None
        return content

    def _outputs(self, content: bytes, *args: Tensor) -> list[Tensor]:
        found = self._target.outputs(content, [a.numpy() for a in args], self._setup.threads)
        return [torch.from_numpy(np.array(array)) for array in found]

    def _timed(
        self,
        models: Mapping[str, bytes],
        parts: Mapping[str, TimedPart],
        base: str,
        config: LatencyConfig,
        quiet: QuietSpeed,
        progress: Progress | None = None,
    ) -> tuple[InterleavedLatencies, int]:
        batches = {name: _batches(one.inputs, config.batch) for name, one in parts.items()}
        models, batches = {**models, TWIN: models[base]}, {**batches, TWIN: batches[base]}

        def take(enough: Enough) -> Mapping[str, Latency]:
            return self._target.measure_latency(
                models, batches, config, enough=enough, progress=progress
            )

        try:
            return until_quiet(take, base, config, quiet)
        except ModelRefusedError as error:
            raise EngineRefused(str(error)) from None

    def _quiet_speed(self, original: Architecture, images: TimedImages, weights: str) -> QuietSpeed:
        where = f"{self._known.facts.lasting} {self._setup.threads} threads"
        return quiet_speed(original, self._setup, where, images.about, weights)


def _batches(inputs: Example, batch: int) -> list[Arrays]:
    return [[one.numpy() for one in args] for args in batches_of(inputs, batch, _CPU)]
