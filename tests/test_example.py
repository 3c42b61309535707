"""The example package of docs/example passes its own tests and runs in fresh processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nas.own.imports import source_digest
from studies import open_study

EXAMPLE = Path(__file__).parents[1] / "docs" / "example"
NAS = [sys.executable, "-m", "tests.helpers.narrow", "studies.cli.main"]


def run(folder: Path, *command: str) -> str:
    """Run a command with the package on the path of imports; return what it prints."""
    places = [str(EXAMPLE), os.environ.get("PYTHONPATH", ""), str(EXAMPLE.parents[1])]
    own = {"PYTHONPATH": os.pathsep.join(places), "NAS_CACHE_DIR": str(folder / "cache")}
    environment = {**os.environ, **own, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_passes_its_tests(tmp_path: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-c", str(EXAMPLE / "pyproject.toml")]
    said = run(tmp_path, sys.executable, "-m", "pytest", *options, str(EXAMPLE / "test_parts.py"))
    assert "7 passed" in said


@pytest.mark.slow
def test_the_example_runs_with_workers_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["--threads", "1", "--epochs", "1", "--images", "20", "--set", "confirmation=null"]
    command = [*NAS, "study", "run", str(EXAMPLE / "study.yaml"), *small, "--root", str(tmp_path)]
    run(tmp_path, *command, "--trials", "1", "--workers", "2")
    said = run(tmp_path, *command, "--trials", "2")
    assert "sharpness" in said
    monkeypatch.syspath_prepend(EXAMPLE)
    record = open_study("extras", tmp_path).record
    assert len(record.complete) == 4
    assert all("vae_extras.metrics:cpu_ms" in trial.objectives for trial in record.complete)
    assert {name: part for name, (part, _) in record.own.items()} == {
        "vae_extras.metrics:convolutions": "objective",
        "vae_extras.metrics:cpu_ms": "objective",
        "vae_extras.metrics:sharpness": "objective",
        "vae_extras.losses:charbonnier": "loss",
        "vae_extras.recipes:momentum": "recipe",
        "vae_extras.data:stripes": "data set",
        "vae_extras.blocks:Residual": "block",
    }
    assert all(source == source_digest(name) for name, (_, source) in record.own.items())
    assert record.front == tuple(
        sorted(record.front, key=lambda trial: -trial.objectives["vae_extras.metrics:sharpness"])
    )


def test_the_example_s_files_are_named_by_its_project() -> None:
    text = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    (packages,) = re.findall(r"^packages = \[(.*)\]$", text, flags=re.M)
    assert packages == '"vae_extras"'
