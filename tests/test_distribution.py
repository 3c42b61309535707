"""The source distribution holds every tracked file, and the wheel the packages alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "profiling", "search_spaces", "studies")
MADE = {"PKG-INFO", "setup.cfg"}
CODE = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"


def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("is not in a repository")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.mark.slow
def test_distributions_hold_what_they_must(tmp_path: Path) -> None:
    files = tracked()
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    left = tmp_path / "studies/results/left"
    for name in ("report.html", "lock", "confirmed/1/weights.safetensors"):  # as a study leaves it
        (left / name).parent.mkdir(parents=True, exist_ok=True)
        (left / name).touch()
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (source,), (wheel,) = (list((tmp_path / "dist").glob(end)) for end in ("*.tar.gz", "*.whl"))
    with tarfile.open(source) as tar:
        inside = {one.name.partition("/")[2] for one in tar if one.isfile()}
    made = {name for name in inside if name in MADE or name.startswith("vae_nas.egg-info/")}
    assert inside - made == files
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    code = {name for name in files if name.startswith(tuple(f"{one}/" for one in PACKAGES))}
    assert installed == {name for name in code if not name.startswith("studies/results/")}
    assert "Description-Content-Type: text/markdown" in text
    assert "# vae-nas" in text
