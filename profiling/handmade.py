"""Single layers described by a text such as ``dsconv in=64 out=128 size=36 batch=1``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from profiling.errors import ProfilingError

Values = Mapping[str, int]


@dataclass(frozen=True)
class LayerType:
    """A kind of layer: its constructor, default values and required values."""

    build: Callable[[Values], nn.Module]
    defaults: Values
    required: tuple[str, ...] = ("in", "out", "size")


def _conv(v: Values) -> nn.Module:
    padding = v["kernel"] // 2
    return nn.Conv2d(v["in"], v["out"], v["kernel"], v["stride"], padding, groups=v["groups"])


def _depthwise(v: Values) -> nn.Module:
    return _conv({**v, "out": v["in"], "groups": v["in"]})


def _pointwise(v: Values) -> nn.Module:
    return _conv({**v, "kernel": 1, "stride": 1, "groups": 1})


def _separable(v: Values) -> nn.Module:
    return nn.Sequential(_depthwise(v), _pointwise(v))


def _transposed(v: Values) -> nn.Module:
    """Return a layer whose output is exactly `stride` times the size of its input."""
    surplus = v["kernel"] - v["stride"]
    padding = max(0, (surplus + 1) // 2)
    return nn.ConvTranspose2d(
        v["in"], v["out"], v["kernel"], v["stride"], padding, 2 * padding - surplus, v["groups"]
    )


class Cat(nn.Module):
    """Concatenates two inputs along the channels."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return `(batch, channels of both, height, width)`."""
        return torch.cat((first, second), 1)


_CHANNELS = ("in", "size")
_KERNEL = {"kernel": 3, "stride": 1}
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def _activation(make: Callable[[], nn.Module]) -> LayerType:
    return LayerType(lambda v: make(), {}, _CHANNELS)


LAYER_TYPES: Mapping[str, LayerType] = {
    "conv": LayerType(_conv, {**_KERNEL, "groups": 1}),
    "dsconv": LayerType(_separable, _KERNEL),
    "depthwise": LayerType(_depthwise, _KERNEL, _CHANNELS),
    "pointwise": LayerType(_pointwise, {}),
    "convtranspose": LayerType(_transposed, {**_KERNEL, "groups": 1}),
    "linear": LayerType(lambda v: nn.Linear(v["in"], v["out"]), {}, ("in", "out")),
    "batchnorm": LayerType(lambda v: nn.BatchNorm2d(v["in"]), {}, _CHANNELS),
    "cat": LayerType(lambda v: Cat(), {}),
    "maxpool": LayerType(lambda v: nn.MaxPool2d(v["kernel"]), {"kernel": 2}, _CHANNELS),
    "avgpool": LayerType(lambda v: nn.AvgPool2d(v["kernel"]), {"kernel": 2}, _CHANNELS),
    "globalpool": LayerType(lambda v: nn.AdaptiveAvgPool2d(1), {}, _CHANNELS),
    "upsample": LayerType(lambda v: nn.Upsample(scale_factor=v["scale"]), {"scale": 2}, _CHANNELS),
    **{name: _activation(make) for name, make in _ACTIVATIONS.items()},
}


@dataclass(frozen=True)
class HandmadeLayer:
    """A kind of layer with its values; `str()` returns the text that `parse_layer` reads.

    The values `in` and `out` are channels (`cat`: of the first input, and of the output), `size` is
    height and width of the input.
    """

    kind: str
    values: Values

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{key}={value}" for key, value in self.values.items())])

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the forward pass's arguments."""
        v = self.values
        if "size" not in v:
            return ((v["batch"], v["in"]),)
        rest = (v["size"], v["size"])
        channels = (v["in"], v["out"] - v["in"]) if self.kind == "cat" else (v["in"],)
        return tuple((v["batch"], count, *rest) for count in channels)

    def build(self, device: torch.device | str = "cpu") -> tuple[nn.Module, tuple[Tensor, ...]]:
        """Return the module with new weights, and inputs for it that are drawn from N(0, 1).

        These are the values after a BatchNorm; the time of an activation depends on their signs.

        Raises:
            ProfilingError: torch cannot build a layer of these values.
        """
        try:
            with torch.device(device):
                module = LAYER_TYPES[self.kind].build(self.values)
                return module, tuple(torch.randn(shape) for shape in self.input_shapes)
        except (ValueError, RuntimeError) as error:
            raise ProfilingError(f"layer {str(self)!r}: {error}") from error

    def with_values(self, **changes: int) -> HandmadeLayer:
        """Return the layer with some values changed.

        Raises:
            ProfilingError: the kind has no such value, or a value is below 1.
        """
        for key in changes:
            _require_known(key, self.values, f"layer {str(self)!r}: key")
        return _checked(replace(self, values={**self.values, **changes}))

    def scaled_to(self, width: int) -> HandmadeLayer:
        """Return the layer with `width` output channels and input channels in proportion.

        Raises:
            ProfilingError: the proportion is not a whole number of channels.
        """
        v = self.values
        if "out" not in v:
            return self.with_values(**{"in": width})
        if width * v["in"] % v["out"]:
            raise ProfilingError(
                f"layer {str(self)!r}: width {width} does not keep in:out = {v['in']}:{v['out']}: "
                f"use a multiple of {v['out']}"
            )
        return self.with_values(**{"in": width * v["in"] // v["out"], "out": width})


def parse_layer(text: str) -> HandmadeLayer:
    """Read a layer such as ``dsconv in=64 out=128 size=36 batch=1``.

    Raises:
        ProfilingError: a kind or key is unknown, or a value is missing or not a positive integer.
    """
    kind, *pairs = text.split() or [""]
    _require_known(kind, LAYER_TYPES, f"layer {text!r}: kind")
    known = LAYER_TYPES[kind]
    values: dict[str, int | None] = {**dict.fromkeys(known.required), **known.defaults, "batch": 1}
    for pair in pairs:
        key, _, value = pair.partition("=")
        _require_known(key, values, f"layer {text!r}: key")
        if not re.fullmatch(r"[0-9]{1,12}", value):
            raise ProfilingError(f"layer {text!r}: {key}={value!r} is not a whole number")
        values[key] = int(value)
    missing = [key for key, value in values.items() if value is None]
    if missing:
        example = " ".join(f"{key}=..." for key in missing)
        raise ProfilingError(f"layer {text!r}: {kind} also needs {example}")
    return _checked(HandmadeLayer(kind, {k: v for k, v in values.items() if v is not None}))


def _checked(layer: HandmadeLayer) -> HandmadeLayer:
    for key, value in layer.values.items():
        if value < 1:
            raise ProfilingError(f"layer {str(layer)!r}: {key}={value} is not at least 1")
    if layer.kind == "cat" and layer.values["out"] <= layer.values["in"]:
        raise ProfilingError(
            f"layer {str(layer)!r}: cat needs more output channels than its first input has"
        )
    return layer


def _require_known(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name not in names:
        match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" (did you mean {match[0]!r}?)" if match else ""
        raise ProfilingError(f"{what} {name!r} is not one of {', '.join(names)}{hint}")
