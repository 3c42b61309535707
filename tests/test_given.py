"""Images that a program hands over, and models that take and return arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from nas import DataConfig, Model, load_model, train
from nas.datasets import load_dataset
from nas.datasets.given import as_config, as_pixels, saved
from nas.training import EpochResult
from search_spaces import UserError
from tests.helpers.small_networks import described


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))


def pixels(count: int = 20, size: int = 12) -> NDArray[np.uint8]:
    """Return colour images `(count, size, size + 2, 3)`."""
    shape = count, size, size + 2, 3
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


class Items:
    """A data set as torch has them: pairs of a tensor and a label."""

    def __init__(self, images: NDArray[np.uint8], noise: float = 0.0) -> None:
        self.images, self.noise = images, noise

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 255
        return (image + self.noise * torch.rand(())).clamp(0, 1), 7


@pytest.mark.parametrize(
    "form",
    [
        lambda images: images,
        lambda images: images.transpose(0, 3, 1, 2),
        lambda images: images.astype(np.float32) / 255,
        lambda images: torch.from_numpy(images).permute(0, 3, 1, 2),
        Items,
        lambda images: [Image.fromarray(one) for one in images],
        list,
    ],
    ids=["array", "channels first", "floats", "tensor", "items", "pictures", "arrays"],
)
def test_every_form_gives_the_same_pixels(form: Any) -> None:
    assert np.array_equal(as_pixels(form(pixels())), pixels())


def test_grey_images_have_one_channel() -> None:
    grey = pixels()[..., 0]
    assert np.array_equal(as_pixels(grey), grey[..., None])
    assert np.array_equal(as_pixels(torch.from_numpy(grey)[:, None]), grey[..., None])


def test_equal_images_are_stored_once_and_loaded_like_a_file() -> None:
    first, second = as_config(pixels()), as_config(Items(pixels()))
    assert first == second
    assert first.path is not None
    dataset = load_dataset(first, 12)
    assert dataset.images.shape == (20, 3, 12, 12)
    assert len(dataset.train) == 14


def test_names_and_paths(tmp_path: Path) -> None:
    assert as_config(None) == as_config("faces") == DataConfig()
    assert (
        as_config(tmp_path) == as_config(str(tmp_path)) == DataConfig(kind="folder", path=tmp_path)
    )
    assert as_config({"count": 30}) == DataConfig(count=30)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((4, 5)), r"data: the shape \(4, 5\) is not one of images"),
        (np.zeros((4, 5, 6, 2)), r"the shape \(4, 5, 6, 2\)"),
        (np.zeros((0, 5, 6, 3)), r"the shape \(0, 5, 6, 3\)"),
        (np.full((4, 5, 6), 2.0), r"values from 2 to 2; give floats in \[0, 1\]"),
        (np.full((4, 5, 6), np.nan), r"values from nan"),
        (np.zeros((4, 5, 6), dtype=np.int64), "of type int64; give uint8, or floats"),
        (3, "int holds no images"),
        ([], "holds no images"),
        (["a.png"], "item 0 is a str, not an image"),
        ([np.zeros((4, 5)), np.zeros((5, 4))], r"item 1 has the shape \(5, 4, 1\), item 0 \(4, 5"),
        (Items(pixels(), noise=0.5), "item 0 differs between two reads; leave out its random"),
    ],
)
def test_what_is_refused(given: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused:
        saved(given)
    assert "\n" not in str(refused.value)


def test_an_item_that_raises_is_named() -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            if index == 9:
                raise OSError("disk\nfull")
            return super().__getitem__(index)

    with pytest.raises(UserError, match=r"^data: item 9 raised OSError: disk full$"):
        as_config(Broken(pixels()))


@pytest.fixture
def model() -> Model:
    seen: list[EpochResult] = []
    trained = train(described(12), pixels(), device="cpu", epochs=2, on_epoch=seen.append)
    assert trained.history == tuple(seen)
    assert [one.epoch for one in seen] == [1, 2]
    return trained


def test_a_model_takes_arrays_and_pictures(model: Model, tmp_path: Path) -> None:
    images = pixels(3)
    latents = model.encode(images)
    assert latents.shape == (3, 4)
    assert latents.dtype == np.float32
    rebuilt = model.reconstruct(images)
    assert rebuilt.shape == (3, 12, 12, 3)
    assert rebuilt.dtype == np.uint8
    assert np.array_equal(model.decode(latents), rebuilt)
    path = tmp_path / "one.png"
    Image.fromarray(images[1]).save(path)
    for one in (path, str(path), Image.fromarray(images[1]), [path]):
        assert np.allclose(model.encode(one), latents[1:2], atol=1e-5)
    square = model.prepared(images)
    assert np.array_equal(square, images[:, :, 1:13])
    assert np.allclose(model.encode(square / 255), latents, atol=1e-5)


def test_a_stored_model_is_the_same(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "weights.safetensors")
    for place in (tmp_path, tmp_path / "weights.safetensors", str(tmp_path)):
        loaded = load_model(place)
        assert np.array_equal(loaded.reconstruct(pixels(2)), model.reconstruct(pixels(2)))
    assert np.array_equal(load_model(tmp_path).sample(2), model.sample(2))
    assert len(repr(model)) < 200


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m: m.decode(np.zeros((2, 3))), r"latents: of shape \(2, 3\); give \(n, 4\)"),
        (lambda m: m.encode("absent.png"), "absent.png: cannot be read as an image: no ordinary"),
        (lambda m: train(m.architecture, pixels(), epoch=3), "training: epoch: unknown key .*epoc"),
    ],
)
def test_what_a_model_refuses(model: Model, call: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        call(model)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.safetensors: cannot be read"):
        load_model(tmp_path)
