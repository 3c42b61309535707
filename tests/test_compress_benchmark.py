"""The benchmark of pruning and distillation trains each model once, and resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.compress import Bench, Row, read, summary, write
from nas.training import Trainer
from search_spaces.references import ORIGINAL
from tests.fakes.dataset import noise


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    found = Bench(tmp_path, size=16, images=20, epochs=1, thread_count=1)
    vars(found)["dataset"] = noise(20, 16)
    return found


@pytest.mark.slow
def test_a_model_is_pruned_beside_its_controls_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.prune("original", 0)
    rows = read(bench.table)
    assert [(row.role, row.epochs) for row in rows] == [
        ("trained model", 1),
        ("pruned only", 0),
        ("pruned, trained further", 1),
        ("new weights, as long", 1),
        ("new weights, as long in total", 2),
    ]
    assert rows[0].params > 3 * rows[1].params
    assert {row.params for row in rows[1:]} == {rows[1].params}
    monkeypatch.setattr(Trainer, "epochs", None)
    bench.prune("original", 0)
    assert read(bench.table) == rows
    assert not list(bench.folder.rglob("*.checkpoint"))
    assert bench.architecture("original") == ORIGINAL.resized(16)


def test_the_summary_has_means_over_seeds(tmp_path: Path) -> None:
    path = tmp_path / "trainings.csv"
    assert summary(path) == f"{path}: no trainings yet"
    rows = [
        Row("prune", "136", "pruned only", seed, 3, 2, 1e3, 1e6, 0.6, loss, 0.7, 2.0)
        for seed, loss in enumerate((0.5, 0.6))
    ]
    write(path, rows)
    assert read(path) == rows
    assert summary(path).splitlines()[-1].split()[-8:] == [
        "2", "3", "0.55", "0.07071", "0.7", "1000", "1e+06", "2"
    ]  # fmt: skip
