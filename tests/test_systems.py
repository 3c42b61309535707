"""The packages on other systems than Linux, simulated by hiding what only Linux has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import importlib, pkgutil, sys
from tests.helpers.other_systems import MODULES, PACKAGES, hide
hide()
for package in PACKAGES:
    places = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(places, f"{package}."):
        importlib.import_module(module.name)
from studies import run_study
study = run_study(
    "tiny", objectives=["params", "macs"], trials=2, confirmation=None, root=sys.argv[1],
    progress="none",
)
print(len(study.trials), len(study.front) > 0, study.report().name)
from profiling import locks, resources
print(hasattr(locks.os, "O_NOFOLLOW"), resources.text_of(resources._ROOT / "proc/self/cgroup"))
"""


@pytest.mark.slow
def test_a_study_runs_without_what_only_linux_has(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 True report.html\nFalse \n"
