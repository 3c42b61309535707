"""Files for contributors, forges and editors agree with the project."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
TOP = ("nas", "profiling", "search_spaces", "studies")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def commands(workflow: str) -> list[str]:
    """Return what the steps of a workflow run."""
    jobs = yaml.safe_load(workflow)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_the_workflow_runs_the_gate_and_nothing_else() -> None:
    assert commands(read(".github/workflows/ci.yml")) == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_workflow_and_the_classifiers_name_every_python() -> None:
    matrix = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["gate"]["strategy"]["matrix"]
    oldest, above = re.findall(r"3\.(\d+)", project()["project"]["requires-python"])
    versions = [f"3.{minor}" for minor in range(int(oldest), int(above))]
    assert matrix["python"] == versions
    named = [one.rpartition(" :: ")[2] for one in project()["project"]["classifiers"]]
    assert [one for one in named if re.fullmatch(r"3\.\d+", one)] == versions


def test_all_is_every_extra_of_a_user() -> None:
    extras = set(project()["project"]["optional-dependencies"])
    (everything,) = dependencies("all")
    named = set(re.findall(r"[\w-]+", everything.partition("[")[2]))
    within = {"onnx", "backends"}  # `deploy` includes them
    assert named | within == extras - {"all", "dev", "docs", "peers"}


def test_what_runs_before_a_commit_is_installed_with_the_tests() -> None:
    (local,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert local["repo"] == "local"
    extra = {re.split(r"[>=\[]", one)[0] for one in dependencies("dev")}
    assert {hook["entry"].split()[0] for hook in local["hooks"]} <= extra


def dependencies(extra: str) -> list[str]:
    found: list[str] = project()["project"]["optional-dependencies"][extra]
    return found


def test_the_tests_install_what_a_test_of_postgresql_needs() -> None:
    assert "vae-nas[postgres]" in dependencies("dev")
    assert any(one.startswith("psycopg") for one in dependencies("postgres"))


def test_the_citation_is_of_this_version() -> None:
    cited, ours = yaml.safe_load(read("CITATION.cff")), project()["project"]
    assert cited["cff-version"] == "1.2.0"
    assert (cited["version"], cited["license"]) == (ours["version"], ours["license"])
    (paper,) = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Singhal",
        "Prasad",
        "Khatod",
    ]


def test_the_contributing_page_names_every_marker() -> None:
    markers = {
        one.partition(":")[0] for one in project()["tool"]["pytest"]["ini_options"]["markers"]
    }
    assert set(re.findall(r"^\| `(\w+)` \|", read("CONTRIBUTING.md"), flags=re.M)) == markers


def test_tests_and_options_that_contributors_are_shown_exist() -> None:
    shown = re.findall(
        r"^pytest .*?(tests/\w+\.py)(?:::(\w+))?", read("CONTRIBUTING.md"), flags=re.M
    )
    assert shown
    for path, test in shown:
        assert f"def {test}" in read(path)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_to_files(name: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", read(name))
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_editor_keeps_lines_as_long_as_the_linter() -> None:
    section = read(".editorconfig").partition("[*.py]")[2].partition("[")[0]
    assert f"max_line_length = {project()['tool']['ruff']['line-length']}" in section


def test_the_packages_are_those_with_code_and_no_study_beside_them(tmp_path: Path) -> None:
    (tmp_path / "nas-studies/quickstart").mkdir(parents=True)
    (tmp_path / "nas-studies/plot.py").touch()
    wanted = project()["tool"]["setuptools"]["packages"]["find"]
    assert wanted.pop("namespaces") is False
    assert find_packages(str(tmp_path), **wanted) == []
    tracked = {path.parent for name in TOP for path in (ROOT / name).rglob("__init__.py")}
    expected = {".".join(path.relative_to(ROOT).parts) for path in tracked}
    assert set(find_packages(str(ROOT), **wanted)) == expected
