"""Dotted paths into an architecture: which exist, what each may hold, both ways of the mapping.

`image_size`, `latent_size`, ... name a field of `Architecture`; `encoder.head`,
`decoder.seed_width`, ... a field of one part; `encoder.depth` the number of its stages.
`encoder.block` (any stage field) sets all stages and `encoder.stages.2.block` one, the specific
path before the general. `encoder.base_width` is a schedule: stage i of the encoder is
`base * 2^i` wide, stage i of the decoder `base * 2^(depth - 1 - i)`, so its last is `base`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
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
)
from search_spaces.axes import Scalar
from search_spaces.errors import nearest

PARTS = ("encoder", "decoder")
_PART_TYPES: dict[str, type[BaseModel]] = {"encoder": Encoder, "decoder": Decoder}
_STAGE_TYPES: dict[str, type[BaseModel]] = {"encoder": EncoderStage, "decoder": DecoderStage}
_TOP = tuple(name for name in Architecture.model_fields if name not in PARTS)
_OWN = {
    part: tuple(name for name in kind.model_fields if name != "stages")
    for part, kind in _PART_TYPES.items()
}
_STAGE = {part: tuple(kind.model_fields) for part, kind in _STAGE_TYPES.items()}
_STAGE_PATH = re.compile(r"(encoder|decoder)\.stages\.(\d+|\*)\.(\w+)")


def _adapters() -> dict[str, TypeAdapter[Any]]:
    hints = {name: hint for name, hint in _hints(Architecture).items() if name in _TOP}
    for part in PARTS:
        found = {**_hints(_PART_TYPES[part]), **_hints(_STAGE_TYPES[part])}
        found |= {"depth": Annotated[int, Field(ge=1)], "base_width": Width}
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
"""Every path but the per-stage ones, which are `encoder.stages.<i>.<stage field>`."""


def stage_of(path: str) -> tuple[str, str, str] | None:
    """Split `encoder.stages.2.block` into part, index and field; None for other paths."""
    found = _STAGE_PATH.fullmatch(path)
    return (found[1], found[2], found[3]) if found else None


def path_fault(path: str) -> str | None:
    """Say why `path` names nothing, with the nearest name that does; None if it is fine."""
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
    """Say why `value` may not stand at `path` (which must be valid); None if it may."""
    part, _, field = path.rpartition(".")
    if field in CHOICES:
        names = CHOICES[field]
        if value in names:
            return None
        return f"{value!r} is not one of {', '.join(names)}{nearest(str(value), names)}"
    adapter = _ADAPTERS[f"{part.partition('.')[0]}.{field}" if part else field]
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return f"{error.errors()[0]['msg']}, got {value!r}"
    return None


def stage_value(values: Mapping[str, Scalar], part: str, index: int, field: str) -> Scalar:
    """Resolve one field of one stage, the most specific path first; None where nothing says."""
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
    """Every path that `stage_value` may read for that field, whether the space has it or not."""
    specific = (*_spellings(part, index, field), f"{part}.depth")
    return (*specific, f"{part}.base_width") if field == "width" else specific


def describe(values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Turn path -> value into the description that `Architecture.from_dict` takes."""
    description: dict[str, Any] = {name: values[name] for name in _TOP if name in values}
    for part in PARTS:
        depth = values[f"{part}.depth"]
        assert isinstance(depth, int)  # checked when the space was read
        own = {name: f"{part}.{name}" for name in _OWN[part]}
        description[part] = {name: values[path] for name, path in own.items() if path in values}
        description[part]["stages"] = [_stage(values, part, index) for index in range(depth)]
    return description


def _stage(values: Mapping[str, Scalar], part: str, index: int) -> dict[str, Scalar]:
    found = {name: stage_value(values, part, index, name) for name in _STAGE[part]}
    return {name: value for name, value in found.items() if value is not None}


def readings(path: str, architecture: Architecture) -> list[set[Scalar]]:
    """Read `path` back: for each place it sets in `architecture`, the values that explain it.

    Usually one value each; two where two values build the same network; none where no value of a
    schedule fits. Places where the field has no effect are left out.
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
        # Over one pixel a global average is the same network; canonically it says flatten.
        return [{"flatten", "global_average"}]
    values = [getattr(holder, field) for holder in _holders(path, part)]
    if field in ("growth_rate", "head_width"):
        values = [value for value in values if value is not None]
    return [{value} for value in values]


def overriders(path: str, paths: Iterable[str]) -> list[str]:
    """List those of `paths` that stand before `path` in some stage."""
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
