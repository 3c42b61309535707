"""Architectures: equal digests for equal networks only, and complete lists of faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.architecture import CHOICES, Architecture
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL, REFERENCES


def _stages(**resampling: Any) -> st.SearchStrategy[list[dict[str, Any]]]:
    stage = st.fixed_dictionaries(
        {
            "block": st.sampled_from(CHOICES["block"]),
            "convolution": st.sampled_from(CHOICES["convolution"]),
            "width": st.sampled_from([1, 8]),
            "layers": st.integers(1, 2),
            "growth_rate": st.sampled_from([4, 8]),
            **resampling,
        }
    )
    return st.lists(stage, min_size=1, max_size=3)


DESCRIPTIONS = st.fixed_dictionaries(
    {
        "image_size": st.sampled_from([8, 9]),
        "latent_size": st.integers(1, 3),
        "activation": st.sampled_from(CHOICES["activation"]),
        "encoder": st.fixed_dictionaries(
            {
                "stem_width": st.sampled_from([None, 8]),
                "head": st.sampled_from(CHOICES["head"]),
                "head_width": st.integers(1, 2),
                "stages": _stages(downsampling=st.sampled_from(CHOICES["downsampling"])),
            }
        ),
        "decoder": st.fixed_dictionaries(
            {
                "seed_width": st.integers(1, 2),
                "operator": st.sampled_from(CHOICES["operator"]),
                "stages": _stages(upsampling=st.sampled_from(CHOICES["upsampling"])),
            }
        ),
    }
)


def _what_is_built(description: dict[str, Any]) -> dict[str, Any]:
    """Strip by hand what builds nothing: the oracle for the canonical form."""
    stripped: dict[str, Any] = json.loads(json.dumps(description))
    for part in ("encoder", "decoder"):
        for stage in stripped[part]["stages"]:
            if stage["block"] == "plain":
                del stage["growth_rate"]
    encoder = stripped["encoder"]
    if encoder["head"] != "squeeze":
        del encoder["head_width"]
    # 8 pixels are one pixel after three halvings; 9 pixels are two (9, 5, 3, 2).
    one_pixel = stripped["image_size"] == 8 and len(encoder["stages"]) == 3
    if encoder["head"] == "global_average" and one_pixel:
        encoder["head"] = "flatten"
    return stripped


def _edited(description: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    edited: dict[str, Any] = json.loads(json.dumps(description))
    place: Any = edited
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return edited


EDITS = st.sampled_from(
    [
        (["image_size"], 9),
        (["latent_size"], 2),
        (["activation"], "relu"),
        (["encoder", "head"], "flatten"),
        (["encoder", "head"], "global_average"),
        (["encoder", "head_width"], 2),
        (["encoder", "stem_width"], 8),
        (["encoder", "stages", 0, "growth_rate"], 8),
        (["encoder", "stages", 0, "block"], "dense"),
        (["encoder", "stages", 0, "downsampling"], "strided"),
        (["decoder", "operator"], "transposed"),
        (["decoder", "stages", 0, "growth_rate"], 4),
        (["decoder", "stages", 0, "convolution"], "pointwise_first"),
        (["decoder", "stages", 0, "upsampling"], "transposed"),
    ]
)


@given(DESCRIPTIONS, EDITS)
def test_digests_are_equal_exactly_when_the_same_network_is_built(
    first: dict[str, Any], edit: tuple[list[Any], Any]
) -> None:
    second = _edited(first, *edit)
    same = _what_is_built(first) == _what_is_built(second)
    one, other = Architecture.from_dict(first), Architecture.from_dict(second)
    assert (one == other) is same
    assert (one.digest == other.digest) is same


@given(DESCRIPTIONS)
def test_fields_without_effect_change_nothing(description: dict[str, Any]) -> None:
    bare, full = _what_is_built(description), Architecture.from_dict(description)
    assert Architecture.from_dict(bare) == full
    assert Architecture.from_dict(bare).summary == full.summary


@given(DESCRIPTIONS)
@pytest.mark.slow
def test_plain_types_and_json_come_back_equal(description: dict[str, Any]) -> None:
    architecture = Architecture.from_dict(description)
    assert Architecture.from_dict(json.loads(architecture.to_json())) == architecture
    assert Architecture.from_dict(architecture.to_dict()).digest == architecture.digest
    assert "\n" not in architecture.summary


def test_defaults_may_be_left_out() -> None:
    short = {
        "image_size": 144,
        "encoder": {"stages": [{"width": width} for width in (32, 64, 128, 256)]},
        "decoder": {
            "seed_width": 256,
            "stages": [{"width": width} for width in (256, 128, 64, 32)],
            "operator": "transposed",
        },
    }
    assert Architecture.from_dict(short) == ORIGINAL


def test_digests_stay_what_old_studies_recorded() -> None:
    digests = {name: reference.digest for name, reference in REFERENCES.items()}
    assert digests == {"original": "9659a6772217", "modified": "4edc4d38b5d9"}


def test_sizes_halve_rounding_up_and_the_decoder_retraces_them() -> None:
    assert ORIGINAL.encoder_sizes == (144, 72, 36, 18, 9)
    assert ORIGINAL.decoder_sizes == (9, 18, 36, 72, 144)
    assert ORIGINAL.resized(100).encoder_sizes == (100, 50, 25, 13, 7)
    assert ORIGINAL.resized(100).decoder_sizes == (7, 13, 25, 50, 100)
    flat = ORIGINAL.resized((20, 33))
    assert flat.encoder_sizes == ((20, 33), (10, 17), (5, 9), (3, 5), (2, 3))
    assert flat.decoder_sizes == flat.encoder_sizes[::-1]


def test_height_and_width_may_differ() -> None:
    portrait = MODIFIED.resized((144, 96), 1)
    assert portrait.image_shape == (1, 144, 96)
    assert portrait.summary.startswith("144x96px elu | ")
    assert portrait.to_dict()["image_size"] == [144, 96]
    assert Architecture.from_dict(json.loads(portrait.to_json())) == portrait
    assert Architecture.model_validate_json(portrait.to_json()) == portrait
    assert portrait.digest == "343f7375f117"
    assert MODIFIED.resized((96, 144)).digest != MODIFIED.resized((144, 96)).digest
    assert MODIFIED.resized((144, 144)) == MODIFIED


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (
            [144, 9],
            "a.json: encoder.stages: 4 stages halve 144x9 pixels below one; at most 3",
        ),
        ([], "a.json: image_size: expected one side or [height, width], got 0 values"),
        ([64, True], "a.json: image_size: Input should be a valid integer, got True"),
        ([64, 3], "a.json: image_size: Input should be greater than or equal to 4, got 3"),
        ("64x32", "a.json: image_size: Input should be a valid integer, got '64x32'"),
    ],
)
def test_unsuitable_sides_are_refused(size: object, told: str) -> None:
    (line,) = _refused({**ORIGINAL.to_dict(), "image_size": size})
    assert line.startswith(told)


def test_resizing_keeps_all_but_the_size() -> None:
    assert MODIFIED.resized(64).resized(144) == MODIFIED
    assert {**MODIFIED.resized(64).to_dict(), "image_size": 144} == MODIFIED.to_dict()


def test_summary_tells_the_network_in_one_line() -> None:
    assert ORIGINAL.summary == (
        "144px elu | plain standard x1 max 32-64-128-256, flatten | z128 | "
        "seed 256, plain standard x1 nearest 256-128-64-32 (transposed)"
    )


def test_values_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ORIGINAL.latent_size = 3  # type: ignore[misc]


def _refused(description: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        Architecture.from_dict(description, "a.json")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["image_size"], 8, "at most 3 stages fit"),
        (["image_size"], 144.0, "a.json: image_size: Input should be a valid integer, got 144.0"),
        (["latent_size"], True, "a.json: latent_size: Input should be a valid integer, got True"),
        (["latent_size"], 0, "greater than or equal to 1, got 0"),
        (["activation"], "rely", "(did you mean 'relu'?)"),
        (["encoder", "stages"], [], "encoder.stages"),
        (["encoder", "head"], "squeeze", "needs a head_width"),
        (["encoder", "stages", 0, "block"], "dense", "needs a growth_rate"),
        (["decoder", "stages", 1, "widht"], 3, "unknown key (did you mean 'width'?)"),
        (["decoder", "stages", 1, "downsampling"], "max", "unknown key (did you mean 'upsampl"),
    ],
)
def test_a_bad_field_is_refused_in_one_line(path: list[Any], value: Any, expected: str) -> None:
    (line,) = _refused(_edited(ORIGINAL.to_dict(), path, value))
    assert line.startswith("a.json: ")
    assert expected in line


def test_every_fault_is_named_at_once() -> None:
    description = _edited(ORIGINAL.to_dict(), ["activation"], "elo")
    description["encoder"]["heda"] = "flatten"
    del description["decoder"]["seed_width"]
    lines = _refused(description)
    assert len(lines) == 3
    assert "activation: 'elo' is not one of" in lines[0]
    assert "encoder.heda: unknown key (did you mean 'head'?)" in lines[1]
    assert lines[2] == "a.json: decoder.seed_width: missing"


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_files_load(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_text(MODIFIED.to_json())
    assert Architecture.load(path) == MODIFIED


def test_unreadable_files_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        Architecture.load(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(UserError, match=r"broken\.json: not valid JSON or YAML"):
        Architecture.load(broken)
    broken.write_text("7")
    with pytest.raises(UserError, match=r"broken\.json: "):
        Architecture.load(broken)
