"""The complete description of an image VAE as a value; it needs no torch.

Every description is validated and brought to its canonical form when it is made, so that two
descriptions of the same network are equal and have the same digest. `docs/architecture.md` says how
each field becomes layers, and `nas.blocks` builds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache, cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from search_spaces.errors import nearest, refusal
from search_spaces.import_strings import import_string_of, is_import_string
from search_spaces.sizes import ImageSize, Size, reduced, sides, size_in_words
from search_spaces.yaml_file import read_yaml

Block = Literal["plain", "dense"]
Convolution = Literal["standard", "depthwise_first", "pointwise_first"]
Downsampling = Literal["max", "average", "strided"]
Upsampling = Literal["nearest", "transposed", "pixel_shuffle"]
Head = Literal["flatten", "squeeze", "global_average"]
Operator = Literal["convolution", "transposed"]
Activation = Literal["elu", "relu", "leaky_relu", "silu", "gelu"]

Width = Annotated[int, Field(ge=1, le=4096)]

CHOICES: dict[str, tuple[str, ...]] = {
    "block": get_args(Block),
    "convolution": get_args(Convolution),
    "downsampling": get_args(Downsampling),
    "upsampling": get_args(Upsampling),
    "head": get_args(Head),
    "operator": get_args(Operator),
    "activation": get_args(Activation),
}
"""Categorical field -> its values. `nas` builds all of them, and axes may vary them."""

_WITHOUT_GROWTH: Final = tuple(name for name in CHOICES["block"] if name != "dense")


def block_fault(name: object) -> str | None:
    """Return why a value names no block; None if it does: a shipped one, or one of one's own."""
    known = CHOICES["block"]
    if name in known or (isinstance(name, str) and is_import_string(name)):
        return None
    return (
        f"{name!r} is not one of {', '.join(known)}{nearest(str(name), known)}, nor an import "
        "string such as mypkg.blocks:mine"
    )


def _is_block(name: str) -> str:
    if fault := block_fault(name):
        raise ValueError(fault)
    return name


def _named(block: object) -> object:
    return import_string_of(block) if callable(block) else block


class _Value(BaseModel):
    """A value whose text is written once: parts are shared by many architectures of a search."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @cached_property
    def canonical(self) -> str:
        """All fields as JSON text with sorted keys and no spaces: equal for equal values."""
        fields = (f'"{name}":{_json(getattr(self, name))}' for name in _sorted_fields(type(self)))
        return "{" + ",".join(fields) + "}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Value):
            return NotImplemented
        return type(self) is type(other) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)


@cache
def _sorted_fields(kind: type[BaseModel]) -> list[str]:
    return sorted(kind.model_fields)


def _json(value: object) -> str:
    if isinstance(value, _Value):
        return value.canonical
    if isinstance(value, tuple):
        return "[" + ",".join(map(_json, value)) + "]"
    return _scalar_json(value)


@lru_cache(1 << 14, typed=True)  # True is not 1
def _scalar_json(value: object) -> str:
    return json.dumps(value)


class Stage(_Value):
    """One resolution of the network: a block of `layers` convolutions, then a change of size.

    Attributes:
        block: `plain`: each layer is convolution, BatchNorm and activation, with `width` output
            channels. `dense`: the input of a layer is the input of the block and the outputs of all
            earlier layers (DenseNet, Huang et al. 2017). Each layer adds `growth_rate` channels,
            and a 1x1 transition reduces the concatenation to `width` channels. Or the class or
            function of a block of one's own, or its import string (`nas.own.blocks`).
        convolution: How a layer convolves, see `nas.layers.CONVOLUTIONS`.
        width: Output channels of the stage.
        layers: Number of layers of the block.
        growth_rate: Channels added by each dense layer; None in a plain block, where it has no
            effect. A block of one's own may use it, or not.
    """

    block: Annotated[str, BeforeValidator(_named), AfterValidator(_is_block)] = "plain"
    convolution: Convolution = "standard"
    width: Width
    layers: Annotated[int, Field(ge=1, le=64)] = 1
    growth_rate: Width | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_has_no_effect(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("block", "plain") in _WITHOUT_GROWTH:
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
    """A stage that halves height and width, rounding up, after its block."""

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
    """The encoder: an optional 3x3 stem, the stages, and a head before the latent's linear layers.

    Attributes:
        stem_width: Output channels of the stem; None means no stem.
        stages: The stages, from the image to the head.
        head: `flatten` flattens all features. `squeeze` reduces them by a 1x1 convolution to
            `head_width` channels first. `global_average` averages over height and width.
        head_width: Channels after the squeeze; None for other heads, where it has no effect.
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
    """The decoder: a linear seed, the stages, and a 3x3 output layer.

    Attributes:
        seed_width: Channels of the seed, the feature maps made from the latent.
        stages: The stages, from the seed to the output layer.
        operator: Kind of the 3x3 layers in the blocks and at the output. At stride 1 both kinds
            compute the same family of functions with the same number of multiply-adds, but backends
            run them at different speeds.
    """

    seed_width: Width
    stages: tuple[DecoderStage, ...] = Field(min_length=1, strict=False)
    operator: Operator = "convolution"


class Architecture(_Value):
    """A VAE for images of `image_channels` x height x width pixels in [0, 1].

    Attributes:
        image_size: Side of the images in pixels, or (height, width) if these differ.
        image_channels: Channels of the images.
        latent_size: Number of latent variables.
        activation: Activation function of all layers except the last.
        encoder, decoder: The two parts.

    Raises:
        pydantic.ValidationError: the description has faults; the error lists all. `from_dict` and
            `load` raise a `UserError` with one line per fault instead.
    """

    image_size: ImageSize
    image_channels: Annotated[int, Field(ge=1, le=16)] = 3
    latent_size: Annotated[int, Field(ge=1, le=16384)] = 128
    activation: Activation = "elu"
    encoder: Encoder
    decoder: Decoder

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        shortest = min(sides(self.image_size))
        for part in ("encoder", "decoder"):
            depth = len(getattr(self, part).stages)
            if 2**depth > shortest:
                raise ValueError(
                    f"{part}.stages: {depth} stages halve {size_in_words(self.image_size)} pixels "
                    f"below one; at most {shortest.bit_length() - 1} stages fit"
                )
        if self.encoder.head == "global_average" and self.encoder_sizes[-1] == 1:
            # The average over one pixel is that pixel, so the network is that of a flatten head.
            flat = Encoder(stem_width=self.encoder.stem_width, stages=self.encoder.stages)
            object.__setattr__(self, "encoder", flat)
        return self

    @property
    def own_blocks(self) -> tuple[str, ...]:
        """The import strings of blocks of the user's own, sorted."""
        stages = (*self.encoder.stages, *self.decoder.stages)
        return tuple(sorted({one.block for one in stages}.difference(CHOICES["block"])))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.image_channels, *sides(self.image_size)

    @property
    def encoder_sizes(self) -> tuple[Size, ...]:
        """Size of the features before the first stage and after each stage."""
        return _halvings(self.image_size, len(self.encoder.stages))

    @property
    def decoder_sizes(self) -> tuple[Size, ...]:
        """Size of the seed and after each stage; the last is the image size.

        A stage doubles its input, and crops one row and column where the result must be odd.
        """
        return _halvings(self.image_size, len(self.decoder.stages))[::-1]

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify the network: equal for equal descriptions."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:12]

    @cached_property
    def summary(self) -> str:
        """One line for people: image, encoder, latent, decoder; equal stages are listed once."""
        encoder, decoder = self.encoder, self.decoder
        stem = f"stem {encoder.stem_width}, " if encoder.stem_width else ""
        head = encoder.head.replace("_", " ")
        head += f" {encoder.head_width}" if encoder.head_width else ""
        pixels = f"{size_in_words(self.image_size)}px"
        return (
            f"{pixels} {self.activation} | {stem}{_stages(encoder.stages)}, {head}"
            f" | z{self.latent_size} | seed {decoder.seed_width}, {_stages(decoder.stages)}"
            f" ({decoder.operator})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON types."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return the description as indented JSON text that `Architecture.load` reads back."""
        return json.dumps(self.to_dict(), indent=1)

    def resized(self, image_size: Size, image_channels: int | None = None) -> Architecture:
        """Return the description for images of another size and, if given, of other channels."""
        shape = {"image_size": image_size, "image_channels": image_channels or self.image_channels}
        return Architecture.from_dict({**self.to_dict(), **shape})

    @classmethod
    def from_dict(cls, data: Any, source: str = "architecture") -> Architecture:
        """Build an architecture from plain JSON types.

        Raises:
            UserError: the data have faults; one line per fault, each with `source`.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise refusal(error, source, cls) from None

    @classmethod
    def load(cls, path: Path) -> Architecture:
        """Read an architecture from a JSON or YAML file.

        Raises:
            UserError: the file cannot be read or does not describe an architecture.
        """
        return cls.from_dict(read_yaml(path), str(path))


@cache
def _halvings(size: Size, times: int) -> tuple[Size, ...]:
    sizes = [size]
    for _ in range(times):
        sizes.append(reduced(sizes[-1], 2))
    return tuple(sizes)


def _stages(stages: tuple[EncoderStage, ...] | tuple[DecoderStage, ...]) -> str:
    parts = []
    for words, group in groupby(stages, key=lambda stage: stage.words()):
        widths = "-".join(str(stage.width) for stage in group)
        parts.append(f"{words} {widths}")
    return ", ".join(parts)
