"""The names that the four packages offer to programs, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

INTERFACE = {
    "search_spaces": [
        *("MODIFIED", "ORIGINAL", "REFERENCES", "SPACES"),
        *("Architecture", "SearchSpace", "UserError"),
    ],
    "profiling": [
        *("BackendRow", "Latency", "LatencyConfig", "LayerTable", "PairedLatency"),
        *("ProfilingError", "compare_backends", "compare_latency", "measure_latency"),
        "profile_layers",
    ],
    "nas": [
        *("OBJECTIVES", "VAE", "DataConfig", "ImageDataset", "Model", "Objective"),
        *("TrainingConfig", "build_vae", "load_model", "objective", "train"),
    ],
    "studies": [
        *("Study", "StudyConfig", "TrialRecord"),
        *("list_studies", "load_model", "open_study", "run_study"),
    ],
}
"""What must not change without a line in CHANGELOG.md."""


@pytest.mark.parametrize("package", INTERFACE)
def test_the_interface_is_this(package: str) -> None:
    module = import_module(package)
    assert module.__all__ == INTERFACE[package]
    assert list(module._HOMES) == INTERFACE[package]


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package, names in INTERFACE.items() for name in names]
)
def test_every_name_is_found_and_documented(package: str, name: str) -> None:
    module = import_module(package)
    found = getattr(module, name)
    assert getattr(import_module(module._HOMES[name]), name) is found
    assert name in dir(module)
    if callable(found):
        assert found.__doc__


@pytest.mark.parametrize("package", INTERFACE)
def test_other_names_are_none(package: str) -> None:
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'absent'"):
        _ = import_module(package).absent


def test_importing_the_packages_imports_nothing_heavy() -> None:
    code = (
        "import sys, search_spaces, profiling, nas, studies\n"
        "heavy = {'torch', 'optuna', 'pandas', 'plotly', 'pydantic', 'numpy', 'rich', 'yaml'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
