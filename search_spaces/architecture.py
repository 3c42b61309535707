"""An image VAE as a value: what to build, with nothing left to chance and no torch.

Every description is validated and brought to its canonical form at birth, so two descriptions of
one network compare equal and share a digest. How each field turns into layers is written down in
`docs/architecture.md` and done in `nas.blocks`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from search_spaces.errors import refusal
from search_spaces.yaml_file import read_yaml

Block = Literal["plain", "dense"]
Convolution = Literal["standard", "depthwise_first", "pointwise_first"]
Downsampling = Literal["max", "average", "strided"]
Upsampling = Literal["nearest", "transposed", "pixel_shuffle"]
Head = Literal["flatten", "squeeze", "global_average"]
Operator = Literal["convolution", "transposed"]
Activation = Literal["elu", "relu", "leaky_relu", "silu", "gelu"]

Width = Annotated[int, Field(ge=1, le=4096)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Stage(_Value):
    """One resolution of the network: a block of `layers` convolutions, then a change of size.

    `plain`: each layer is convolution, BatchNorm, activation, `width` channels wide. `dense`: layer
    i sees the input and all earlier layers (DenseNet), adds `growth_rate` channels, and a 1x1
    transition brings the concatenation to `width`. `growth_rate` means nothing in a plain block and
    is dropped there.
    """

    block: Block = "plain"
    convolution: Convolution = "standard"
    width: Width
    layers: Annotated[int, Field(ge=1, le=64)] = 1
    growth_rate: Width | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_has_no_effect(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("block", "plain") != "dense":
            return {**data, "growth_rate": None}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.block == "dense" and self.growth_rate is None:
            raise ValueError("a dense block needs a growth_rate (channels added by each layer)")
        return self

    def _words(self, resampling: str) -> str:
        growth = f" g{self.growth_rate}" if self.growth_rate else ""
        return f"{self.block} {self.convolution} x{self.layers}{growth} {resampling}"


class EncoderStage(Stage):
    """A stage that halves height and width (rounding up) after its block."""

    downsampling: Downsampling = "max"

    def words(self) -> str:
        """Describe everything but the width."""
        return self._words(self.downsampling)


class DecoderStage(Stage):
    """A stage that doubles height and width after its block."""

    upsampling: Upsampling = "nearest"

    def words(self) -> str:
        """Describe everything but the width."""
        return self._words(self.upsampling)


class Encoder(_Value):
    """Image to features: an optional 3x3 stem, the stages, and what leads to the latent.

    `head`: `flatten` all features; `squeeze` them by a 1x1 convolution to `head_width` channels and
    flatten; or `global_average` over height and width. `head_width` is dropped without a squeeze.
    """

    stem_width: Width | None = None
    stages: tuple[EncoderStage, ...] = Field(min_length=1, strict=False)
    head: Head = "flatten"
    head_width: Width | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_has_no_effect(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("head", "flatten") != "squeeze":
            return {**data, "head_width": None}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head == "squeeze" and self.head_width is None:
            raise ValueError("a squeeze head needs a head_width (channels after the 1x1 squeeze)")
        return self


class Decoder(_Value):
    """Latent to image: a linear seed of `seed_width` channels, the stages, a 3x3 output layer.

    `operator` is the kind of 3x3 layer in the blocks and at the output. Both compute the same
    family of functions at stride 1 with the same arithmetic; backends run them at different speeds.
    """

    seed_width: Width
    stages: tuple[DecoderStage, ...] = Field(min_length=1, strict=False)
    operator: Operator = "convolution"


class Architecture(_Value):
    """A VAE for square images of `image_channels` x `image_size` x `image_size` pixels in [0, 1].

    Raises:
        pydantic.ValidationError: with every fault at once. `Architecture.load` and `from_dict`
            turn it into a `UserError` of one line per fault.
    """

    image_size: Annotated[int, Field(ge=4, le=2048)]
    image_channels: Annotated[int, Field(ge=1, le=16)] = 3
    latent_size: Annotated[int, Field(ge=1, le=16384)] = 128
    activation: Activation = "elu"
    encoder: Encoder
    decoder: Decoder

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        for part in ("encoder", "decoder"):
            depth = len(getattr(self, part).stages)
            if 2**depth > self.image_size:
                raise ValueError(
                    f"{part}.stages: {depth} stages halve {self.image_size} pixels below one; "
                    f"at most {self.image_size.bit_length() - 1} stages fit"
                )
        if self.encoder.head == "global_average" and self.encoder_sizes[-1] == 1:
            # The average over one pixel is that pixel: the same network as a flatten head.
            canonical = self.encoder.model_copy(update={"head": "flatten"})
            object.__setattr__(self, "encoder", canonical)
        return self

    @property
    def encoder_sizes(self) -> tuple[int, ...]:
        """Height (= width) of the features before the first stage and after each stage."""
        return _halvings(self.image_size, len(self.encoder.stages))

    @property
    def decoder_sizes(self) -> tuple[int, ...]:
        """Height (= width) of the seed and after each stage; the last is the image size.

        A stage doubles its input and crops one row and column where the target is odd.
        """
        return _halvings(self.image_size, len(self.decoder.stages))[::-1]

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits, equal exactly for descriptions of the same network."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def summary(self) -> str:
        """One line for people: image, encoder, latent, decoder; equal stages told once."""
        encoder, decoder = self.encoder, self.decoder
        stem = f"stem {encoder.stem_width}, " if encoder.stem_width else ""
        head = encoder.head.replace("_", " ")
        head += f" {encoder.head_width}" if encoder.head_width else ""
        return (
            f"{self.image_size}px {self.activation} | {stem}{_stages(encoder.stages)}, {head}"
            f" | z{self.latent_size} | seed {decoder.seed_width}, {_stages(decoder.stages)}"
            f" ({decoder.operator})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, every field present."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return the description as indented JSON text that `Architecture.load` reads back."""
        return json.dumps(self.to_dict(), indent=1)

    def resized(self, image_size: int) -> Architecture:
        """Return the same description for images of another size."""
        return Architecture.from_dict({**self.to_dict(), "image_size": image_size})

    @classmethod
    def from_dict(cls, data: Any, source: str = "architecture") -> Architecture:
        """Build from plain types; raise `UserError` naming `source` and every fault."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise refusal(error, source, cls) from None

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read a `.json`, `.yaml` or `.yml` file; raise `UserError` where it does not fit."""
        return cls.from_dict(read_yaml(path), str(path))


CHOICES: dict[str, tuple[str, ...]] = {
    "block": get_args(Block),
    "convolution": get_args(Convolution),
    "downsampling": get_args(Downsampling),
    "upsampling": get_args(Upsampling),
    "head": get_args(Head),
    "operator": get_args(Operator),
    "activation": get_args(Activation),
}
"""Every categorical field and its values: what builders must cover and spaces may vary."""


def _halvings(size: int, times: int) -> tuple[int, ...]:
    sizes = [size]
    for _ in range(times):
        sizes.append((sizes[-1] + 1) // 2)
    return tuple(sizes)


def _stages(stages: tuple[EncoderStage, ...] | tuple[DecoderStage, ...]) -> str:
    parts = []
    for words, group in groupby(stages, key=lambda stage: stage.words()):
        widths = "-".join(str(stage.width) for stage in group)
        parts.append(f"{words} {widths}")
    return ", ".join(parts)
