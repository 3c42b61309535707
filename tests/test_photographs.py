"""The agreement of trainings on rendered faces and on photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.photographs import losses, orders
from benchmarks.vae_table.protocol import TableProtocol


def trained(folder: Path, found: dict[str, list[float]]) -> Path:
    (folder / "training").mkdir(parents=True)
    for digest, curve in found.items():
        epochs = [{"reconstruction": value, "total": 1 - value} for value in curve]
        record = {"digest": digest, "epochs": epochs}
        (folder / "training" / f"{digest}.json").write_text(json.dumps(record))
    return folder


def test_orders_are_those_of_the_last_epoch_of_members_that_all_have(tmp_path: Path) -> None:
    faces = {"a": [9.0, 0.1], "b": [8.0, 0.2], "c": [7.0, 0.3], "failed": []}
    photos = {"a": [1.0, 0.5], "b": [2.0, 0.9], "c": [3.0, 0.7], "other": [0.1]}
    folders = {"f": trained(tmp_path / "f", faces), "p": trained(tmp_path / "p", photos)}
    table = losses(folders, "reconstruction")
    assert table.to_dict() == {
        "f": {"a": 0.1, "b": 0.2, "c": 0.3},
        "p": {"a": 0.5, "b": 0.9, "c": 0.7},
    }
    first, second = orders(folders)
    assert (first["loss"], second["loss"]) == ("reconstruction_loss", "total_loss")
    assert first["members"] == 3
    assert first["tau"] == pytest.approx(1 / 3, abs=1e-3)  # two of three pairs agree


def test_photographs_are_as_many_as_the_faces(tmp_path: Path) -> None:
    protocol = TableProtocol().on_photographs(tmp_path)
    assert (protocol.data.kind, protocol.data.path) == ("folder", tmp_path)
    assert protocol.data.count == TableProtocol().data.count
    assert protocol.training == TableProtocol().training
