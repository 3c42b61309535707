"""The GPU benchmark: its sections on a CPU, in small, its time limit and its page."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_sections import BESIDE, FULL, SECTIONS, SMALL, Setting, references, training


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))


def test_every_section_has_a_title_and_a_share_of_the_time() -> None:
    assert list(SECTIONS) == [*gpu.TITLES, BESIDE]
    assert gpu.SHARES.keys() == gpu.TITLES.keys()
    assert max(gpu.SHARES.values()) < 0.5


@pytest.mark.slow
def test_a_section_that_fails_costs_one_line(tmp_path: Path) -> None:
    found = gpu.section("unheard-of", "cpu", tmp_path, True, 600.0)
    assert (found["failure"], found["rows"]) == ("KeyError: 'unheard-of'", [])
    assert "Traceback" in (tmp_path / "unheard-of.log").read_text()


@pytest.mark.slow
def test_a_section_that_does_not_end_is_stopped_with_its_rows(tmp_path: Path) -> None:
    found = gpu.section(BESIDE, "cpu", tmp_path, True, 3.0)
    assert found["failure"] == "stopped after 3 s; the rows so far are kept"
    late = gpu.section("environment", "cpu", tmp_path, True, 0.0)
    assert late == {"seconds": 0.0, "failure": "not begun: the time was used up", "rows": []}


def test_an_unknown_device_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert gpu.main(["--device", "tpu", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith("device: 'tpu' is not one of 'auto', 'cpu'")
    assert not out.exists()


def test_times_stand_beside_those_of_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> None: ...

    monkeypatch.setattr("benchmarks.gpu_sections.measure_pair", measured)
    monkeypatch.setattr("benchmarks.gpu_sections._latency", lambda pair: {})
    rows = list(references(Setting(torch.device("cpu"), tmp_path, FULL)))
    assert [(one["model"], one["batch"], one["t4_ms"]) for one in rows] == [
        ("original", 1, 1.77), ("modified", 1, 10.32),
        ("original", 32, 26.30), ("modified", 32, 131.22),
    ]  # fmt: skip
    assert rows[1]["t4_over_original"] == pytest.approx(10.32 / 1.77)
    assert rows[3]["t4_over_original"] == pytest.approx(131.22 / 26.30)
    small = list(references(Setting(torch.device("cpu"), tmp_path, SMALL)))
    assert small == [{"model": "original", "batch": 1}, {"model": "original", "batch": 2}]


def test_trainings_cover_precisions_and_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class NoTraining:
        def __init__(self, _architecture: object, _dataset: object, config: Any, _: object) -> None:
            made.append((config.precision, config.channels_last))

        def epochs(self) -> list[Any]:
            return []

    monkeypatch.setattr("benchmarks.gpu_sections.Trainer", NoTraining)
    monkeypatch.setattr("benchmarks.gpu_sections.has_bfloat16", lambda device: True)
    assert list(training(Setting(torch.device("cpu"), tmp_path, SMALL))) == []
    assert made == [
        ("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True)
    ]  # fmt: skip


def test_the_page_has_a_table_for_each_section() -> None:
    found: dict[str, gpu.Row] = {
        "environment": {"seconds": 1.0, "failure": None, "rows": [{"device_name": "H|1"}]},
        "lane": {"seconds": 2.0, "failure": "no\nlane", "rows": []},
        "training": {
            "seconds": 3.0,
            "failure": None,
            "rows": [{"model": "original", "loss": 0.123456}, {"model": "modified", "kl": None}],
        },
    }
    text = gpu.page("H|1", found, 90.0)
    assert text.startswith("# H|1\n\n`python -m benchmarks.gpu`, 1.5 minutes.\n")
    assert "| device_name | H\\|1 |" in text
    assert "Failed: no lane" in text
    assert "| model | loss | kl |\n| --- | --- | --- |\n| original | 0.1235 | - |\n" in text


def forked(command: Sequence[str], log: Any, limit_s: float) -> str | None:
    """Run a section as `gpu._ended` does, in a process that needs no imports."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run, args=(command[3:], log.name))
    process.start()
    process.join(limit_s)
    process.kill()
    return None if process.exitcode == 0 else Path(log.name).read_text()


def _run(arguments: Sequence[str], log: str) -> None:
    with Path(log).open("w") as sys.stdout:
        sys.stderr = sys.stdout
        sys.exit(gpu.main(arguments))


@pytest.mark.slow
def test_all_sections_run_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_ended", forked)
    out = tmp_path / "out"
    assert gpu.main(["--device", "cpu", "--small", "--minutes", "60", "--out", str(out)]) == 0
    found = json.loads((out / "gpu.json").read_text())
    sections = found["sections"]
    assert {name: one["failure"] for name, one in sections.items()} == dict.fromkeys(gpu.TITLES)
    assert found["device"] == found["environment"]["cpu_model"]
    assert [one["batch"] for one in sections["references"]["rows"]] == [1, 2]
    assert {one["precision"] for one in sections["training"]["rows"]} >= {"float32"}
    reasons = {one["backend"]: one["reason"] for one in sections["backends"]["rows"]}
    assert reasons["cuda_graph"] == "finds no CUDA device"
    assert reasons["channels_last"] is None
    assert [one["step"] for one in sections["traces"]["rows"]] == ["inference", "training"]
    assert all((out / one["page"]).is_file() for one in sections["traces"]["rows"])
    lanes = {one["beside"]: one for one in sections["lane"]["rows"]}
    assert lanes.keys() == {"nothing", "a training", "a training, no lane"}
    trials = [one["trial"] for one in sections["study"]["rows"]]
    assert trials == ["original", "modified", "#2", "#3", "#4"]
    text = (out / "gpu.md").read_text()
    assert all(f"## {title}" in text for title in gpu.TITLES.values())
