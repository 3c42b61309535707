"""Stored studies: go on, run again, estimate, delete, rename, compare. Nothing is trained."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from nas.own.imports import imported
from search_spaces.errors import UserError
from search_spaces.space import SPACES
from studies.config.sources import find_source, stored_config
from studies.config.study import StudyConfig
from studies.library.pair import compare_studies
from studies.run.crew import Alone
from studies.run.curves import DisplayWithCurves, find_curves
from studies.run.display import Display
from studies.run.forecast import Speed, forecast
from studies.run.runner import Runner
from studies.store.administration import delete_study, rename_study
from studies.store.drivers import Driver, running_drivers
from studies.store.store import StudyStore, list_studies
from studies.terminal.console import Terminal
from tests.fakes.environment import ENVIRONMENT, MACHINE
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.parts import Parts
from tests.fakes.runs import config, run
from tests.helpers.command import nas

ASKED: dict[str, Any] = {"workers": 2, "training": {"epochs": 3}}
SHORT: dict[str, Any] = {"search": {"sampler": "random", "trials": 1}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the studies `s` and `other`; tests that change it copy it."""
    root = tmp_path_factory.mktemp("stored") / "studies"
    run(root, config(**ASKED))
    run(root, config(**ASKED, name="other", search={"sampler": "random", "trials": 4, "seed": 1}))
    return root


@pytest.fixture
def root(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAS_STUDIES", raising=False)
    return Path(shutil.copytree(stored, tmp_path / "studies"))


Started = list[tuple[StudyConfig, Path]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The configurations and folders with which studies would run, in order."""
    seen: Started = []

    def run_study(asked: StudyConfig, root: Path, display: Display, **_: object) -> None:
        seen.append((asked, root))
        with display:  # as a study that was not refused
            raise KeyboardInterrupt

    monkeypatch.setattr("studies.launch.run_study", run_study)
    return seen


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


# Going on


@pytest.mark.parametrize(
    "words",
    [
        ("s", "--root", "studies"),
        ("studies/s/study.yaml",),
        ("studies/s",),
        ("studies/s/../s/study.yaml",),
        ("studies/s/study.yaml", "--root", "studies"),
    ],
)
def test_a_stored_study_goes_on_with_its_settings(
    root: Path, started: Started, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas("study", "run", *words, "--trials", "9") == 130
    ((asked, where),) = started
    expected = config(**ASKED, search={"sampler": "random", "trials": 9})
    assert asked == expected
    assert where.resolve() == root.resolve()
    assert "going on with study s in" in capsys.readouterr().err
    before = StudyStore.open(root, "s").record()
    after = run(root, asked)
    assert after.searched == 9
    assert [t.digest for t in after.trials[: len(before.trials)]] == [
        t.digest for t in before.trials
    ]


def test_elsewhere_it_runs_again_as_a_new_study(
    root: Path, started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("studies/s/study.yaml", "again.yaml")
    for words, name, where in (
        (("studies/s/study.yaml", "--root", "new"), "s", "new"),
        (("again.yaml",), "s", "nas-studies"),
        (("s", "--root", "studies", "--name", "t"), "t", "studies"),
    ):
        assert nas("study", "run", *words) == 130
        asked, folder = started.pop()
        assert asked == config(**ASKED, name=name)
        assert folder == Path(where)
        assert f"a new study {name} in {where}, with the settings of" in capsys.readouterr().err


def test_a_moved_folder_goes_on_where_it_is(root: Path, started: Started) -> None:
    shutil.move(root, "moved")
    assert nas("study", "run", "moved/s") == 130
    assert started[0][1] == Path("moved")


def test_a_preset_keeps_the_meaning_of_its_name(
    root: Path, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    run(root, config(**ASKED, name="quickstart"))
    assert nas("study", "run", "quickstart", "--root", "studies") == 130
    asked, _ = started.pop()
    assert (asked.training.epochs, asked.search.sampler) == (4, "pareto")
    head = Path("studies/quickstart/study.yaml")
    assert f"run: nas study run {head}" in capsys.readouterr().err
    assert nas("study", "run", str(head)) == 130
    assert started[0][0] == config(**ASKED, name="quickstart")
    capsys.readouterr()
    assert nas("study", "run", "quickstart", "--root", "empty") == 130
    assert "preset" not in capsys.readouterr().err


def test_a_space_in_a_file_goes_along_with_the_study(root: Path, tmp_path: Path) -> None:
    space = tmp_path / "mine.yaml"
    shutil.copy(SPACES["tiny"], space)
    run(root, config(name="own", space=str(space)))
    space.write_text("lost")
    data = find_source("own", root).data
    asked = StudyConfig.model_validate({**data, "search": {"sampler": "random", "trials": 8}})
    assert run(root, asked).searched == 8
    assert StudyConfig.model_validate(find_source("own", root).data) == asked


def test_settings_of_earlier_versions_are_completed(root: Path) -> None:
    head = root / "s" / "study.yaml"
    text = head.read_text()
    for key in ("recipe: schedule_free", "evaluate_at: sample", "backend: eager"):
        line = f"    {key}\n"
        assert line in text
        text = text.replace(line, "")
    head.write_text(text)
    found = stored_config(head)
    assert (found["training"]["recipe"], found["latency"]["backend"]) == ("paper", "eager")


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("storage: journal:journal.log\nconfig: 3\n", "damaged .it has no configuration"),
        ("storage: journal:journal.log\nconfig: {name: s}\n", "space: missing"),
    ],
)
def test_a_damaged_head_is_refused(
    root: Path, head: str, told: str, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "s" / "study.yaml").write_text(head)
    assert nas("study", "run", "studies/s/study.yaml") == 2
    assert re.search(told, capsys.readouterr().err)
    assert not started


def test_an_unknown_name_offers_the_nearest_study(root: Path) -> None:
    with pytest.raises(UserError, match=r"a study in \S+ nor a YAML file .did you mean 'other'"):
        find_source("othr", root)


def test_a_study_whose_images_are_gone_is_refused_and_intact(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {"kind": "folder", "path": str(tmp_path / "gone")}
    run(root, config(name="faces", data=images, **SHORT))
    before = files(root)
    assert nas("study", "run", "faces", "--root", "studies", "--trials", "3") == 2
    going, refused = capsys.readouterr().err.splitlines()
    assert going == "going on with study faces in studies"
    assert refused.startswith("nas: ")
    assert f"{tmp_path / 'gone'}" in refused
    assert files(root) == before


# What would be run


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare tests the seconds in which the reference models are counted."""
    monkeypatch.setattr("studies.run.forecast.needed_memory_bytes", lambda *_: 10**9)


@pytest.mark.usefixtures("memory")
def test_a_dry_run_tells_the_rest_and_writes_nothing(
    root: Path, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    assert nas("study", "run", "s", "--root", "studies", "--trials", "10", "--dry-run") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "study s in studies, goes on trials 4 of 10, the others are done" in said
    assert "confirmation at most 22 trainings at the end" in said
    assert "epochs 3 of each training images 14 for training workers 2" in said
    assert "as measured in study s memory at most about 2.00 GB disk about" in said
    assert files(root) == before
    assert not started


@pytest.mark.usefixtures("memory")
def test_the_time_is_that_of_measured_trials(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = config(**ASKED, search={"sampler": "random", "trials": 10})
    found = forecast(asked, root)
    assert found.speeds is not None
    assert found.speeds.candidates == Speed(image_s=2.0 / 14, other_s=0.25)  # 2 s for 14 images
    assert found.trial_s == pytest.approx(6.25)  # three epochs of 2 s
    assert found.search_s == pytest.approx(4 * 6.25 / 2)
    assert found.confirmation_s == pytest.approx(22 * 6.0 / 2)
    new = config(**ASKED, name="new", data={"count": 100})
    assert forecast(new, root).speeds is None, "measured on another machine"
    monkeypatch.setattr("studies.run.forecast.fingerprint", lambda device: MACHINE)
    found = forecast(new, root)
    assert (found.record, found.trials, found.references, found.images) == (None, 6, 2, 70)
    assert found.trial_s == pytest.approx(0.25 + 3 * 70 * 2 / 14)
    assert found.search_s == pytest.approx(8 * (found.trial_s or 0) / 2)
    assert found.cached_bytes == 100 * 3 * 64 * 64
    elsewhere = config(**ASKED, name="new", space="paper@64")
    assert forecast(elsewhere, root).trial_s is None
    untrained = config(name="new", objectives=["params", "macs"])
    found = forecast(untrained, root)
    assert (found.epochs, found.disk_bytes, found.confirmations) == (0, 0, 0)


@pytest.mark.usefixtures("memory")
def test_a_dry_run_counts_the_images_that_there_are(root: Path) -> None:
    def planned(path: Path) -> tuple[int | None, bool, int | None]:
        data = {"kind": "folder", "path": path, "count": 400}
        found = forecast(config(**ASKED, name="new", data=data), root)
        return found.images, found.at_most, found.cached_bytes

    for part, count in (("train", 16), ("test", 4)):
        (root / "pictures" / part).mkdir(parents=True)
        for number in range(count):
            (root / "pictures" / part / f"{number}.png").touch()
    assert planned(root / "pictures") == (13, False, 20 * 3 * 64 * 64)
    with pytest.raises(UserError, match="4 usable images"):
        planned(root / "pictures" / "test")
    (root / "pictures.zip").touch()
    assert planned(root / "pictures.zip") == (280, True, 400 * 3 * 64 * 64)


# Deleting


def test_a_deleted_study_leaves_the_others(root: Path) -> None:
    before = files(root / "other")
    assert nas("study", "delete", "s", "--yes", "--root", "studies") == 0
    assert sorted(path.name for path in root.iterdir()) == ["other"]
    assert files(root / "other") == before


def test_deleting_asks(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    for answer in ("n\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert nas("study", "delete", "s", "--root", "studies") == 2
        assert "study 's': not confirmed, nothing was deleted" in capsys.readouterr().err
    assert files(root) == before
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert nas("study", "delete", "s", "--root", "studies") == 0
    assert list_studies(root) == ["other"]


@pytest.mark.parametrize("change", [delete_study, lambda root, name: rename_study(root, name, "t")])
def test_a_running_study_is_neither_deleted_nor_renamed(
    root: Path, change: Callable[[Path, str], None]
) -> None:
    before = files(root)
    with StudyStore(root / "s").writing(), pytest.raises(UserError, match="being run by process"):
        change(root, "s")
    assert {k: v for k, v in files(root).items() if not k.endswith(".driver")} == {
        k: v for k, v in before.items() if not k.endswith(".driver")
    }
    change(root, "s")
    assert "s" not in list_studies(root)


@pytest.mark.slow
def test_only_the_entry_of_the_study_leaves_a_storage_outside(root: Path, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/both.db"
    for name in ("one", "two"):
        run(root, config(name=name, **SHORT), storage=address)
    rename_study(root, "two", "three")
    delete_study(root, "one")
    record = StudyStore.open(root, "three").record()
    assert (record.name, record.searched) == ("three", 1)
    assert not (root / "one").exists()
    assert record.config["name"] == "three"
    with pytest.raises(UserError, match="contains no study 'one'"):
        StudyStore(root / "one", address).record()


@pytest.mark.slow
def test_a_study_that_cannot_be_deleted_is_put_back(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, config(name="one", **SHORT), storage=f"sqlite:///{tmp_path}/both.db")
    before = files(root / "one")

    def fails(**_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("studies.store.administration.optuna.delete_study", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        delete_study(root, "one")
    assert files(root / "one") == before
    assert StudyStore.open(root, "one").record().searched == 1


def test_a_journal_that_others_use_stays(root: Path) -> None:
    run(root, config(name="guest", **SHORT), storage=f"journal:{root}/s/journal.log")
    before = files(root)
    for change in (delete_study, lambda root, name: rename_study(root, name, "t")):
        with pytest.raises(UserError, match=r"holds other studies too \(guest\)"):
            change(root, "s")
    assert files(root) == before
    delete_study(root, "guest")
    with pytest.raises(UserError, match="has had a study 'guest' before; give another name"):
        rename_study(root, "s", "guest")
    delete_study(root, "s")
    assert list_studies(root) == ["other"]


def test_a_link_to_a_study_is_not_deleted(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "s", tmp_path / "s")
    (root / "s").symlink_to(tmp_path / "s")
    before = files(tmp_path / "s")
    with pytest.raises(UserError, match="is a link to"):
        delete_study(root, "s")
    assert files(tmp_path / "s") == before


def test_a_study_whose_storage_is_lost_can_be_deleted(root: Path) -> None:
    (root / "s" / "journal.log").unlink()
    with pytest.raises(UserError, match="contains no study 's', which could be renamed"):
        rename_study(root, "s", "t")
    delete_study(root, "s")
    assert list_studies(root) == ["other"]


# Renaming


def test_a_renamed_study_is_the_same_study(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root, config(**ASKED))  # each run adds a line with the name
    before, journal = StudyStore.open(root, "s").record(), (root / "s/journal.log").read_bytes()
    assert journal.count(b'"study_name":"s"') == 2
    assert nas("study", "rename", "s", "t", "--root", "studies") == 0
    assert capsys.readouterr().out == "s: is now t\n"
    after = StudyStore.open(root, "t").record()
    assert (after.name, after.trials) == ("t", before.trials)
    assert after.config == {**before.config, "name": "t"}
    assert find_source("t", root).data["name"] == "t"
    renamed = (root / "t/journal.log").read_bytes()
    assert renamed.replace(b'"study_name":"t"', b'"study_name":"s"').startswith(journal)
    assert list_studies(root) == ["other", "t"]
    grown = config(**ASKED, name="t", search={"sampler": "random", "trials": 8})
    assert run(root, grown).searched == 8


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ("other", "exists already"),
        ("../x", "cannot name a study"),
        ("a b", "cannot name a study"),
    ],
)
def test_names_that_a_study_cannot_get(root: Path, new: str, told: str) -> None:
    before = files(root)
    with pytest.raises(UserError, match=told):
        rename_study(root, "s", new)
    assert files(root) == before


def test_a_study_that_cannot_be_moved_keeps_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(root)

    def refused(*_: object) -> None:
        raise UserError("cannot be moved")

    monkeypatch.setattr("studies.store.administration._move", refused)
    with pytest.raises(UserError, match="cannot be moved"):
        rename_study(root, "s", "t")
    assert files(root) == before


# Drivers on a database


@pytest.fixture
def shared_study() -> tuple[InMemoryStorage, int]:
    storage = InMemoryStorage()
    return storage, storage.create_new_study([StudyDirection.MINIMIZE], "s")


def test_a_driver_runs_while_its_counter_changes(
    shared_study: tuple[InMemoryStorage, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, study_id = shared_study

    def write(beat: int, **changes: Any) -> None:
        there = Driver("far", "another machine", 7, 1.0, beat)
        entry = {**asdict(there), **changes}
        storage.set_study_system_attr(study_id, "driver:x", entry)

    waits: list[float] = []
    monkeypatch.setattr("studies.store.drivers.time.sleep", waits.append)
    assert running_drivers(storage, study_id) == []
    write(3, ended=True)
    assert running_drivers(storage, study_id) == []
    assert waits == []
    write(3)
    assert running_drivers(storage, study_id) == []
    assert waits == [15.0]
    monkeypatch.setattr("studies.store.drivers.time.sleep", lambda s: write(4))
    assert [driver.host for driver in running_drivers(storage, study_id)] == ["far"]
    storage.set_study_system_attr(study_id, "driver:x", asdict(Driver.here()))
    monkeypatch.setattr("studies.store.drivers.time.sleep", waits.append)
    assert len(running_drivers(storage, study_id)) == 1, "this process runs"


# Comparing


def test_two_studies_beside_each_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("study", "compare", "s", "other", "--root", "studies", "--format", "json") == 0
    rows = {row.pop("what"): row for row in json.loads(capsys.readouterr().out)}
    assert rows["search.trials"] == {"s": "6", "other": "4"}
    assert rows["search.seed"] == {"s": "0", "other": "1"}
    assert not {"name", "training.epochs"} & rows.keys()
    first, second = (StudyStore.open(root, name).record() for name in ("s", "other"))
    best = [min(t.objectives["params"] for t in one.front) for one in (first, second)]
    assert [float(rows["best params"][name]) for name in ("s", "other")] == best
    pair = compare_studies(first, second)
    # Both have the references of equal values, so each hypervolume is that of the study alone.
    expected = [one.hypervolume(one.front) for one in (first, second)]
    assert list(pair.hypervolumes) == pytest.approx(expected)
    joint = [*pair.joint_front()[0], *pair.joint_front()[1]]
    points = [tuple(t.objectives[n] for n in first.objective_names) for t in joint]
    assert not any(a != b and all(x <= y for x, y in zip(a, b, strict=True))
                   for a in points for b in points)  # fmt: skip
    assert nas("study", "compare", "s", "other", "--root", "studies") == 0
    said = capsys.readouterr().out
    assert "on the front of both" in said
    assert f"{expected[0]:.4f}" in said


def test_what_cannot_be_compared_is_left_out_or_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = ["reconstruction_loss", "params", "macs"]
    for name, weight in (("a", 0.5), ("b", 0.7)):
        run(root, config(name=name, objectives=three, training={"l1_weight": weight}))
    words = ("study", "compare", "--root", "studies")
    assert nas(*words, "a", "b") == 0
    told = "reconstruction_loss: not compared, judged with another training.l1_weight"
    assert told in capsys.readouterr().err
    assert nas(*words, "s", "b") == 2
    said = capsys.readouterr().err
    assert "fewer than two objectives in common that can be (reconstruction_loss: judged" in said
    assert nas(*words, "s", "s") == 2
    assert "named twice" in capsys.readouterr().err


def test_losses_on_other_images_are_not_compared(root: Path) -> None:
    store = StudyStore.open(root, "other")
    environment = {**store.record().environment, "data_fingerprint": "0" * 16}
    store.study.set_user_attr("environment", environment)
    first, second = (StudyStore.open(root, name).record() for name in ("s", "other"))
    with pytest.raises(UserError, match=r"reconstruction_loss: judged on other images"):
        compare_studies(first, second)
    with suppress(UserError):
        compare_studies(second, first)


# Training curves


def test_curves_are_passed_on_epoch_by_epoch(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "seen = []\n\ndef log(run, step, values):\n    seen.append((run, step, values))\n"
        "    assert len(seen) < 6, 'no\\nmore'\n\ndef other(a):\n    pass\n"
    )
    part = Parts(tmp_path, monkeypatch, source)
    said = Terminal(file=io.StringIO(), width=200)
    display = DisplayWithCurves(said, 6, 1, find_curves(part("log"), root / "s"))
    asked = config(**ASKED, name="curves")
    space, store = asked.load_space(), StudyStore(root / "curves")
    with store.writing():
        store.create(asked, space, ENVIRONMENT)
        record = Runner(asked, space, store, Alone(FakeEvaluator()), display).run()
    seen = imported(part("seen"))
    assert [run for run, _, _ in seen] == ["original", "modified", *(
        f"trial-{number:04d}" for number in range(2, 6))]  # fmt: skip
    trial = record.trials[2]
    epoch = {name: value for name, value in trial.history[0].items() if name != "epoch"}
    assert seen[2][1:] == (1, epoch)
    assert len(record.complete) == 8, "an exception ends no study"
    assert isinstance(said.file, io.StringIO)
    assert said.file.getvalue().count("no more curves are written: AssertionError: no more") == 1
    for name, told in (("tensorbord", "use tensorboard, or an import string"),
                       (part("other"), "cannot be called with run, step, values")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            find_curves(name, root)


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = find_curves("tensorboard", tmp_path / "s")
    assert not (tmp_path / "s").exists()
    for step in (1, 2):
        log("original", step, {"train_loss": 1 / step})
    read = EventAccumulator(str(tmp_path / "s" / "curves" / "original"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("train_loss")] == [(1, 1.0), (2, 0.5)]
