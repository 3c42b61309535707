"""Attributes of the wrong type, shape or range in an otherwise valid storage."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale import Setting, grow
from search_spaces.errors import UserError
from studies.report.report import write_report
from studies.store.store import StudyStore
from tests.helpers.command import nas

WRONG: list[Any] = [
    None,
    [],
    [1, "a", None],
    "x",
    {"a": {"b": []}},
    math.inf,
    math.nan,
    10**400,
    -1,
    True,
]
TRIALS, TOTAL = 8, 11
"""Trials of the search; all trials: three are references or rejected."""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The journal of a study of made-up evaluations, one log per entry."""
    folder = tmp_path_factory.mktemp("whole")
    grow(Setting(folder, None, trials=TRIALS, epochs=2))
    text = (folder / "scale" / "journal.log").read_text()
    return [json.loads(line) for line in text.splitlines()]


Damage = Callable[[str, tuple[str | int, ...], Any], Path]


@pytest.fixture
def damage(logs: list[dict[str, Any]], tmp_path: Path) -> Damage:
    """Write the study with a wrong value at a place of the last entry of an attribute."""

    def write(attribute: str, place: tuple[str | int, ...], value: Any) -> Path:
        changed = json.loads(json.dumps(logs))
        for log in reversed(changed):
            held = log.get("user_attr", log.get("user_attrs", {}))
            if attribute in held:
                break
        for key in (attribute, *place)[:-1]:
            held = held[key]
        held[(attribute, *place)[-1]] = value
        (tmp_path / "scale").mkdir(exist_ok=True)
        text = "\n".join(map(json.dumps, changed)) + "\n"
        (tmp_path / "scale" / "journal.log").write_text(text)
        (tmp_path / "scale" / "study.yaml").write_text("storage: journal:journal.log\n")
        return tmp_path

    return write


IN_TRIALS: list[tuple[str, tuple[str | int, ...]]] = [
    ("candidate", ()),
    ("candidate", ("digest",)),
    ("candidate", ("architecture",)),
    ("candidate", ("architecture", "image_size")),
    ("candidate", ("architecture", "encoder", "stages")),
    ("candidate", ("architecture", "decoder", "stages", 0, "upsampling")),
    ("candidate", ("assignment",)),
    ("candidate", ("reference",)),
    ("candidate", ("repeats",)),
    ("findings", ()),
    ("findings", ("step",)),
    ("findings", ("objectives",)),
    ("findings", ("objectives", "params")),
    ("findings", ("metrics", "latency_over_original")),
    ("findings", ("intervals",)),
    ("findings", ("intervals", "latency_ms")),
    ("findings", ("intervals", "latency_ms", 1)),
    ("findings", ("contended",)),
    ("findings", ("history",)),
    ("findings", ("history", 0)),
    ("findings", ("history", 1, "reconstruction_loss")),
    ("findings", ("timings_s",)),
    ("reason", ()),
]
ALLOWED: dict[tuple[str | int, ...], list[Any]] = {
    ("candidate", "reference"): [None, "x"],
    ("findings", "metrics", "latency_over_original"): [],
    ("findings", "contended"): [True],
    ("findings", "history"): [[]],
    ("findings", "history", 1, "reconstruction_loss"): [-1],
    ("reason",): [None, "x"],
}
"""Some of `WRONG` are right in some places."""


@pytest.mark.parametrize(("attribute", "place"), IN_TRIALS)
def test_a_damaged_trial_is_left_out_and_named(
    damage: Damage, attribute: str, place: tuple[str | int, ...]
) -> None:
    for value in WRONG:
        if value in ALLOWED.get((attribute, *place), []):
            continue
        root = damage(attribute, place, value)
        before = (root / "scale" / "journal.log").read_bytes()
        record = StudyStore.open(root, "scale").record()
        assert len(record.trials) == TOTAL - 1, value
        (line,) = record.damaged
        assert line.startswith("trial ")
        assert "\n" not in line
        assert len(line) < 300
        assert (root / "scale" / "journal.log").read_bytes() == before


IN_STUDIES: list[tuple[str, tuple[str | int, ...]]] = [
    ("config", ()),
    ("config", ("objectives",)),
    ("config", ("objectives", 0)),
    ("config", ("limits",)),
    ("config", ("data",)),
    ("space", ()),
    ("space", ("axes",)),
    ("space_size", ()),
    ("environment", ()),
    ("environment", ("original_latency_ms",)),
]
RIGHT: dict[tuple[str | int, ...], list[Any]] = {
    ("config", "limits"): [None],
    ("config", "data"): [{"a": {"b": []}}],
    ("environment",): [{"a": {"b": []}}],
    ("environment", "original_latency_ms"): [None],
}


@pytest.mark.parametrize(("attribute", "place"), IN_STUDIES)
def test_damaged_attributes_of_a_study_are_refused_in_one_line(
    damage: Damage, attribute: str, place: tuple[str | int, ...]
) -> None:
    for value in [*WRONG, 0]:
        if value in RIGHT.get((attribute, *place), []):
            continue
        root = damage(attribute, place, value)
        with pytest.raises(UserError, match=r"study 'scale': damaged \(.*restore") as refused:
            StudyStore.open(root, "scale").record()
        assert attribute in str(refused.value)
        assert "\n" not in str(refused.value)


def test_the_message_names_study_trial_attribute_and_remedy(
    damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    root = damage("findings", ("objectives", "macs"), math.nan)
    assert nas("study", "list", "--root", str(root)) == 0
    printed = capsys.readouterr()
    assert printed.err.strip() == (
        "scale: Left out: trial 10: damaged (findings.objectives.macs: should be a finite number, "
        "found nan). Restore the storage from a copy to have this trial again."
    )
    assert "scale" in printed.out


@pytest.mark.parametrize("value", [0, -2.5, math.nan, 10**400])
def test_the_anchor_is_a_positive_number(
    damage: Damage, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    root = damage("environment", ("original_latency_ms",), value)
    for command in ("show", "export", "report", "best"):
        assert nas("study", command, "scale", "--root", str(root)) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "environment.original_latency_ms" in line
    assert nas("study", "list", "--root", str(root)) == 0


def test_show_report_and_export_have_what_is_intact(
    damage: Damage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = damage("candidate", ("architecture", "latent_size"), "x")
    assert nas("study", "show", "scale", "--root", str(root)) == 0
    assert "Left out: trial 10: damaged (candidate.architecture.latent_size" in " ".join(
        capsys.readouterr().out.split()
    )
    table = tmp_path / "t.csv"
    assert nas("study", "export", "scale", "-o", str(table), "--root", str(root)) == 0
    assert len(table.read_text().splitlines()) == TOTAL
    record = StudyStore.open(root, "scale").record()
    assert (
        "Left out: trial 10" in write_report(record, tmp_path / "r.html", plots=False).read_text()
    )


def test_a_study_with_a_damaged_trial_is_not_continued(damage: Damage) -> None:
    root = damage("findings", ("intervals", "latency_ms"), [2.0, 1.0])
    before = (root / "scale" / "journal.log").read_bytes()
    with pytest.raises(UserError, match=r"cannot continue: trial 10: damaged .*restore"):
        grow(Setting(root, None, trials=TRIALS + 2, epochs=2))
    # Optuna appends its attempt to create the study.
    assert (root / "scale" / "journal.log").read_bytes().startswith(before)
    assert len(StudyStore.open(root, "scale").record().trials) == TOTAL - 1


@pytest.mark.parametrize("over", [{}, {"original": [1.0, 1.0]}, {"original": [0, 0, 0]}, None])
def test_a_final_latency_of_the_wrong_shape_is_refused(
    damage: Damage, logs: list[dict[str, Any]], over: Any
) -> None:
    final = {"0" * 12: {"over": over, "contended": False}}
    root = damage("space_size", (), 90)
    log = {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"final_latency": final}}
    with (root / "scale" / "journal.log").open("a") as file:
        file.write(json.dumps(log) + "\n")
    with pytest.raises(UserError, match=r"final_latency\.000000000000\.over"):
        StudyStore.open(root, "scale").record()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"seed": "one"}, "seed"),
        ({"duration_s": None}, "duration_s"),
        ({"validation": {"reconstruction_loss": 0.0}}, "validation"),
        ({"test": {"reconstruction_loss": "low"}}, "test.reconstruction_loss"),
    ],
)
def test_a_damaged_further_training_is_refused(
    damage: Damage, change: dict[str, Any], place: str
) -> None:
    name = f"confirmed:{'0' * 12}:1"
    run = {"seed": 1, "validation": {"reconstruction_loss": 0.5}, "test": {}, **change}
    root = damage("space_size", (), 90)
    log = {"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {name: run}}
    with (root / "scale" / "journal.log").open("a") as file:
        file.write(json.dumps(log) + "\n")
    with pytest.raises(UserError, match=rf"confirmed\.0{{12}}:1\.{place}"):
        StudyStore.open(root, "scale").record()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An SQLite file with a study of made-up evaluations."""
    folder = tmp_path_factory.mktemp("database")
    grow(Setting(folder, f"sqlite:///{folder / 's.db'}", trials=4, epochs=1))
    return (folder / "s.db").read_bytes()


@pytest.fixture
def changed(database: bytes, tmp_path: Path) -> Callable[[str], StudyStore]:
    """Change a copy of the SQLite file by one statement; return its study."""

    def change(statement: str) -> StudyStore:
        path = tmp_path / "s.db"
        path.write_bytes(database)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()
        return StudyStore(tmp_path / "scale", f"sqlite:///{path}")

    return change


@pytest.mark.parametrize("value", ["'{no'", "''", "x'fffe'", "NULL", f"'{'[' * 100_000}'"])
def test_a_cell_of_a_trial_that_is_no_json_leaves_that_trial_out(
    changed: Callable[[str], StudyStore], value: str
) -> None:
    where = "WHERE key = 'findings' AND trial_id = 3"
    record = changed(f"UPDATE trial_user_attributes SET value_json = {value} {where}").record()
    assert record.damaged == ("trial 2: damaged (findings: not a mapping, found no JSON)",)
    assert 2 not in {trial.number for trial in record.trials}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE study_user_attributes SET value_json = '{no' WHERE key = 'config'",
        "UPDATE trials SET state = 'FOO' WHERE trial_id = 2",
        "UPDATE trials SET datetime_start = 'never' WHERE trial_id = 2",
        "UPDATE trials SET number = NULL WHERE trial_id = 2",
        "UPDATE study_directions SET direction = 'X'",
    ],
)
def test_rows_that_optuna_cannot_read_are_refused_in_one_line(
    changed: Callable[[str], StudyStore], statement: str
) -> None:
    with pytest.raises(
        UserError, match=r"study 'scale': damaged \(.*restore the storage"
    ) as refused:
        changed(statement).record()
    assert "\n" not in str(refused.value)
