"""What a compression says, from made-up records, and which records are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.floors import Floor, Floors, PartFloors
from nas.objectives import OBJECTIVES
from search_spaces.errors import UserError
from studies.compress.distillation import LONGEST, longer_epochs
from studies.compress.folder import StageFolder
from studies.record.compressed import (
    FOLDER,
    KINDS,
    RECORD,
    Costs,
    Stage,
    read_stage,
    read_stages,
)
from studies.record.compressed_words import stage_words
from studies.record.records import StudyRecord
from studies.report.compression import write_compression_page
from studies.report.report import write_report
from tests.fakes.stages import stage, training
from tests.fakes.study import fake_study
from tests.helpers.page import Page


def written(study: Path, one: Stage) -> Path:
    """Write the record of a stage, and return its path."""
    folder = StageFolder(study, one)
    folder.begin(one.source, one.costs, *one.trainings[:1])
    for further in one.trainings[1:]:
        folder.add(further)
    return folder.path / RECORD


@pytest.fixture
def study(tmp_path: Path) -> StudyRecord:
    return fake_study(tmp_path / "faces-64", found=6)


def sentences(study: StudyRecord, one: Stage) -> list[str]:
    return [verdict.text for verdict in stage_words(study, one).verdicts]


# Whether it pays

CLOSE = [0.500, 0.501, 0.502]


@pytest.mark.parametrize(
    ("ours", "theirs", "begins", "contains"),
    [
        (CLOSE, [0.60, 0.601, 0.602], "Pruning pays: the pruned model has 17 % lower", "than the"),
        ([0.60, 0.601, 0.602], CLOSE, "Pruning does not pay: the pruned model has 20 % higher", ""),
        ([0.4, 0.5, 0.6], [0.5, 0.6, 0.7], "A tie: the pruned model has 17 % lower", "6 trainings"),
        ([0.5], [0.6], "With one training each, the pruned model has 17 %", "may be seed noise"),
        ([0.5], [0.5], "Pruning makes no difference to the control", ""),
    ],
)
def test_a_result_is_compared_with_its_control(
    study: StudyRecord, ours: list[float], theirs: list[float], begins: str, contains: str
) -> None:
    said = sentences(study, stage({"pruned": ours, "scratch": theirs}))
    assert said[0] == "It is faster: it takes 0.75x [0.74, 0.76] of the time of the trained model."
    assert said[1].startswith(begins)
    assert contains in said[1]
    assert "from new weights, as many epochs in total" in said[1]
    assert len(said) == 2


def test_a_student_is_compared_with_both_controls(study: StudyRecord) -> None:
    losses = {"distilled": CLOSE, "control": [0.52, 0.521, 0.522], "longer": [0.4, 0.401, 0.402]}
    words = stage_words(study, stage(losses, "distil", costs=Costs()))
    assert [verdict.pays for verdict in words.verdicts] == [True, False]
    assert words.verdicts[0].text.startswith("Distillation pays: the student has 3.8 % lower")
    assert words.verdicts[1].text.startswith("Distillation does not pay: the student has 25 %")


@pytest.mark.parametrize(
    ("over", "contended", "said"),
    [
        ((0.98, 0.95, 1.01), False, "It is not measurably faster: it takes 0.98x [0.95, 1.01] of"),
        ((1.2, 1.1, 1.3), False, "It is slower: it takes 1.20x [1.10, 1.30] of the time"),
        ((0.5, 0.4, 0.6), True, "It is faster: it takes 0.50x [0.40, 0.60] of the time of the "
         "trained model, measured on a busy machine."),
    ],
)  # fmt: skip
def test_the_time_is_compared_with_that_of_the_trained_model(
    study: StudyRecord, over: tuple[float, float, float], contended: bool, said: str
) -> None:
    costs = Costs(over_source={"latency_ms": over}, contended=contended)
    assert sentences(study, stage({"pruned": CLOSE}, costs=costs))[0].startswith(said)


def test_a_result_that_has_not_learned_is_named(study: StudyRecord) -> None:
    floor = Floor(reconstruction=0.5005, ssim=0.6, l1=0.2, psnr_db=14.0, ms_ssim=0.6)
    part = PartFloors(floor, {})
    floors = Floors(fitted_on=20, validation=part, test=part, absent={})
    with_floor = replace(study, floors=floors)
    said = sentences(with_floor, stage({"pruned": CLOSE}))
    assert said[-1].startswith(
        "It has not learned: its reconstruction loss, 0.5010, is not below that of the mean "
        "training image, 0.5005."
    )
    assert len(sentences(with_floor, stage({"pruned": [0.5, 0.499]}))) == 1


def test_the_table_has_every_objective_of_every_role(study: StudyRecord) -> None:
    losses = {"source": [0.45], "pruned": [0.5, 0.52], "scratch": [0.6, 0.63]}
    words = stage_words(study, stage(losses))
    assert words.heads == (
        "Trainings", "Epochs", "Reconstruction loss, validation", "Reconstruction loss, test",
        "Parameters", "MACs", "Latency", "Training time",
    )  # fmt: skip
    assert [(row.name, row.is_result) for row in words.rows] == [
        ("the trained model", False),
        ("pruned, trained further", True),
        ("from new weights, as many epochs in total", False),
    ]
    found = [[cell.text for cell in row.cells] for row in words.rows]
    assert found[0] == ["1", "3", "0.4500", "0.5500", "2.00 M", "20.00 M", "4.00 ms", "6.00 s"]
    assert found[1] == ["2", "3", "0.5100", "0.6100", "1.00 M", "10.00 M", "3.00 ms", "12 s"]
    assert words.rows[1].cells[6].interval == "2.90 to 3.10"
    assert words.rows[0].cells[2].interval == ""  # one training, chosen by the search
    noise = stage(losses).noise(OBJECTIVES["reconstruction_loss"])
    assert noise is not None
    assert (noise.trainings, noise.freedom) == (4, 2)


# The time of the teachers


@pytest.mark.parametrize(
    ("distilled_s", "teachers_s", "epochs"),
    [
        (6.0, 0.0, 4),  # at least one more
        (12.0, 0.0, 6),  # the teachers' passes took as long as the student's three epochs
        (12.0, 8.0, 10),  # and their training four epochs
        (5.0, 8.0, 7),  # passes cannot take less than nothing
        (6.0, 1e9, 3 * LONGEST),
    ],
)
def test_the_longer_training_has_the_time_of_the_teachers(
    distilled_s: float, teachers_s: float, epochs: int
) -> None:
    one = stage({}, "distil", settings={"teachers_s": teachers_s})
    trainings = [
        training("control", 1, 0.5),
        training("distilled", 1, 0.5, duration_s=distilled_s),
        training("distilled", 2, 0.5, duration_s=100.0),  # later seeds change nothing
        training("control", 2, 0.5, duration_s=1.0),
    ]
    assert longer_epochs(one.model_copy(update={"trainings": tuple(trainings)}), 3) == epochs


# Records


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    one = stage({"source": [0.4], "pruned": CLOSE, "scratch": [0.6]})
    path = written(tmp_path, one)
    assert read_stage(path) == one
    assert read_stages(tmp_path) == ([one], [])
    assert path.parent.parent.name == FOLDER


def test_stages_stand_after_those_that_they_continue(tmp_path: Path) -> None:
    first = stage({"pruned": CLOSE})
    second = stage({"distilled": CLOSE}, "distil", after=first.name)
    alone = stage({"distilled": CLOSE}, "distil", settings={"teachers_s": 1.0})
    other = stage({"pruned": CLOSE}, trial=3, settings={"of": 3})
    unfinished = stage({"source": [0.4]}, settings={"of": 4})
    for one in (alone, second, other, first, unfinished):
        written(tmp_path, one)
    assert read_stages(tmp_path) == ([other, first, second, alone], [])


def test_stages_in_a_circle_are_read(tmp_path: Path) -> None:
    first = stage({"pruned": CLOSE})
    second = stage({"distilled": CLOSE}, "distil", after=first.name)
    for one in (first.model_copy(update={"after": second.name}), second):
        written(tmp_path, one)
    assert len(read_stages(tmp_path)[0]) == 2


def wrong(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage({"pruned": CLOSE}).model_dump_json())
    for path, value in changes.items():
        place: Any = found
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("__"))
        for part in parents:
            place = place[part]
        place[last] = value
    return found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "melt"}, "kind: is not one of prune, distil, quantise"),
        ({"trial": -1}, "trial: "),
        ({"trial": True}, "trial: "),
        ({"trainings__0__role": "longer"}, "'longer' is not one of source, cut, pruned"),
        ({"trainings__0__validation": {"total_loss": "0.5"}}, "trainings.0.validation.total_loss"),
        ({"trainings__0__validation": {"ssim": 0.5}}, "the total loss of pruned is missing"),
        ({"trainings__0__validation__reconstruction_loss": 0}, "is not above 0"),
        ({"trainings__0__duration_s": -1}, "trainings.0.duration_s: "),
        ({"trainings__0__seed": 2**40}, "trainings.0.seed: "),
        ({"architecture__latent_size": 0}, "architecture.latent_size: "),
        ({"costs__intervals": {"latency_ms": [1]}}, "costs.intervals.latency_ms.1: "),
        ({"costs__over_source": {"latency_ms": [0, 1, 1]}}, "costs.over_source.latency_ms.0: "),
        ({"surplus": 1}, "surplus: "),
    ],
)
def test_a_damaged_record_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = written(tmp_path, stage({"pruned": CLOSE}))
    path.write_text(json.dumps(wrong(**changes)))
    with pytest.raises(UserError) as refused:
        read_stage(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: damaged (")
    assert reason in said
    assert said.endswith("remove its folder to begin the stage again")
    assert "\n" not in said


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": NaN}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, stage({"pruned": CLOSE}))
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged \("):
        read_stage(path)
    assert read_stages(tmp_path)[0] == []
    assert len(read_stages(tmp_path)[1]) == 1


def test_the_record_of_another_folder_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, stage({"pruned": CLOSE}))
    moved = path.parent.rename(path.parent.parent / "other")
    with pytest.raises(UserError, match="restore the folder's name"):
        read_stage(moved / RECORD)


def test_a_stage_of_other_settings_is_another_folder(tmp_path: Path) -> None:
    first = stage({"pruned": CLOSE})
    path = written(tmp_path, first)
    assert StageFolder(tmp_path, first).stage == first
    assert StageFolder(tmp_path, stage({}, settings={"norm": "l2"})).stage.trainings == ()
    with pytest.raises(UserError, match="is of other settings than its name says"):
        StageFolder(tmp_path, first.model_copy(update={"settings": {"norm": "l2"}}))
    assert read_stage(path) == first


def test_every_kind_has_its_roles() -> None:
    for kind in KINDS.values():
        assert {kind.result, *kind.controls} <= kind.roles.keys()


# Pages


def test_the_page_and_the_report_have_the_stages(study: StudyRecord) -> None:
    one = stage({"pruned": CLOSE, "scratch": [0.60, 0.601, 0.602]}, title="#4 <made> smaller")
    written(study.folder, one)
    damaged = written(study.folder, stage({"pruned": CLOSE}, settings={"norm": "l2"}))
    damaged.write_text("{")
    for path in (write_compression_page(study), write_report(study, plots=False)):
        page = Page(path.read_text())
        text = " ".join(" ".join(page.words).split())
        assert "#4 <made> smaller" in text
        assert "Pruning pays: the pruned model has 17 % lower reconstruction loss" in text
        assert "pruned, trained further result" in text
        assert "damaged (" in text
        assert "2.90 to 3.10" in text
    assert "After the search" in text
    assert "#after" in page.fetched


def test_a_report_without_stages_has_no_such_section(study: StudyRecord) -> None:
    page = Page(write_report(study, plots=False).read_text())
    assert "compressed" not in page.ids
    assert "After the search" not in page.words
