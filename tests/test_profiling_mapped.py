"""Weights in mapped files: the same values, another memory, and everything put back."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from profiling.mapped import mapped_weights


def model() -> nn.Module:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made.eval()


def places(module: nn.Module) -> list[int]:
    return [tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())]


def test_values_and_strides_stay_and_the_memory_is_another() -> None:
    mine, images = model(), torch.rand(2, 3, 4, 4)
    before, expected = places(mine), mine(images)
    strides = [tensor.stride() for tensor in mine.parameters()]
    with mapped_weights([mine]):
        assert not set(places(mine)) & set(before)
        assert [tensor.stride() for tensor in mine.parameters()] == strides
        assert torch.equal(mine(images), expected)
    assert places(mine) == before


def test_each_module_has_one_compact_block_that_copies_share() -> None:
    mine, other = model(), model()
    shared = copy.deepcopy(mine, {id(tensor): tensor for tensor in mine.parameters()})
    with mapped_weights([mine, shared, other, "no module"]):
        both = places(mine)[: len(list(mine.parameters()))]
        assert places(shared)[: len(both)] == both
        size = sum(t.numel() * t.element_size() + 64 for t in mine.parameters())
        assert max(both) - min(both) < size
        assert not set(both) & set(places(other))
        assert all(place % 64 == 0 for place in both)


def test_no_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with mapped_weights([model()]):
        assert list(tmp_path.iterdir()) == []


def test_without_space_for_a_file_the_module_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    mine = model()
    before = places(mine)
    with mapped_weights([mine]):
        assert places(mine) == before


def test_weights_are_put_back_after_an_error() -> None:
    mine = model()
    before = places(mine)
    with pytest.raises(KeyError), mapped_weights([mine]):
        raise KeyError
    assert places(mine) == before
