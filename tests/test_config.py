"""Configurations: presets, overrides, and all faults reported at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from studies.config.loading import load_config, parse_overrides
from studies.config.presets import presets
from studies.config.study import StudyConfig


@pytest.mark.parametrize("name", presets())
def test_presets_are_valid_and_contain_the_references(name: str) -> None:
    config = load_config(name)
    space = config.load_space()
    for reference in REFERENCES.values():
        assert reference.resized(space.image_size) in space
    assert StudyConfig.model_validate(config.to_dict()) == config


def test_overrides_reach_nested_keys() -> None:
    settings = parse_overrides(["training.epochs=3", "limits.params=2e6", "threads=null"], "--set")
    config = load_config("quickstart", settings)
    assert (config.training.epochs, config.limits["params"], config.threads) == (3, 2e6, None)


def test_a_description_goes_with_what_it_described() -> None:
    assert load_config("quickstart", {"search.trials": 3}).description
    assert not load_config("quickstart", {"training.epochs": 3}).description


def test_an_unknown_preset_offers_the_nearest() -> None:
    with pytest.raises(UserError, match=r"neither a preset .*did you mean 'quickstart'"):
        load_config("quikstart")


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(
        "space: tiny\ntraining: {epoch: 3, batch_size: 0}\nobjectives: [parms]\n"
        "limits: {reconstruction_loss: 1}\nsearch: {sampler: tpee}\ndevice: gpu\n"
    )
    with pytest.raises(UserError) as refused:
        load_config(str(path))
    lines = str(refused.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    for expected in (
        "training.epoch: unknown key (did you mean 'epochs'?)",
        "training.batch_size",
        "'parms' is not one of",
        "(did you mean 'params'?)",
        "'reconstruction_loss' cannot be limited before training",
        "search.sampler: not one of pareto, tpe",
        "(did you mean 'tpe'?)",
        "device: 'gpu' is not one of auto, cpu, cuda",
    ):
        assert any(expected in line for line in lines), expected
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("space: tiny\nspace: wide\n", "'space' is given twice"),
        ("space: tinny\ntraining: {epochs: 0}\n", "'tiny'"),
        ("space: tiny\nsearch: {seed: -1}\n", "search.seed"),
    ],
)
def test_more_faults_of_a_file(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as refused:
        load_config(str(path))
    assert ("epochs" in text) == ("training.epochs" in str(refused.value))


def test_an_empty_section_is_one_without_settings(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("space: tiny\ntraining:\nlimits:\n")
    assert load_config(str(path), {"training.epochs": 3}).training.epochs == 3


def test_a_study_needs_two_objectives() -> None:
    with pytest.raises(UserError, match="at least two"):
        load_config("quickstart", {"objectives": ["params"]})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1, 2", "not valid JSON or YAML"),
        ("- 1", "must be a mapping of keys to values"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_files_that_hold_no_configuration(tmp_path: Path, content: str | bytes, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=told):
        load_config(str(path))


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read \(No such file"):
        load_config("absent.yaml")


def test_a_name_that_would_leave_the_folder_is_refused() -> None:
    with pytest.raises(UserError, match="name: "):
        load_config("quickstart", {"name": "../x"})


def test_an_override_of_a_value_by_keys() -> None:
    with pytest.raises(UserError, match="is a value, not a section with keys"):
        load_config("quickstart", {"space.x": 1})


def test_a_setting_without_a_value() -> None:
    with pytest.raises(UserError, match="write it as key=value"):
        parse_overrides(["training.epochs"], "--set")


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 90), (90, 90), ("45s", 45), ("30m", 1800), ("1.5 h", 5400)]
)
def test_a_trial_s_time_is_written_as_people_do(written: object, seconds: float) -> None:
    assert load_config("quickstart", {"trial_timeout_s": written}).trial_timeout_s == seconds


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trial_timeout_s", "soon", "trial_timeout_s: .*number.*'soon'"),
        ("trial_timeout_s", "1.2.3h", "trial_timeout_s: .*'1.2.3h'"),
        ("trial_timeout_s", 0, "trial_timeout_s: .*greater than 0"),
        ("trial_memory_bytes", "100MB", "trial_memory_bytes: a worker needs 600 MB"),
        ("trial_memory_bytes", "much", "trial_memory_bytes: write an amount of memory.*'much'"),
    ],
)
def test_limits_of_a_trial_that_make_no_sense_are_refused(
    key: str, value: object, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_config("quickstart", {key: value})
    assert load_config("quickstart", {"trial_memory_bytes": "4GB"}).trial_memory_bytes == 4e9
