"""The variants of a trained model on a target: built here, judged and timed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.deploy.builder import Builder, Note
from nas.deploy.passes import MODEL, OUTPUTS
from nas.deploy.quality import Run
from nas.deploy.source import Source
from nas.deploy.variants import Built, Variant
from nas.setups import ON_TARGETS, SetUp
from nas.timed_parts import quiet_speed
from profiling.backends import FLOAT32
from profiling.latency import Latency, LatencyConfig
from profiling.paired import TWIN, Enough, InterleavedLatencies, until_quiet
from profiling.progress import Progress
from profiling.runtime_files import Converter
from profiling.target.client import KnownTarget, Target

EXPORTED = "exported"
"""Name of the model in ONNX Runtime, as exported, beside which variants are timed."""

PATIENCE_S = 60.0
"""Seconds for which a call waits for a target that is lost."""


class TargetBuilder(Builder):
    """Builds the variants of one model here, and runs them on a target.

    Args:
        source: The model and its images.
        folder: Folder for the files of variants.
        known: The target, and the properties that it must still have.

    All methods also raise:
        TargetError: the target cannot be used, or was not back within `PATIENCE_S`.
    """

    def __init__(self, source: Source, folder: Path, known: KnownTarget) -> None:
        super().__init__(source, folder)
        self._known = known
        self._note: Note = _silent
        self._target = Target(known.address, self._say, PATIENCE_S, facts=known.facts)

    def measure(
        self,
        built: Sequence[Built],
        config: LatencyConfig,
        progress: Progress | None = None,
        note: Note | None = None,
    ) -> InterleavedLatencies:
        """Time variants on the target, as `Builder.measure` does here.

        They are timed in the same rounds as the model and `original` in ONNX Runtime, as exported.
        """
        self._note, images = note or _silent, self._timed_images
        with self._working():
            models = {EXPORTED: self._eager, **self._reference(images)}
            files = {name: self._exported(one) for name, one in models.items()}
        files |= {one.variant.name: one.path.read_bytes() for one in built}
        files |= {TWIN: files[EXPORTED]}
        batches = [[image.numpy()] for image in torch.split(images.tensor(), 1)]
        config = config.model_copy(update={"max_s": config.max_s * len(files)})

        def take(enough: Enough) -> Mapping[str, Latency]:
            return self._target.measure_latency(
                files, batches, config, enough=enough, progress=progress
            )

        setup = SetUp(batch=config.batch, threads=config.threads, target=self._known.address.name)
        where = f"{self._known.facts.lasting} {config.threads} threads"
        architecture = self._vae.architecture
        quiet = quiet_speed(architecture, setup, where, images.about, "latent mean")
        return until_quiet(take, EXPORTED, config, quiet)[0]

    def _loaded(self, variant: Variant, path: Path) -> Run:
        content, count = path.read_bytes(), self._source.threads

        def run(*args: Tensor) -> list[Tensor]:
            found = self._target.outputs(content, [one.numpy() for one in args], count)
            return [torch.from_numpy(np.array(array)) for array in found]

        return run

    def _exported(self, module: nn.Module) -> bytes:
        """Return the ONNX file of a module."""
        converter = self._converter
        if module is not self._eager:
            converter = Converter(module, self._image, OUTPUTS[MODEL])
        return converter.convert(ON_TARGETS, FLOAT32).content[".onnx"]

    def _say(self, line: str) -> None:
        self._note(line)


def _silent(line: str) -> None:
    """Do nothing; the lines of a target that is lost are not shown during other calls."""
