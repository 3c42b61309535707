"""The contract of every data set in the table, and their common configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from nas.datasets import (
    DATASETS,
    DataConfig,
    contact_sheet,
    export_celeba,
    load_dataset,
    split_indices,
)
from nas.datasets.dataset import Kind
from search_spaces.errors import UserError

Make = Callable[..., DataConfig]


@pytest.fixture(params=sorted(DATASETS))
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Build configurations of one kind over a folder that suits every kind that reads a folder."""
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    kind: dict[str, Any] = {"kind": request.param}
    if request.param != "faces":
        export_celeba(load_dataset(DataConfig(count=24), 24), tmp_path / "images")
        kind["path"] = tmp_path / "images"
    return lambda **more: DataConfig(**kind, **more)


def test_the_table_and_the_configuration_name_the_same_kinds() -> None:
    assert set(get_args(Kind)) == set(DATASETS)


def test_contract(config: Make) -> None:
    calls: list[tuple[int, int]] = []
    dataset = load_dataset(config(count=20), 24, lambda done, total: calls.append((done, total)))
    assert dataset.images.shape == (20, 3, 24, 24)
    assert dataset.images.dtype == np.uint8
    assert dataset.images.flags.c_contiguous
    assert isinstance(dataset.images, np.memmap)
    assert calls[-1] == (20, 20)
    parts = (dataset.train, dataset.validation, dataset.test)
    assert [len(part) for part in parts] == [14, 3, 3]
    assert all(part.dtype == np.int64 for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(20))
    if dataset.attributes is not None:
        assert dataset.attributes.shape == (20, len(dataset.attribute_names))
        assert dataset.attributes.dtype == np.bool_
    assert dataset.skipped == ()


def test_loading_again_is_from_the_cache(config: Make) -> None:
    first = load_dataset(config(count=20), 24)
    calls: list[int] = []
    second = load_dataset(config(count=20), 24, lambda done, total: calls.append(done))
    assert calls == []
    assert np.array_equal(first.images, second.images)
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_tells_pixels_and_splits_apart(config: Make) -> None:
    prints = [
        load_dataset(config(count=20), 24).fingerprint,
        load_dataset(config(count=20), 16).fingerprint,
        load_dataset(config(count=15), 24).fingerprint,
        load_dataset(config(count=20, split_seed=7), 24).fingerprint,
    ]
    assert len(set(prints)) == 4


def test_contact_sheet(config: Make) -> None:
    dataset = load_dataset(config(count=20), 24)
    sheet = contact_sheet(dataset.images, 2, 3, seed=1)
    assert sheet.size == (3 * 26 + 2, 2 * 26 + 2)
    pixels = np.asarray(sheet)
    first = np.random.default_rng(1).permutation(20)[0]
    assert np.array_equal(pixels[2:26, 2:26].transpose(2, 0, 1), dataset.images[first])
    assert pixels[:2].min() == 255


def test_the_papers_split() -> None:
    train, validation, test = split_indices(20_000, 42)
    assert (len(train), len(validation), len(test)) == (14_000, 3_000, 3_000)
    assert len({*train.tolist(), *validation.tolist(), *test.tolist()}) == 20_000
    import torch
    from torch.utils.data import random_split

    before = torch.random.get_rng_state()
    generator = torch.Generator().manual_seed(42)
    rows: Any = range(20_000)
    theirs: list[Any] = random_split(rows, [14_000, 3_000, 3_000], generator=generator)
    assert train.tolist() == list(theirs[0].indices)
    split_indices(50, 1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "faces", "path": "somewhere"}, "reads no folder"),
        ({"kind": "folder"}, "needs the folder of its images"),
        ({"kind": "celeba"}, "needs the folder of its images"),
        ({"count": 9}, "greater than or equal to 10"),
        ({"colour": 1}, "Extra inputs"),
        ({"count": True}, "valid integer"),
        ({"seed": True}, "valid integer"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"seed": 2**32}, "less than 4294967296"),
        ({"split_seed": -1}, "greater than or equal to 0"),
        ({"split_seed": 2**32}, "less than 4294967296"),
    ],
)
def test_bad_configurations_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(values)


def test_the_largest_seed_works(config: Make) -> None:
    largest = 2**32 - 1
    assert len(load_dataset(config(count=10, seed=largest, split_seed=largest), 8).test) == 2


def test_a_cache_folder_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"file.cache.*cannot be written.*set NAS_CACHE_DIR"):
        load_dataset(DataConfig(count=10), 8)


def test_tiny_images_are_refused() -> None:
    with pytest.raises(UserError, match="image_size: 4"):
        load_dataset(DataConfig(count=10), 4)
