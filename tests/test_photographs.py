"""The agreement of trainings on rendered faces and on photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.photographs import losses, means, orders, read
from benchmarks.vae_table.protocol import TableProtocol


def trained(folder: Path, found: dict[str, list[float]]) -> Path:
    (folder / "training").mkdir(parents=True)
    for digest, curve in found.items():
        epochs = [{"reconstruction": value, "total": 1 - value} for value in curve]
        assignment = {"latent_size": 2 if digest == "c" else 4}
        record = {"digest": digest, "epochs": epochs, "assignment": assignment}
        (folder / "training" / f"{digest}.json").write_text(json.dumps(record))
    return folder


@pytest.mark.slow
def test_orders_are_those_of_the_last_epoch_of_members_that_all_have(tmp_path: Path) -> None:
    faces = {"a": [9.0, 0.1], "b": [8.0, 0.2], "c": [7.0, 0.3], "failed": []}
    photos = {"a": [1.0, 0.5], "b": [2.0, 0.9], "c": [3.0, 0.7], "other": [0.1]}
    there = {"f": trained(tmp_path / "f", faces), "p": trained(tmp_path / "p", photos)}
    trainings = {name: read(folder) for name, folder in there.items()}
    table = losses(trainings, "reconstruction")
    assert table.to_dict() == {
        "f": {"a": 0.1, "b": 0.2, "c": 0.3},
        "p": {"a": 0.5, "b": 0.9, "c": 0.7},
    }
    found = {(one["loss"], one["latent_size"]): one for one in orders(trainings)}
    assert len(found) == 4  # of one latent size there is a single member
    whole = found["reconstruction_loss", "all"]
    assert (whole["members"], whole["first"], whole["second"]) == (3, "f", "p")
    assert whole["tau"] == pytest.approx(1 / 3, abs=1e-3)  # two of three pairs agree
    assert (found["total_loss", 4]["members"], found["total_loss", 4]["tau"]) == (2, 1.0)
    mean = means(trainings).loc["latent_size"]
    assert mean.round(3).to_dict() == {"f": {"2": 0.3, "4": 0.15}, "p": {"2": 0.7, "4": 0.7}}


def test_photographs_are_as_many_as_the_faces(tmp_path: Path) -> None:
    protocol = TableProtocol().on_photographs(tmp_path)
    assert (protocol.data.kind, protocol.data.path) == ("folder", tmp_path)
    assert protocol.data.count == TableProtocol().data.count
    assert protocol.training == TableProtocol().training
