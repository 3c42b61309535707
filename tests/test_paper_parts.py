"""The paper's measures and figures on models and numbers with known results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.losses import kl_divergence
from nas.vae import build_vae
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from studies.paper import attributes, clusters, embedding, inference, smoothness, traversal
from studies.paper.attributes import LabelledLatents
from studies.paper.differences import Difference, paired_difference, verdict_of
from studies.paper.stored import Arrays, Stored
from tests.fakes.dataset import noise

SIDE, LATENT = 4, 6


def silent(*_: int) -> None:
    pass


class Linear(nn.Module):
    """Decodes a latent into an image whose rows of pixels are its values; encodes it back."""

    def __init__(self, weights: list[float] | None = None) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights or [1.0] * LATENT))

    def decode(self, latents: Tensor) -> Tensor:
        values = 0.5 + 0.01 * latents * self.weights
        return values[:, None, :, None].expand(-1, 3, LATENT, SIDE)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values = (images.mean(dim=(1, 3)) - 0.5) / 0.01 / self.weights
        return values, torch.zeros_like(values)


def test_results_are_made_once_for_the_same_source(tmp_path: Path) -> None:
    stored, made = Stored(tmp_path / "paper"), list[int]()

    def make() -> Arrays:
        made.append(1)
        return {"values": np.arange(3) + len(made), "flags": np.array([True, False])}

    first = stored.arrays("x", {"seed": 1}, make)
    again = stored.arrays("x", {"seed": 1}, make)
    assert len(made) == 1
    assert again["flags"].dtype == bool
    assert (first["values"] == again["values"]).all()
    assert stored.arrays("x", {"seed": 2}, make)["values"][0] == 2


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    stored = Stored(tmp_path)
    stored.arrays("x", {}, lambda: {"values": np.zeros(2)})
    (tmp_path / "x.safetensors").write_bytes(b"half a fi")
    assert stored.arrays("x", {}, lambda: {"values": np.ones(2)})["values"].sum() == 2


@pytest.mark.parametrize(("shift", "sign"), [(0.5, 1), (-0.5, -1), (0.0, 0)])
def test_a_difference_has_a_sign_where_its_interval_excludes_zero(shift: float, sign: int) -> None:
    rng = np.random.default_rng(0)
    original = rng.normal(size=200)
    noise = rng.normal(size=200)
    found = paired_difference(original, original + shift + noise - noise.mean())
    assert found.sign == sign
    assert found.value == pytest.approx(shift, abs=1e-9)
    assert found.low < found.value < found.high


def test_one_image_says_nothing() -> None:
    assert paired_difference(np.array([1.0]), np.array([2.0])).sign == 0
    with_gap = paired_difference(np.array([1.0, np.nan, 1.0]), np.array([2.0, 5.0, 2.0]))
    assert with_gap == Difference(1.0, 1.0, 1.0)


def test_verdicts_go_both_ways() -> None:
    higher, lower, unclear = Difference(1, 0.5, 2), Difference(-1, -2, -0.5), Difference(0, -1, 1)
    assert [verdict_of(d, 1) for d in (higher, lower, unclear)] == [
        "holds",
        "does not hold",
        "undecided",
    ]
    assert verdict_of(higher, -1) == "does not hold"
    assert verdict_of(lower, -1) == "holds"


def blobs(apart: float, count: int = 60) -> LabelledLatents:
    """Latents whose first attribute shifts their mean by `apart`; the second is random."""
    rng = np.random.default_rng(3)
    labels = np.stack([np.arange(2 * count) % 3 == 0, rng.random(2 * count) < 0.5], axis=1)
    latents = rng.normal(size=(2 * count, LATENT)) + apart * labels[:, :1]
    return LabelledLatents(latents[:count], labels[:count], latents[count:], labels[count:])


def test_cluster_scores_see_a_shift_and_not_a_random_attribute() -> None:
    latents = blobs(apart=8.0)
    scores = clusters.cluster_scores(latents)
    right = clusters.accuracies(scores["seen"], latents.test_labels)
    assert right[0] == 1.0
    assert abs(right[1] - 0.5) < 0.2
    assert scores["silhouette"][0] > 0.5
    assert abs(scores["silhouette"][1]) < 0.1


def test_accuracy_differences_agree_with_the_accuracies() -> None:
    truth = blobs(1.0).test_labels
    rng = np.random.default_rng(0)
    good, bad = truth ^ (rng.random(truth.shape) < 0.1), rng.random(truth.shape) < 0.5
    expected = clusters.accuracies(good, truth).mean() - clusters.accuracies(bad, truth).mean()
    found = clusters.accuracy_difference(bad, good, truth)
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high
    assert found.sign == 1
    assert clusters.accuracy_difference(good, bad, truth).sign == -1
    assert clusters.accuracy_difference(good, good, truth) == Difference(0, 0, 0)


def test_small_pixels_are_averages() -> None:
    data = noise(12, 24)
    small = clusters.small_pixels(data, np.arange(12))
    assert small.shape == (12, 3 * 12 * 12)
    assert small[5].mean() == pytest.approx(data.images[5].mean() / 255, abs=1e-6)


def test_a_direction_leads_from_one_class_mean_to_the_other() -> None:
    latents = np.array([[0.0, 1.0], [2.0, 1.0], [5.0, 3.0]])
    found = attributes.direction(latents, np.array([False, False, True]))
    assert found.tolist() == [4.0, 2.0]
    moved = attributes.moved(latents[:1], found, (0.0, 1.0, 2.0))
    assert moved.tolist() == [[[0.0, 1.0], [4.0, 3.0], [8.0, 5.0]]]


def test_an_added_attribute_is_seen_by_the_probe() -> None:
    latents = blobs(apart=8.0)
    found = attributes.manipulate(Linear(), latents, 0, 2, 16, silent)  # type: ignore[arg-type]
    share = dict(zip(attributes.STRENGTHS, found["share"], strict=True))
    assert share[0.0] == 0
    assert share[1.0] == 1
    assert share[-1.0] == 0
    assert found["balanced"][0] > 0.95
    assert found["images"].shape == (2, len(attributes.STRENGTHS), 3, LATENT, SIDE)
    assert not latents.test_labels[found["rows"], 0].any()


def test_attributes_need_images_with_and_without() -> None:
    data = noise(60, 16)
    train, test = np.arange(40), np.arange(40, 60)
    assert attributes.judgeable(data, train, test) == ["Half", "Third"]
    assert attributes.chosen_attributes((), ["Half", "Smiling"], data.attribute_names) == [
        "Smiling"
    ]
    with pytest.raises(UserError, match=r"--attribute Halff: .*did you mean 'Half'"):
        attributes.chosen_attributes(("Halff",), ["Half"], data.attribute_names)
    with pytest.raises(UserError, match=r"--attribute Rare: fewer than 5.* or one of Half$"):
        attributes.chosen_attributes(("Rare",), ["Half"], data.attribute_names)
    with pytest.raises(UserError, match=r"--attribute Rare: fewer than 5.*; use more images$"):
        attributes.chosen_attributes(("Rare",), [], data.attribute_names)


def test_the_dimension_of_largest_effect_comes_after_the_one_asked_for() -> None:
    model = Linear([1.0, 0.1, 5.0, 2.0, 0.0, 3.0])
    bases = np.zeros((2, LATENT), np.float32)
    effect = traversal.dimension_effects(model, bases, 7, silent)["effect"]  # type: ignore[arg-type]
    assert effect == pytest.approx(0.01 * 6 * np.array([1, 0.1, 5, 2, 0, 3]) / LATENT, rel=1e-4)
    assert traversal.shown_dimensions((4,), effect) == [4, 2, 5, 3, 0]
    assert traversal.shown_dimensions((2,), effect) == [2, 5, 3, 0, 1]
    assert traversal.rank_of(4, effect) == 6
    assert traversal.rank_of(2, effect) == 1


def test_a_traversal_moves_one_dimension_only() -> None:
    base = np.arange(LATENT, dtype=np.float32)
    points = traversal.traversal_points(base, 2)
    assert points[:, 2].tolist() == [-3.0, -1.5, 0.0, 1.5, 3.0]
    assert (np.delete(points, 2, axis=1) == np.delete(base, 2)).all()
    with pytest.raises(UserError, match="--dimension 128: the latent has 128 dimensions"):
        traversal.require_dimensions((20, 128), 128)


def test_divergences_add_up_to_the_kl_term() -> None:
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 9, LATENT))
    expected = kl_divergence(torch.from_numpy(mean), torch.from_numpy(log_variance))
    assert traversal.divergence(mean, log_variance).sum() == pytest.approx(float(expected))


def test_a_straight_way_is_smooth_and_a_winding_one_is_not() -> None:
    ramp = np.linspace(0, 1, 11)[:, None, None, None] * np.ones((1, 3, 8, 8))
    straight = smoothness.path_measures(ramp.astype(np.float32), "uniform")
    assert straight["step_variation_l1"] == pytest.approx(0, abs=1e-4)
    assert straight["straightness"] == pytest.approx(1, abs=1e-4)
    order = [0, 5, 1, 6, 2, 7, 3, 8, 4, 9, 10]
    winding = smoothness.path_measures(ramp[order].astype(np.float32), "uniform")
    assert winding["straightness"] == pytest.approx(1 / 4.2, abs=1e-3)
    jump = smoothness.path_measures(
        np.repeat(ramp[[0, -1]], [6, 5], axis=0).astype("f4"), "uniform"
    )
    assert jump["step_variation_l1"] == pytest.approx(3)
    still = smoothness.path_measures(np.full((11, 3, 8, 8), 0.5, np.float32), "uniform")
    assert np.isnan(still["step_variation"])


def test_interpolations_lead_from_face_to_face() -> None:
    means = np.random.default_rng(0).normal(size=(20, LATENT)).astype(np.float32)
    pairs = smoothness.pairs_of(20)
    assert sorted(pairs.ravel()) == list(range(20))
    points = smoothness.interpolation_points(means, pairs)
    assert points[:, 0] == pytest.approx(means[pairs[:, 0]])
    assert points[:, -1] == pytest.approx(means[pairs[:, 1]])
    photos = np.zeros((len(pairs), 2, 3, LATENT, SIDE), np.uint8)
    photos[:, 1] = 255
    found = smoothness.interpolate(Linear(), means, pairs, photos, "uniform", 32, silent)  # type: ignore[arg-type]
    assert found["step_variation_l1"] == pytest.approx(0, abs=1e-3)
    apart = 0.01 * np.abs(means[pairs[:, 0]] - means[pairs[:, 1]]).mean(axis=1)
    assert found["span"] == pytest.approx(apart, rel=1e-3)


def test_losses_by_image_average_to_the_protocols() -> None:
    from nas.protocol import TrainingConfig, evaluate

    data = noise(20, 16)
    config = TrainingConfig(ssim="uniform", batch_size=6)
    model = build_vae(ORIGINAL.resized(16), seed=0).eval()
    found = inference.examine(model, data, data.test, config, silent)
    expected = evaluate(model, data, data.test, config)
    for name in inference.LOSS_TERMS:
        assert found[name].mean() == pytest.approx(getattr(expected, name), rel=1e-4)
    means = inference.latent_means(model, data, data.test, config, silent)
    assert means == pytest.approx(found["mean"], abs=1e-6)


def test_tsne_repeats_and_its_figure_splits_by_attribute() -> None:
    latents = blobs(8.0).test
    places = embedding.embed(latents)["places"]
    assert (places == embedding.embed(latents)["places"]).all()
    labels = np.arange(60) % 3 == 0
    figure = embedding.embedding_figure(
        "original", places, embedding.attribute_letters(labels), "Blond_Hair"
    )
    assert [trace.name for trace in figure.data] == ["not Blond Hair", "Blond Hair"]
    assert [len(trace.x) for trace in figure.data] == [40, 20]
    assert list(figure.data[1].x) == [
        x for x, one in zip(figure.layout.meta["x"], labels, strict=True) if one
    ]
    plain = embedding.embedding_figure("original", places, None)
    assert [len(trace.x) for trace in plain.data] == [60, 0]
