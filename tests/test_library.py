"""Studies from Python: one call runs a study; a study shows its trials, figures and models."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nas.findings import Findings
from search_spaces import REFERENCES, SearchSpace, UserError
from studies import Study, list_studies, load_model, open_study, run_study
from studies.config.loading import SHORTCUTS, load_config
from studies.config.study import StudyConfig
from studies.library import live
from studies.library.live import NotebookDisplay, displays
from studies.library.running import Settings, configuration
from studies.store.dashboard import Shown
from studies.terminal.console import Terminal, as_html
from tests.fakes.study import fake_study

OBJECTIVES = ["reconstruction_loss", "params"]


def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 20, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def study(root: Path, untrained_counts: None, narrow_references: None) -> Iterator[Study]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(root / "cache"))
        patch.setenv("NAS_STUDIES", str(root))
        yield run_study(
            SearchSpace.load("tiny"),
            images(),
            OBJECTIVES,
            trials=2,
            epochs=1,
            sampler="random",
            workers=1,
            threads=1,
            confirmation=None,
            progress="none",
        )


@pytest.mark.slow
def test_a_study_from_objects(study: Study, root: Path) -> None:
    assert (study.name, study.folder) == ("tiny", root / "tiny")
    assert study.record.config["space"] == "tiny"
    assert len(study.trials) == 4
    assert study.gave_up is None
    assert [one.name for one in study.objectives] == OBJECTIVES
    assert set(study.references) == set(REFERENCES)
    assert len(study.frame()) == 4
    assert {"state", "params", "axis:latent_size"} <= set(study.frame())


@pytest.mark.slow
def test_the_same_call_resumes(study: Study, root: Path) -> None:
    again = run_study(
        "tiny", images(), OBJECTIVES, trials=3, epochs=1, sampler="random", workers=1,
        threads=1, confirmation=None, progress="none",
    )  # fmt: skip
    assert [one.digest for one in again.trials[:4]] == [one.digest for one in study.trials]
    assert len(again.trials) == 5
    assert len(study.refresh().trials) == 5


@pytest.mark.slow
def test_a_stored_study_is_opened(study: Study) -> None:
    assert list_studies() == ["tiny"]
    assert open_study("tiny").record.config == study.record.config
    with pytest.raises(UserError, match=r"no study 'tinny' .*did you mean 'tiny'"):
        open_study("tinny")


@pytest.mark.slow
def test_trials_are_found_and_chosen(study: Study) -> None:
    assert study.trial("original") is study.trial(study.references["original"].number)
    small = study.best("params")
    assert small.objectives["params"] == study.frame()["params"].min()
    assert study.best("reconstruction_loss", params=small.objectives["params"]) == small
    with pytest.raises(UserError, match=r"has no trial 'orignal' .*'original'"):
        study.trial("orignal")
    with pytest.raises(UserError, match=r"^by kl_: the study did not record it"):
        study.best("kl_")
    with pytest.raises(UserError, match="within these limits; the nearest"):
        study.best(params=1)


@pytest.mark.slow
def test_models_are_loaded(study: Study, root: Path) -> None:
    model = study.load("original")
    assert model.architecture == study.references["original"].architecture
    assert np.array_equal(model.encode(images()), load_model("tiny#original").encode(images()))
    folder = study.folder / "artefacts" / study.trials[0].digest
    assert load_model(folder).architecture == study.trials[0].architecture
    assert load_model("tiny#2", root=root).architecture == study.load(2).architecture
    with pytest.raises(UserError, match=r"no 'orignal' \(did you mean 'original'\?\)"):
        load_model("tiny#orignal")
    with pytest.raises(UserError, match=r"tiny#99: study 'tiny' has trials 0 to \d"):
        load_model("tiny#99")


@pytest.mark.slow
def test_figures_have_tooltips(study: Study) -> None:
    figure = study.plot()
    assert figure.layout.xaxis.title.text == "Parameters"
    assert study.plot(x="reconstruction_loss", y="params").layout.yaxis.title.text == "Parameters"
    named = [trace for trace in figure.data if trace.meta]
    assert named
    assert all("parameters" in text.lower() for trace in named for text in trace.hovertext)
    assert "reconstruction_loss-over-params" in study.plots()
    with pytest.raises(UserError, match=r"plot: 'parms' is not one of .*'params'"):
        study.plot(x="parms")


@pytest.mark.slow
def test_what_is_shown_is_short(study: Study) -> None:
    assert len(repr(study)) < 200
    assert all(len(repr(trial)) < 200 for trial in study.trials)
    assert len(repr(study.record)) < 200
    assert "<table>" in study._repr_html_()
    assert "original" in study._repr_html_()
    assert "complete" in study.trials[0]._repr_html_()


def test_a_large_study_shows_part_of_its_front(tmp_path: Path, untrained_counts: None) -> None:
    record = fake_study(tmp_path, found=400)
    study = object.__new__(Study)
    study.record = record
    shown = study._repr_html_()
    assert len(re.findall("<tr>", shown)) == 23
    assert f"and {len(record.front) - 20 - _references(study)} more" in shown
    assert len(shown) < 10_000


def _references(study: Study) -> int:
    return sum(trial.reference is not None for trial in study.front)


@pytest.mark.slow
def test_the_dashboard_names_references_and_shows_pictures(study: Study) -> None:
    storage = study._store.study._storage
    stored = storage.get_study_system_attrs(study._store.study._study_id)
    assert "Trial 0 is the reference model `original`." in stored["dashboard:note_str:0"]
    assert stored["dashboard:0:note_str:0"].startswith("**original**, a reference model: 32px elu")
    assert stored["dashboard:0:note_ver"] == 1
    shown = [json.loads(one) for key, one in stored.items() if "artifacts:" in key]
    assert {"images.png", "original.png", "modified.png"} <= {one["filename"] for one in shown}
    for one in shown:
        with Image.open(study.folder / "dashboard" / one["artifact_id"]) as picture:
            assert (picture.format, picture.height) == ("PNG", 32)
    edited = Shown(0, "another text", "00", "x.png")
    storage.set_study_system_attr(study._store.study._study_id, "dashboard:0:note_ver", 2)
    study._store.show_in_dashboard([edited])
    again = storage.get_study_system_attrs(study._store.study._study_id)
    assert again["dashboard:0:note_str:0"] == stored["dashboard:0:note_str:0"]
    assert "dashboard:artifacts:0:00" in again


@pytest.mark.slow
def test_the_report_is_written_again(study: Study) -> None:
    assert study.report().stat().st_size > 100_000


# Arguments


def test_every_shortcut_and_key_is_an_argument() -> None:
    positional = {"space", "data", "objectives", "name"}
    keys = {*SHORTCUTS, "early_stopping", *StudyConfig.model_fields} - positional
    assert set(Settings.__annotations__) == keys


def test_arguments_mirror_the_configuration() -> None:
    made = configuration(
        "quickstart", {"count": 30}, OBJECTIVES, None,
        {"trials": 3, "training": {"epochs": 2, "batch_size": 8}, "epochs": 4,
         "early_stopping": True, "limits": {"params": 1e6}},
    )  # fmt: skip
    assert made.search.trials == 3
    assert (made.training.epochs, made.training.batch_size) == (4, 8)
    assert made.search.early_stopping is not None
    assert (made.data.count, made.limits["params"], made.name) == (30, 1e6, "quickstart")


def test_a_space_of_ones_own_is_part_of_the_configuration(tmp_path: Path) -> None:
    space = SearchSpace.load("tiny").with_fixed(image_size=40)
    assert configuration(space, None, OBJECTIVES, None, {}).space == "tiny@40"
    mine = SearchSpace.from_dict({**space.to_dict(), "name": "mine"})
    config = configuration(mine, None, OBJECTIVES, None, {})
    assert config.load_space() == mine
    assert (config.name, config.space_name) == ("mine", "mine")
    assert StudyConfig.model_validate(config.to_dict()).load_space() == mine
    path = tmp_path / "x.yaml"
    path.write_text(
        "space: {name: a, axes: {latent_size: [4, 8]}, fixed: {image_size: 32, encoder.depth: 1,\n"
        "  encoder.width: 8, decoder.depth: 1, decoder.width: 8, decoder.seed_width: 8}}\n"
    )
    assert load_config(str(path)).load_space().size == 2


@pytest.mark.parametrize(
    ("space", "settings", "told"),
    [
        ("tiny", {"trial": 3}, r"run_study: 'trial' is no argument \(did you mean 'trials'"),
        ("tinny", {}, "run_study: space: search space 'tinny'.*'tiny'"),
        (3, {}, "run_study: space: give the name or the file of a search space"),
        ({"name": "a", "axes": {}}, {}, "run_study: space: its description"),
        ("tiny", {"epochs": 0}, "run_study: training.epochs: .*greater than or equal to 1"),
        ("tiny", {"training": 3}, "run_study: training: 'training' is a value|run_study: training"),
    ],
)
def test_what_is_refused(space: Any, settings: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        configuration(space, None, OBJECTIVES, None, settings)


def test_an_unknown_display_is_refused() -> None:
    with pytest.raises(UserError, match="progress: 'loud' is not one of auto, terminal, notebook"):
        displays("loud", 1, 1)  # type: ignore[arg-type]


# Progress


@pytest.mark.slow
def test_a_notebook_has_one_area(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(live, "EVERY_S", 0.0)
    record, trial = study.record, study.trials[-1]
    area = NotebookDisplay(shown.append, trials=4, epochs=1)
    with area.bar("loading <images>") as bar:
        bar(3, 8)
        assert "loading &lt;images&gt;: 3 of 8" in shown[-1]
    area.note("a remark")
    with area:
        area.started(trial, record)
        area.found(trial.number, Findings("static", {"params": 1.0}))
        area.batch(1, 2)
        assert "epoch 1/1 50%" in shown[-1]
        area.warned(trial.number, "a checkpoint is damaged")
        area.ended(trial.number, record)
    text = re.sub("<[^>]*>", "", shown[-1])
    assert f"tiny  {'━' * 30}" in text
    assert "3/4 searched" in text
    assert "original" in text
    assert "a remark" in text
    assert f"#{trial.number}: a checkpoint is damaged" in text
    assert all(one.startswith("<pre") for one in shown)


def test_a_notebook_s_area_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []

    class Handle:
        def update(self, shown_now: str) -> None:
            shown.append(("replaced", shown_now))

    def display(first: str, display_id: bool) -> Handle:
        assert display_id
        shown.append(("new", first))
        return Handle()

    shell = type("ZMQInteractiveShell", (), {})
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = shell  # type: ignore[attr-defined]
    pages = types.ModuleType("IPython.display")
    pages.HTML, pages.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", pages)
    area, _ = displays("auto", 2, 1)
    area.note("hello")
    area.note("again")
    assert [kind for kind, _ in shown] == ["new", "replaced", "replaced"]
    assert "again" in shown[-1][1]


def test_rich_shows_nothing_in_a_notebook_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *what: shown.append(what))
    assert "hello" in as_html("hello", 20)
    Terminal(file=io.StringIO()).say("hello")
    assert shown == []


def test_without_ipython_a_notebook_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(UserError, match="'notebook' needs the package ipython"):
        displays("notebook", 1, 1)


@pytest.mark.slow
def test_a_script_without_a_guard_uses_worker_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from studies import run_study\n"
        "with Path('runs').open('a') as log: log.write('run\\n')\n"
        "study = run_study('tiny', {'count': 30}, ['macs', 'params', 'latency_ms'], trials=1,\n"
        "                  workers=2, root='here', confirmation=None,\n"
        "                  latency={'max_s': 0.2, 'attempts': 1, 'min_rounds': 2})\n"
        "print(len(study.trials))\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
    assert (tmp_path / "runs").read_text() == "run\n"
