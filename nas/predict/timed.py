"""Time an architecture, and its operations where that is possible, beside `original`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from nas.latency import Meter, Place
from nas.layers import Crop
from nas.predict.calibration import Measurement, Role, Setting
from nas.setups import EngineRefused, SetUp
from nas.timed_models import TimedImages, timed_model
from nas.vae import VAE
from profiling.allocator import tune_allocator
from profiling.environment import threads
from profiling.fresh_process import ProcessEndedError, begun_again
from profiling.lane import Lane
from profiling.latency import Latency, LatencyConfig, Model, measure_latency
from profiling.notes import Notes, Pass
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL

_VIEWS = (nn.Flatten, nn.Unflatten, Crop)


class OperationTimer:
    """Measures architectures with one setting; it holds the measurement lane meanwhile.

    The allocator keeps freed memory in the process, as in a study.
    """

    def __init__(self, setting: Setting) -> None:
        tune_allocator()
        self._device, self._setting = torch.device(setting.device), setting
        self._lane = Lane(setting.device)
        self._images = TimedImages.noise(setting.image_size)
        self._original = self._model(ORIGINAL.resized(setting.image_size))

    def __call__(self, architecture: Architecture, role: Role) -> Measurement:
        """Time whole passes of an architecture and `original`; for "fitted" each operation too."""
        model = self._model(architecture)
        models: dict[str, Model] = {"candidate": model, "original": self._original}
        if role == "fitted":
            notes = Notes(model, _paths(model), self._device, cpu_time=self._alone)
            models["notes"] = notes
        images = self._images.tensor(batch=self._setting.batch)
        with self._lane.measuring():
            found = measure_latency(models, images, self._config(role), self._device)
        candidate, original = found["candidate"], found["original"]
        times: tuple[float, ...] = ()
        if role == "fitted":
            noted = found["notes"]
            passes = notes.passes_of(noted)
            times = _operation_ratios(passes, self._undisturbed(original))
        return Measurement(
            architecture,
            role,
            tuple(zip(candidate.samples_ms, original.samples_ms, strict=True)),
            tuple(zip(_cpu_ms(candidate), _cpu_ms(original), strict=True)) if self._alone else (),
            candidate.contended or original.contended,
            times,
        )

    def _model(self, architecture: Architecture) -> VAE:
        with self._lane.training(), threads(self._setting.threads):
            return timed_model(architecture, self._images, self._device)[0]

    @property
    def _alone(self) -> bool:
        """Whether the calling thread does all the work, so that its CPU time covers all of it."""
        return self._setting.threads == 1 and self._device.type == "cpu"

    def _undisturbed(self, latency: Latency) -> Sequence[float]:
        return _cpu_ms(latency) if self._alone else latency.samples_ms

    def _config(self, role: Role) -> LatencyConfig:
        """Return settings with fewer rounds for "fitted", where errors average out."""
        rounds, seconds = (20, 2.0) if role == "fitted" else (40, 2.5)
        return LatencyConfig(
            batch=self._setting.batch,
            threads=self._setting.threads,
            min_rounds=rounds // 2,
            max_rounds=rounds,
            max_s=seconds,
            half_width=0.005,
            warmup_window=2,
            max_warmup=4,
            max_warmup_s=0.5,
            min_sample_ms=0.0,  # one pass per sample, which its notes belong to
        )


class ModelTimer:
    """Measures whole architectures in a set-up in which operations cannot be timed.

    Args:
        setting: The set-up.
        where: A device of this machine, or the setting's target.
    """

    def __init__(self, setting: Setting, where: Place) -> None:
        tune_allocator()  # as `OperationTimer`: the allocator is part of the environment
        named = {name: getattr(setting, name) for name in _OF_SETUP}
        self._meter = Meter(SetUp.model_validate({**named, **_PROTOCOL}), where)

    def __call__(self, architecture: Architecture, role: Role) -> Measurement | None:
        """Time whole passes of an architecture and `original`; None if it cannot be run."""
        try:
            pair, _ = begun_again(self._meter.measure, architecture)
        except (EngineRefused, ProcessEndedError):
            return None
        timed = pair.candidate, pair.reference
        alone = all(one.wall_over_cpu is not None for one in timed)
        return Measurement(
            architecture,
            role,
            tuple(zip(*(one.samples_ms for one in timed), strict=True)),
            tuple(zip(*map(_cpu_ms, timed), strict=True)) if alone else (),
            pair.contended,
        )


_OF_SETUP = ("threads", "batch", "backend", "precision", "part", "target")
_PROTOCOL = {"attempts": 1, "max_rounds": 60, "max_s": 4.0, "half_width": 0.01, "max_warmup": 10}


def _cpu_ms(latency: Latency) -> tuple[float, ...]:
    return tuple(sample.cpu_ms for sample in latency.samples)


def _operation_ratios(passes: Sequence[Pass], original_ms: Sequence[float]) -> tuple[float, ...]:
    """Return each operation's time over `original`'s of the same round, the median over rounds."""
    rounds = zip(passes, original_ms, strict=True)
    ratios = [[own_ms / whole_ms for own_ms in taken.own_ms] for taken, whole_ms in rounds]
    return tuple(float(ratio) for ratio in np.median(ratios, axis=0))


def _paths(model: VAE) -> list[str]:
    """Return the paths of the modules that launch operations, in the order of `operations`."""
    return [
        path
        for path, module in model.named_modules()
        if not any(module.children()) and not isinstance(module, _VIEWS)
    ]
