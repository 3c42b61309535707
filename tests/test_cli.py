"""The `nas` command as a user sees it: results, errors, resuming."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from nas.checkpoint import load_vae
from nas.evaluate import prior_samples
from nas.search import SAMPLERS
from nas.vae import VAE
from profiling.environment import has_bfloat16
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, REFERENCES
from studies.bench.shipped import TABLES
from studies.cli.main import GROUPS
from studies.config.loading import load_config, parse_overrides
from studies.config.presets import presets
from studies.deploy.subject import Subject
from studies.launch import check_limits
from studies.record.best import best_trial
from studies.store.finding import best_weights_of
from studies.store.store import StudyStore
from tests.helpers.command import nas

SMALL = ["--space", "tiny", "--trials", "2", "--epochs", "1", "--images", "30", "--threads", "1"]
ALONE = ["--workers", "1"]
QUICK = ["--set", "latency.max_rounds=2", "--set", "latency.attempts=1"]
QUICK += ["--set", "latency.min_rounds=2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, untrained_counts: None) -> Iterator[Path]:
    """A folder with a small real study `s`."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NAS_CACHE_DIR", str(folder / "cache"))
        assert nas("study", "run", "quickstart", "--name", "s", *SMALL, *ALONE, *QUICK) == 0
        yield folder


@pytest.fixture
def study(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    monkeypatch.setenv("NAS_CACHE_DIR", str(finished / "cache"))
    return finished


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from studies.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'optuna', 'pandas', 'plotly', 'pydantic', 'numpy', 'rich'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in GROUPS)


def test_help_names_what_the_tables_hold(capsys: pytest.CaptureFixture[str]) -> None:
    for command, names in {
        ("study", "run"): [*SAMPLERS, *presets(), f"Presets: {', '.join(presets())}."],
        ("study", "confirm"): [*REFERENCES, "none"],
        ("bench", "search"): list(TABLES),
        ("profile",): list(REFERENCES),
        ("profile", "explain"): list(REFERENCES),
        ("profile", "predict"): list(REFERENCES),
        ("export",): list(REFERENCES),
    }.items():
        assert nas(*command, "--help") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert [name for name in names if name not in said] == []
        assert "{" not in said


def test_study_commands_leave_the_choice_of_threads_open() -> None:
    code = "import sys, studies.cli.study; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_group_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in GROUPS:
        assert nas(group, "--help") == 0
        assert "Usage: nas" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_leaves_a_report_weights_and_reconstructions(study: Path) -> None:
    folder = study / "nas-studies" / "s"
    assert (folder / "report.html").stat().st_size > 100_000
    artefacts = [path for path in (folder / "artefacts").iterdir() if path.is_dir()]
    assert len(artefacts) == 4
    for path in artefacts:
        model = load_vae(path / "weights.safetensors")
        assert model.architecture.digest == path.name
        rebuilt = np.load(path / "reconstructions.npy")
        assert rebuilt.dtype == np.uint8
        samples = np.load(path / "prior_samples.npy")
        assert samples.shape == rebuilt.shape
        np.testing.assert_array_equal(samples, prior_samples(model, len(samples)))
        assert not list(path.glob("checkpoint*"))


@pytest.mark.slow
def test_a_study_records_its_floors(study: Path) -> None:
    floors = StudyStore.open(study / "nas-studies", "s").record().floors
    assert floors is not None
    assert floors.fitted_on == 21  # of 30 images
    assert list(floors.pca) == [8, 16]
    assert floors.absent == {128: "it needs 129 training images, and there are 21"}
    assert floors.mean.reconstruction > floors.pca[8].reconstruction > 0
    assert floors.on("test").mean != floors.mean


@pytest.mark.slow
def test_a_study_records_the_precision_that_auto_means_here(study: Path) -> None:
    half = has_bfloat16(torch.device("cpu"))
    training = StudyStore.open(study / "nas-studies", "s").record().config["training"]
    assert training["precision"] == ("bfloat16" if half else "float32")


@pytest.mark.slow
def test_running_again_with_another_precision_is_refused(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = has_bfloat16(torch.device("cpu"))
    monkeypatch.setattr("studies.launch.has_bfloat16", lambda device: not here)
    assert nas("study", "run", "quickstart", "--name", "s", *SMALL, *ALONE, *QUICK) == 2
    assert "training.precision" in capsys.readouterr().err


@pytest.mark.slow
def test_running_again_resumes_without_work(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = study / "nas-studies" / "s" / "journal.log"
    before = [journal.read_text().count(word) for word in ("candidate", '"floors"')]
    assert before[1] == 1
    assert nas("study", "run", "quickstart", "--name", "s", *SMALL, *ALONE, *QUICK) == 0
    after = [journal.read_text().count(word) for word in ("candidate", '"floors"')]
    assert after == before
    assert "original" in capsys.readouterr().out


@pytest.mark.slow
def test_list_and_show(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("study", "list") == 0
    assert "tiny" in capsys.readouterr().out
    assert nas("study", "show", "s") == 0
    out = capsys.readouterr().out
    assert "original" in out
    assert "modified" in out
    assert "Pareto front" in out


@pytest.mark.slow
def test_the_best_model_is_deployed(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Subject] = []

    def deployed(subject: Subject, *_: object) -> None:
        seen.append(subject)
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.deploy.folder.deploy", deployed)
    assert nas("deploy", "s", "--max-params", "1e5", "-o", str(tmp_path / "out")) == 130
    record = StudyStore.open(study / "nas-studies", "s").record()
    best = best_trial(record, None, {"params": 1e5})
    (subject,) = seen
    assert (subject.study, subject.trial) == ("s", str(best.number))
    assert subject.architecture == best.architecture
    assert subject.data_fingerprint == record.environment["data_fingerprint"]
    assert subject.values == best.objectives
    assert nas("deploy", "s", "--max-params", "1", "-o", str(tmp_path / "out")) == 2
    source = subject.source(1)
    assert len(source.calibration) == len(subject.dataset.train)


@pytest.mark.slow
def test_a_trial_is_exported_with_its_weights(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[VAE] = []

    def exported(model: VAE, *_: object) -> None:
        seen.append(model)
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.cli.export._exported", exported)
    assert nas("export", "s#2", "--onnx", str(tmp_path / "x.onnx")) == 130
    store = StudyStore.open(study / "nas-studies", "s")
    weights, _ = best_weights_of(store, store.record().trial(2))
    expected, found = load_vae(weights).state_dict(), seen[0].state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
@pytest.mark.slow
def test_export_holds_every_trial(study: Path, kind: str, tmp_path: Path) -> None:
    out = tmp_path / f"t.{kind}"
    assert nas("study", "export", "s", "--format", kind, "-o", str(out)) == 0
    table: pd.DataFrame = getattr(pd, f"read_{kind}")(out)
    assert len(table) == 4
    assert table["params"].min() > 0
    assert set(table["state"]) == {"complete"}


@pytest.mark.slow
def test_best_gives_a_model_that_works(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "best"
    limit = ["--max-params", "1e5", "--max-latency-ms", "1e6"]
    assert nas("study", "best", "s", *limit, "-o", str(out)) == 0
    model = load_vae(out / "weights.safetensors")
    assert Architecture.load(out / "architecture.json") == model.architecture
    result = json.loads((out / "result.json").read_text())
    told = result["metrics"]
    latent = f"KL {told['kl']:,.1f} nats, total loss {told['total_loss']:.4f}"
    assert latent in " ".join(capsys.readouterr().out.split())
    assert result["objectives"]["params"] == sum(p.numel() for p in model.parameters()) <= 1e5
    assert model.reconstruct(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.slow
def test_best_within_impossible_limits(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("study", "best", "s", "--max-params", "3") == 2
    assert "no model of study 's' is within these limits; the nearest," in capsys.readouterr().err


@pytest.mark.parametrize("names", [["params"], ["latency-ms"], ["latency-ms", "params", "macs"]])
@pytest.mark.slow
def test_the_limits_that_a_refusal_names_are_met_when_typed_back(
    study: Path, tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    impossible = [word for name in names for word in (f"--max-{name}", "1e-6")]
    assert nas("study", "best", "s", *impossible) == 2
    values = re.findall(r" ([0-9.]+)(?=,|$)", capsys.readouterr().err.strip().partition(" has ")[2])
    assert len(values) == len(names)
    limits = [w for n, v in zip(names, values, strict=True) for w in (f"--max-{n}", v)]
    assert nas("study", "best", "s", *limits, "-o", str(tmp_path / "best")) == 0


@pytest.mark.slow
def test_so_are_the_limits_of_a_study_that_no_candidate_meets(tmp_path: Path) -> None:
    asked = {"space": "tiny", "limits.params": 5, "limits.macs": 3, "limits.peak_memory_bytes": 1}
    config = load_config("quickstart", asked)
    with pytest.raises(UserError, match="the nearest of them has params") as refused:
        check_limits(config, config.load_space(), lambda done, total: None)
    found = re.search(r"has params (\S+), macs (\S+), peak_memory_bytes (\S+):", str(refused.value))
    assert found is not None
    pairs = zip(config.limits, found.groups(), strict=True)
    again = [f"limits.{name}={value}" for name, value in pairs]
    config = load_config("quickstart", {**asked, **parse_overrides(again, "--set")})
    check_limits(config, config.load_space(), lambda done, total: None)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["study", "best", "s", "--by", ""], "one of the arguments is empty"),
        (["study", "show", "\x1b[2J"], r"'\\x1b\[2J': an argument has characters that cannot be"),
        (["study", "show", "\udcff"], "an argument has characters that cannot be printed"),
        (["study", "list", "--root", "n" * 300 + "/x/y"], r"n\[\.\.\.\]n"),
        (["space", "show", "n" * 300 + ".yaml"], "File name too long"),
        (["space", "list", *["surplus"] * 3000], "unexpected extra arguments"),
        (["study", "run", "x" * 5000], "File name too long"),
    ],
)
def test_words_that_no_command_can_use(
    here: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = nas(*words)
    printed = capsys.readouterr().err
    assert code == 2
    assert re.search(told, printed)
    assert all(len(line) <= 520 for line in printed.splitlines())
    assert not list(here.iterdir())


@pytest.mark.slow
def test_two_workers_find_what_one_finds(study: Path) -> None:
    arguments = ["--name", "two", *SMALL, "--workers", "2", *QUICK]
    assert nas("study", "run", "quickstart", *arguments) == 0
    alone, two = (StudyStore.open(Path("nas-studies"), name).record() for name in ("s", "two"))
    for name in alone.references:
        pair = (alone.references[name], two.references[name])
        exact = [{k: v for k, v in t.objectives.items() if k != "latency_ms"} for t in pair]
        assert exact[0] == exact[1]
        assert {"latency", "waiting"} <= pair[1].findings.timings_s.keys()
        assert (Path("nas-studies/two/artefacts") / pair[1].digest / "latency.json").exists()
    assert len(two.complete) == len(alone.complete)
    assert two.measured_together


@pytest.mark.slow
def test_an_interrupted_study_says_how_to_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nas.training import Trainer

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "epochs", interrupt)
    assert nas("study", "run", "quickstart", *SMALL, *ALONE, *QUICK) == 130
    printed = " ".join(capsys.readouterr().err.split())
    assert "finished work is saved" in printed
    assert "resumes: nas" in printed


def bad_input(tmp_path: Path) -> dict[str, tuple[list[str], list[str]]]:
    empty, foreign, blocked = tmp_path / "empty", tmp_path / "foreign", tmp_path / "blocked"
    empty.mkdir()
    blocked.write_text("a file where a folder is wanted")
    foreign.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(foreign / f"{number}.png")
    for number in range(5):
        (foreign / f"broken{number}.png").write_bytes(b"not a picture")
    run = ["study", "run", "quickstart", *SMALL, *ALONE, *QUICK]
    return {
        "unknown preset": (["study", "run", "papr"], ["neither a preset", "'paper'"]),
        "misspelt command": (["study", "ru"], ["no command 'ru'", "'run'"]),
        "misspelt option": ([*run, "--trails", "3"], ["--trails", "--trials"]),
        "misspelt key": ([*run, "--set", "training.epoch=2"], ["training.epoch", "'epochs'"]),
        "misspelt value": ([*run, "--sampler", "tpee"], ["search.sampler", "'tpe'", "'tpee'"]),
        "missing folder": ([*run, "--folder", str(tmp_path / "no")], ["does not exist"]),
        "empty folder": ([*run, "--folder", str(empty)], ["0 usable images"]),
        "no CelebA": ([*run, "--celeba", str(empty)], ["img_align_celeba"]),
        "corrupt images": ([*run, "--folder", str(foreign)], ["broken0.png", "1%"]),
        "one objective": ([*run, "--objectives", "params"], ["at least two"]),
        "impossible limit": (
            [*run, "--limit", "params=5"],
            ["params 5", "the nearest of them has params"],
        ),
        "limit below zero": ([*run, "--limit", "params=-5"], ["limits.params", "-5"]),
        "read-only folder": ([*run, "--root", str(blocked / "x")], ["cannot be written", "--root"]),
        "no CUDA": ([*run, "--device", "cuda"], ["finds no CUDA device"]),
        "unknown device": ([*run, "--device", "tpu"], ["device: 'tpu' is not one of"]),
        "unknown study": (["study", "show", "nothing"], ["no study 'nothing'"]),
        "unknown space": ([*run, "--space", "tinny"], ["'tiny'"]),
        "unknown data": (["data", "preview", "facs"], ["'faces'"]),
        "unwritable preview": (["data", "preview", "-o", str(blocked / "x.png")], ["--out"]),
    }


FAULTS = (
    "unknown preset",
    "misspelt command",
    "misspelt option",
    "misspelt key",
    "misspelt value",
    "missing folder",
    "empty folder",
    "no CelebA",
    "corrupt images",
    "one objective",
    "impossible limit",
    "limit below zero",
    "read-only folder",
    "no CUDA",
    "unknown device",
    "unknown study",
    "unknown space",
    "unknown data",
    "unwritable preview",
)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[pytest.mark.slow] * (fault == "impossible limit"))
        for fault in FAULTS
    ],
)
def test_bad_input_prints_one_line_and_exits_with_code_2(
    here: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if fault == "no CUDA" and torch.cuda.is_available():
        pytest.skip("CUDA is here")
    arguments, expected = bad_input(here)[fault]
    assert nas(*arguments) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    for text in expected:
        assert text in printed
    assert not list(here.rglob("study.yaml"))


@pytest.mark.slow
def test_the_storage_of_another_space_is_refused(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas("study", "run", "quickstart", "--name", "s", "--space", "quickstart") == 2
    assert 'space was "tiny", now "quickstart"' in capsys.readouterr().err


def test_space_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("space", "list") == 0
    assert "wide" in capsys.readouterr().out
    assert nas("space", "show", "tiny") == 0
    assert "90 distinct" in capsys.readouterr().out
    assert nas("space", "sample", "paper", "-n", "3", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Architecture.from_dict(json.loads(line)).image_size for line in lines] == [144] * 3


def test_data_commands(here: Path) -> None:
    assert nas("data", "preview", "--size", "32", "--rows", "2", "--columns", "5") == 0
    with Image.open("preview.png") as sheet:
        assert sheet.width > 5 * 32
    assert nas("data", "export", "faces", "out", "--size", "32", "--count", "12") == 0
    assert len(list((here / "out" / "img_align_celeba").iterdir())) == 12


@pytest.mark.slow
def test_architectures_are_named_in_four_ways(study: Path, tmp_path: Path) -> None:
    from studies.cli.options import find_architecture

    root = study / "nas-studies"
    assert find_architecture("modified", root) == MODIFIED
    assert find_architecture("modified@64", root) == MODIFIED.resized(64)
    assert find_architecture("s#original", root).image_size == 32
    path = tmp_path / "a.json"
    path.write_text(MODIFIED.to_json())
    assert find_architecture(str(path), root) == MODIFIED
