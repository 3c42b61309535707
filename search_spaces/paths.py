"""Dotted paths into an architecture: names, valid values, and the conversion in both directions.

- `image_size`, `latent_size`, ...: a field of `Architecture`.
- `encoder.head`, `decoder.seed_width`, ...: a field of one part.
- `encoder.depth`: the number of stages of the part.
- `encoder.block` (any field of a stage): the field of all stages.
- `encoder.stages.2.block`: the field of one stage, which takes precedence.
- `encoder.base_width`: a schedule of widths. Stage i of the encoder has `base * 2^i` channels,
  stage i of the decoder `base * 2^(depth - 1 - i)`, so its last stage has `base`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from search_spaces.architecture import (
    CHOICES,
    Architecture,
    Decoder,
    DecoderStage,
    Encoder,
    EncoderStage,
    Width,
    block_fault,
)
from search_spaces.axes import Scalar, Value
from search_spaces.errors import nearest

PARTS = ("encoder", "decoder")
MAX_DEPTH = 11
"""Maximum number of stages of a part: as many halve the largest images to one pixel."""
_PART_TYPES: dict[str, type[BaseModel]] = {"encoder": Encoder, "decoder": Decoder}
_STAGE_TYPES: dict[str, type[BaseModel]] = {"encoder": EncoderStage, "decoder": DecoderStage}
_TOP = tuple(name for name in Architecture.model_fields if name not in PARTS)
_OWN = {
    part: tuple(name for name in kind.model_fields if name != "stages")
    for part, kind in _PART_TYPES.items()
}
_STAGE = {part: tuple(kind.model_fields) for part, kind in _STAGE_TYPES.items()}
_STAGES, _PARTS = 1 << 14, 1 << 11  # that are kept: parts are large, and recur within a proposal
_STAGE_PATH = re.compile(r"(encoder|decoder)\.stages\.([0-9]{1,3}|\*)\.(\w+)")


def _adapters() -> dict[str, TypeAdapter[Any]]:
    hints = {name: hint for name, hint in _hints(Architecture).items() if name in _TOP}
    for part in PARTS:
        found = {**_hints(_PART_TYPES[part]), **_hints(_STAGE_TYPES[part])}
        found |= {"depth": Annotated[int, Field(ge=1, le=MAX_DEPTH)], "base_width": Width}
        hints |= {
            f"{part}.{name}": found[name]
            for name in ("depth", "base_width", *_OWN[part], *_STAGE[part])
        }
    strict = ConfigDict(strict=True)
    return {path: TypeAdapter(hint, config=strict) for path, hint in hints.items()}


def _hints(model: type) -> dict[str, Any]:
    return get_type_hints(model, include_extras=True)


_ADAPTERS = _adapters()
PATHS: tuple[str, ...] = tuple(_ADAPTERS)
"""All paths except those of single stages, `encoder.stages.<i>.<stage field>`."""


def stage_of(path: str) -> tuple[str, str, str] | None:
    """Split `encoder.stages.2.block` into part, index and field; None for other paths."""
    found = _STAGE_PATH.fullmatch(path)
    return (found[1], found[2], found[3]) if found else None


def path_fault(path: str) -> str | None:
    """Return why there is no such path, with the nearest valid one; None if it is valid."""
    if path in _ADAPTERS:
        return None
    stage = stage_of(path)
    if stage is None:
        return "unknown path" + (nearest(path, PATHS) or f"; known: {', '.join(PATHS)}")
    part, _, field = stage
    if field in _STAGE[part]:
        return None
    return f"unknown stage field {field!r}{nearest(field, _STAGE[part])}; known: " + ", ".join(
        _STAGE[part]
    )


def value_fault(path: str, value: object) -> str | None:
    """Return why `value` is not allowed at `path`, a valid path; None if it is allowed."""
    part, _, field = path.rpartition(".")
    if field == "block":
        return block_fault(value)
    if field in CHOICES:
        names = CHOICES[field]
        if value in names:
            return None
        return f"{value!r} is not one of {', '.join(names)}{nearest(str(value), names)}"
    adapter = _ADAPTERS[f"{part.partition('.')[0]}.{field}" if part else field]
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        return f"{reason}, got {value!r}"
    return None


def stage_value(values: Mapping[str, Value | None], part: str, index: int, field: str) -> Value:
    """Return a field of a stage, from the most specific path; None if no path sets it."""
    for path in _spellings(part, index, field):
        value = values.get(path)
        if value is not None:
            return value
    base, depth = values.get(f"{part}.base_width"), values.get(f"{part}.depth")
    if field == "width" and isinstance(base, int) and isinstance(depth, int):
        return base << (index if part == "encoder" else depth - 1 - index)
    return None


@cache
def _spellings(part: str, index: int, field: str) -> tuple[str, str]:
    return f"{part}.stages.{index}.{field}", f"{part}.{field}"


def sources(part: str, index: int, field: str) -> tuple[str, ...]:
    """Return every path that `stage_value` may read for a field."""
    specific = (*_spellings(part, index, field), f"{part}.depth")
    return (*specific, f"{part}.base_width") if field == "width" else specific


def describe(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the description for `Architecture.from_dict` of a mapping path -> value."""
    description: dict[str, Any] = {name: values[name] for name in _TOP if name in values}
    for part in PARTS:
        depth = values[f"{part}.depth"]
        assert isinstance(depth, int)  # checked when the space was read
        own = {name: f"{part}.{name}" for name in _OWN[part]}
        description[part] = {name: values[path] for name, path in own.items() if path in values}
        description[part]["stages"] = [_stage(values, part, index) for index in range(depth)]
    return description


def _stage(values: Mapping[str, Value | None], part: str, index: int) -> dict[str, Value]:
    found = {name: stage_value(values, part, index, name) for name in _STAGE[part]}
    return {name: value for name, value in found.items() if value is not None}


def build(values: Mapping[str, Value]) -> Architecture:
    """Return the architecture that `describe` describes, of parts that are built once.

    A search builds thousands of architectures for each proposal, and most share their parts.

    Raises:
        pydantic.ValidationError: a value is not valid; the error may name a part alone.
    """
    parts = {}
    for part in PARTS:
        depth = values[f"{part}.depth"]
        assert isinstance(depth, int)  # checked when the space was read
        stages = tuple(
            _built_stage(part, index, tuple(map(values.get, _stage_paths(part, index))))
            for index in range(depth)
        )
        own = tuple((name, values[path]) for name, path in _own_paths(part) if path in values)
        parts[part] = _built_part(part, own, stages)
    return Architecture(**{name: values[name] for name in _TOP if name in values}, **parts)  # type: ignore[arg-type]


@cache
def _own_paths(part: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{part}.{name}") for name in _OWN[part])


@cache
def _stage_paths(part: str, index: int) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(path for name in _STAGE[part] for path in sources(part, index, name))
    )


@lru_cache(_STAGES)
def _built_stage(part: str, index: int, given: tuple[Value | None, ...]) -> BaseModel:
    values = dict(zip(_stage_paths(part, index), given, strict=True))
    return _STAGE_TYPES[part].model_validate(_stage(values, part, index))


@lru_cache(_PARTS)
def _built_part(
    part: str, own: tuple[tuple[str, Value], ...], stages: tuple[BaseModel, ...]
) -> BaseModel:
    return _PART_TYPES[part].model_validate({**dict(own), "stages": stages})


def readings(path: str, architecture: Architecture) -> list[set[Scalar]]:
    """Return, for each place that `path` sets in `architecture`, the values that produce it.

    Usually there is one value per place: two if two values build the same network, none if no value
    of a schedule fits. Places where the field has no effect are omitted.
    """
    part_name, _, field = path.rpartition(".")
    if not part_name:
        return [{getattr(architecture, field)}]
    part: Encoder | Decoder = getattr(architecture, part_name.partition(".")[0])
    if field == "depth":
        return [{len(part.stages)}]
    if field == "base_width":
        return _bases(part)
    if path == "encoder.head" and _over_one_pixel(architecture):
        # Over one pixel, global average and flatten are the same network.
        return [{"flatten", "global_average"}]
    values = [getattr(holder, field) for holder in _holders(path, part)]
    if field in ("growth_rate", "head_width"):
        values = [value for value in values if value is not None]
    return [{value} for value in values]


def overriders(path: str, paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that take precedence over `path` in a stage."""
    part, _, field = path.rpartition(".")
    if part not in PARTS:
        return []
    general = f"{part}.width" if field == "base_width" else path
    field = general.rpartition(".")[2]
    stages = [p for p in paths if (found := stage_of(p)) and found[::2] == (part, field)]
    return [*stages, general] if general != path and general in paths else stages


def _over_one_pixel(architecture: Architecture) -> bool:
    return architecture.encoder_sizes[-1] == 1 and architecture.encoder.head == "flatten"


def _holders(path: str, part: Encoder | Decoder) -> Sequence[Any]:
    if stage := stage_of(path):
        return part.stages[int(stage[1]) : int(stage[1]) + 1]
    return [part] if hasattr(part, path.rpartition(".")[2]) else part.stages


def _bases(part: Encoder | Decoder) -> list[set[Scalar]]:
    widths = [stage.width for stage in part.stages]
    if isinstance(part, Decoder):
        widths.reverse()
    return [{width >> i} if width % 2**i == 0 else set() for i, width in enumerate(widths)]
