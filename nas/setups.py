"""Set-ups of a latency measurement: which runtime runs which part of a model, in which numbers.

Runtimes order architectures differently, and so do the parts of a model. What is measured should
therefore be what will be used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, field_validator, model_validator
from torch import Tensor, nn

from nas.vae import VAE
from profiling.backends import BACKENDS, INT8, find_backend, prepare_backend
from profiling.errors import ProfilingError
from profiling.lane import Lane
from profiling.latency import LatencyConfig, Model
from profiling.onnx_export import missing
from profiling.symbolic import Example, as_args
from search_spaces.errors import UserError

Part = Literal["full", "encoder", "decoder"]

ON_TARGETS = "onnxruntime"
"""The runtime of targets."""


class EngineRefused(ProfilingError):  # noqa: N818 - it is a result of the model, not a mistake
    """A backend cannot run a model, or computes something else."""


def _known_backend(name: str) -> str:
    try:
        find_backend(name)
    except ProfilingError as error:
        raise ValueError(str(error).removeprefix("backend: ")) from None
    return name


class SetUp(LatencyConfig):
    """What is timed, and the protocol of the measurement.

    Attributes:
        backend: What runs the model, one of `profiling.backends.BACKENDS`.
        precision: Numbers of its products. int8 takes the ranges of values from the timed images.
        part: The full pass (encoder, sampling, decoder), the encoder, or the decoder.
        target: Name of the machine in the user's list of targets; None is this machine.
    """

    backend: Annotated[str, AfterValidator(_known_backend)] = "eager"
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    part: Part = "full"
    target: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _usual_backend_of_targets(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("target") and "backend" not in given:
            return {**given, "backend": ON_TARGETS}
        return given

    @model_validator(mode="after")
    def _runs_on_targets(self) -> Self:
        if self.target is None:
            return self
        if not _on_targets(self.backend):
            raise ValueError(
                f"backend: {self.backend!r} is not run on a target ({self.target!r}); use "
                f"{ON_TARGETS} or {ON_TARGETS}_rewritten"
            )
        if self.precision != "float32":
            raise ValueError(
                f"precision: {self.precision!r} is not run on a target ({self.target!r}); use "
                "float32"
            )
        return self

    @field_validator("precision", mode="before")
    @classmethod
    def _not_the_width_of_intervals(cls, value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(
                "is float32, bfloat16 or int8; the half width of intervals is latency.half_width"
            )
        return value

    @property
    def is_plain(self) -> bool:
        """Whether the model runs in eager PyTorch, in float32."""
        return (self.backend, self.precision) == ("eager", "float32")

    @property
    def differing(self) -> str:
        """What differs from the default, such as "openvino, decoder" or "onnxruntime, on pi".

        It is "" for the full pass in eager PyTorch in float32.
        """
        default = SetUp()
        values = ((self.backend, default.backend), (self.precision, default.precision))
        parts = [one for one, usual in (*values, (self.part, default.part)) if one != usual]
        return ", ".join([*parts, *([f"on {self.target}"] if self.target else [])])

    @property
    def runtime(self) -> str | None:
        """Packages that run the model here, with versions; None for torch and for targets."""
        packages = () if self.target else find_backend(self.backend).packages(self.precision)
        return ", ".join(f"{package} {version(package)}" for package in packages) or None


def runtimes(setups: Iterable[SetUp]) -> str | None:
    """Return names and versions of the packages that run models here in place of torch."""
    return ", ".join(sorted({one.runtime for one in setups if one.runtime})) or None


def completed(first: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a further set-up with those of the first that it does not name.

    A further set-up on a target has the backend of targets, unless the first one's runs there.
    """
    found = {**first, **further}
    named = "backend" in further or _on_targets(first.get("backend"))
    return found if named or not found.get("target") else {**found, "backend": ON_TARGETS}


def _on_targets(backend: object) -> bool:
    return backend in BACKENDS and BACKENDS[str(backend)].package == ON_TARGETS


def require_backend(setup: SetUp, device: torch.device) -> None:
    """Check that a backend can be used on a device, with the set-up's precision.

    Models for a target are only exported here.

    Raises:
        UserError: It cannot; the message has the remedy.
    """
    if setup.target:
        if reason := missing("onnx", "onnxscript"):
            raise UserError(f"latency.target: exporting models for {setup.target} {reason}")
        return
    if reason := find_backend(setup.backend).reason_against(device, setup.precision):
        raise UserError(f"latency.backend: {setup.backend} {reason}")


def part_of(model: VAE, part: Part) -> nn.Module:
    """Return the part of a model that is timed."""
    parts: dict[str, nn.Module] = {
        "full": model, "encoder": model.encoder, "decoder": model.decoder,
    }  # fmt: skip
    return parts[part]


def inputs_of(model: VAE, images: Tensor, setup: SetUp) -> Example:
    """Return the arguments of the timed part for images `(n, channels, size, size)`.

    A decoder gets the latent means of the images. An engine gets the noise of the sample as an
    input, because it cannot be checked otherwise; eager PyTorch draws it, as in use.
    """
    if setup.part == "decoder":
        here = next(model.parameters()).device
        with torch.inference_mode():
            return model.encode(images.to(here))[0].clone()
    if setup.part == "encoder" or setup.is_plain:
        return images
    draw = torch.Generator().manual_seed(0)
    return images, torch.randn(len(images), model.architecture.latent_size, generator=draw)


class Engines:
    """Makes what runs a model with a set-up: `Prepare` of `profiling.paired`.

    Args:
        setup: The set-up.
        device: Where models run.
        lane: Held as for a training, because making an engine uses the machine like one.
        keep: Names of models that are always the same, whose engine is made once.
    """

    def __init__(
        self, setup: SetUp, device: torch.device, lane: Lane, keep: Collection[str] = ()
    ) -> None:
        self._setup, self._device, self._lane, self._keep = setup, device, lane, keep
        self._kept: dict[tuple[Any, ...], Model] = {}

    def __call__(self, name: str, model: Model, example: Example) -> Model:
        """Return what runs a model.

        Raises:
            EngineRefused: The backend cannot run the model, or computes something else.
        """
        assert isinstance(model, nn.Module)
        first: Any = tuple(arg[: self._setup.batch] for arg in as_args(example))
        key = name, *(arg.shape for arg in first)
        if key in self._kept:
            return self._kept[key]
        setup, device = self._setup, self._device
        calibration = as_args(example) if setup.precision == INT8 else None
        with self._lane.training():
            try:
                run = prepare_backend(
                    setup.backend, model, first, device, setup.threads, setup.precision, calibration
                ).run
            except ProfilingError as error:
                raise EngineRefused(str(error)) from None
        if name in self._keep:
            self._kept[key] = run
        return run


def engines(
    setup: SetUp, device: torch.device, lane: Lane, keep: Collection[str] = ()
) -> Engines | None:
    """Return what makes the engines of a set-up; None where a model runs as it is."""
    return None if setup.is_plain else Engines(setup, device, lane, keep)
