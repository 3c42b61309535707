"""Untrusted input: names, markup, files with code in them."""

from __future__ import annotations

import io
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.checkpoint import read_tensors
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from studies.record.records import TrialRecord
from studies.report.report import write_report
from studies.store.store import StudyStore
from tests.fakes.study import fake_study
from tests.helpers.command import nas

EVIL = "<script>alert('x')</script>"
NAMES = [
    "../x",
    "/etc",
    "a/b",
    "..",
    ".",
    "",
    "-x",
    "x\0y",
    "x\n",
    "n" * 300,
    EVIL,
    "a b",
    "x\x1b[31m",
    "x ",
    " x",
    "\u0661",
    "~",
]


NAMED = [
    ["study", "run", "quickstart", "--name={}"],
    ["study", "show", "--", "{}"],
    ["study", "report", "--", "{}"],
    ["study", "export", "--", "{}"],
    ["study", "effects", "--", "{}"],
    ["study", "best", "--", "{}"],
    ["study", "confirm", "--", "{}"],
    ["study", "run", "quickstart", "--set", "search.sampler=pareto", "--warm-start={}"],
    ["paper", "--estimate", "--name={}"],
    ["profile", "model", "--", "{}#0"],
    ["bench", "study", "--name={}"],
]
"""Commands that turn a name into a path."""


@pytest.mark.parametrize("command", NAMED, ids=lambda command: " ".join(command[:2]))
def test_a_name_that_is_none_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    at = command.index("--") if "--" in command else len(command)
    placed = [*command[:at], "--root", str(tmp_path / "studies"), *command[at:]]
    for name in NAMES:
        assert nas(*(part.replace("{}", name) for part in placed)) == 2
        printed = capsys.readouterr().err.strip()
        assert len(printed.splitlines()) == 1
        assert re.search("begin with a letter or digit|is empty|cannot be printed", printed)
        assert "\x1b" not in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("digest", ["../../x", "/etc/passwd", "", "0" * 11, "0" * 12 + "\n"])
def test_a_digest_from_the_storage_never_becomes_another_path(digest: str) -> None:
    with pytest.raises(UserError, match="is not a digest of an architecture"):
        TrialRecord(0, "complete", digest, ORIGINAL)


def test_all_input_of_a_study_is_text_in_its_report(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    config = {**study.config, "space": EVIL, "description": EVIL}
    config["data"] = {"kind": "folder", "path": f"/pictures/{EVIL}", "count": 1}
    environment = {key: EVIL if isinstance(v, str) else v for key, v in study.environment.items()}
    trials = tuple(
        replace(t, reason=f"{EVIL} `{EVIL}`", assignment={"block": EVIL}) for t in study.trials
    )
    study = replace(
        study, name=EVIL, config=config, environment=environment, trials=trials, mixed=(EVIL,)
    )
    page = write_report(study).read_text()
    assert "alert(" in page  # it is shown
    assert "<script>alert" not in page


class _Mark:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.usefixtures("untrained_counts", "narrow_references")
def test_code_in_artefacts_is_never_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    mark, root = tmp_path / "mark", tmp_path / "studies"
    small = ["--space", "tiny", "--trials", "0", "--epochs", "1", "--images", "30", "--name", "s"]
    small += ["--objectives", "reconstruction_loss,params", "--workers", "1", "--root", str(root)]
    small += ["--threads", "1"]
    assert nas("study", "run", "quickstart", *small) == 0
    code = pickle.dumps(_Mark(mark))
    array = io.BytesIO()
    np.save(array, np.array([_Mark(mark)], dtype=object), allow_pickle=True)
    pickle.loads(code)
    assert mark.exists()  # it would leave its mark
    mark.unlink()
    for path in (root / "s" / "artefacts").rglob("*"):
        if path.is_file():
            path.write_bytes(array.getvalue() if path.suffix == ".npy" else code)
    for trial in StudyStore.open(root, "s").record().trials:
        folder = root / "s" / "artefacts" / trial.digest
        (folder / "checkpoint.safetensors").write_bytes(code)
        for name in ("checkpoint.safetensors", "weights.safetensors"):
            with pytest.raises(UserError, match="cannot be read"):
                read_tensors(folder / name)
    capsys.readouterr()
    assert nas("study", "report", "s", "--root", str(root)) == 0
    assert nas("study", "best", "s", "--root", str(root), "--out", str(tmp_path / "best")) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert "weights.safetensors: cannot be read" in printed[0]
    assert nas("study", "run", "quickstart", *small[:3], "1", *small[4:]) == 0
    assert not mark.exists()
