"""Training: the same results from the same seed, checkpoints, resuming and failures."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from nas.checkpoint import load_vae, read_tensors, save_weights, write_tensors
from nas.datasets import ImageDataset
from nas.evaluate import Evaluator
from nas.protocol import flipped, forward, generator_for, load_batch
from nas.recipes import FAN_IN, RECIPES, parameter_groups
from nas.setups import SetUp
from nas.training import (
    CandidateFailed,
    EpochResult,
    OutOfMemory,
    Quality,
    Trainer,
    TrainingConfig,
    TrainingDiverged,
    evaluate,
    out_of_memory_as_failure,
)
from nas.vae import VAE, build_vae
from profiling.lane import Lane
from search_spaces.architecture import CHOICES, Architecture
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from tests.fakes.findings import quality

SIZE = 16
ARCHITECTURE = Architecture.from_dict(
    {
        "image_size": SIZE,
        "latent_size": 4,
        "encoder": {
            "stages": [
                {"width": 4},
                {"block": "dense", "convolution": "pointwise_first", "width": 6, "growth_rate": 2},
            ]
        },
        "decoder": {"seed_width": 4, "stages": [{"width": 4}, {"width": 4}]},
    }
)
FAST = TrainingConfig(epochs=3, batch_size=4, learning_rate=1e-2, precision="float32")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads only get in each other's way on images this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dataset(train: int = 10, validation: int = 6) -> ImageDataset:
    """Return smooth random images."""
    count = train + validation + 2
    rng = np.random.default_rng(3)
    corners = torch.from_numpy(rng.random((count, 3, 2, 2)))
    smooth = torch.nn.functional.interpolate(corners, SIZE, mode="bilinear")
    return ImageDataset(
        name="smooth",
        images=(smooth * 255).numpy().astype(np.uint8),
        attribute_names=(),
        attributes=None,
        train=np.arange(train),
        validation=np.arange(train, train + validation),
        test=np.arange(train + validation, count),
        skipped=(),
        fingerprint="smooth",
    )


def trainer(config: TrainingConfig = FAST, data: ImageDataset | None = None) -> Trainer:
    return Trainer(ARCHITECTURE, data or dataset(), config)


def values(results: list[EpochResult]) -> list[tuple[int, float, Quality]]:
    """Return all but the times, which differ from run to run."""
    return [(result.epoch, result.train_loss, result.validation) for result in results]


def same_weights(first: VAE, second: VAE) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def script(monkeypatch: pytest.MonkeyPatch, totals: list[float]) -> None:
    """Let validation report these total losses, epoch by epoch."""
    losses = iter(totals)

    def scripted(*_arguments: object) -> Quality:
        return replace(quality(0.5), total=next(losses))

    monkeypatch.setattr("nas.training.evaluate", scripted)


def test_training_lowers_the_loss() -> None:
    trained = trainer(FAST.model_copy(update={"epochs": 20, "patience": 20}))
    results = list(trained.epochs())
    assert [result.epoch for result in results] == list(range(1, 21))
    assert results[-1].train_loss < 0.8 * results[0].train_loss
    assert trained.finished


def test_budget_and_loss_are_the_papers_by_default() -> None:
    config = TrainingConfig()
    assert (config.epochs, config.batch_size, config.patience) == (10, 32, 5)
    assert (config.l1_weight, config.kl_weight, config.evaluate_at) == (0.5, 1e-3, "sample")


@pytest.mark.parametrize(("recipe", "rate"), [("paper", 1e-4), ("schedule_free", 1e-2)])
def test_each_recipe_has_its_learning_rate(recipe: str, rate: float) -> None:
    assert TrainingConfig(recipe=recipe).learning_rate == rate
    assert TrainingConfig(recipe=recipe, learning_rate=0.5).learning_rate == 0.5
    assert TrainingConfig().recipe == "schedule_free"


FLIPPING = FAST.model_copy(update={"flip": True})


def test_half_of_the_images_are_mirrored_anew_in_every_epoch() -> None:
    images = torch.arange(400 * 2 * 2.0).reshape(400, 1, 2, 2)
    draws = [flipped(images.clone(), generator_for(7, epoch)) for epoch in (1, 1, 2)]
    mirrored = [(found == images.flip(3)).flatten(1).all(1) for found in draws]
    kept = [(found == images).flatten(1).all(1) for found in draws]
    assert all(bool((one ^ other).all()) for one, other in zip(mirrored, kept, strict=True))
    assert all(160 < int(one.sum()) < 240 for one in mirrored)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_flips_change_the_training_and_no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, other = trainer(), trainer(FLIPPING)
    assert values(list(plain.epochs())) != values(list(other.epochs()))
    seen = evaluate(other.model, other.dataset, other.dataset.validation, FLIPPING)
    assert seen == evaluate(other.model, other.dataset, other.dataset.validation, FAST)
    monkeypatch.setattr("nas.training.flipped", lambda images, draw: images)
    assert values(list(trainer(FLIPPING).epochs())) == values(plain.history)


def test_settings_without_flips_are_those_of_earlier_versions() -> None:
    assert "flip" not in FAST.model_dump()
    assert "flip" not in FAST.model_dump_json()
    assert FLIPPING.model_dump()["flip"] is True
    for config in (FAST, FLIPPING):
        assert TrainingConfig.model_validate(config.model_dump()) == config


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"'papre' is not a recipe.*paper") as refused:
        TrainingConfig(recipe="papre")
    assert "did you mean 'paper'" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", 3),
        ("epochs", 0),
        ("epochs", True),
        ("batch_size", 1),
        ("patience", True),
        ("learning_rate", -1),
        ("learning_rate", True),
        ("kl_weight", "nan"),
        ("ssim", "box"),
        ("seed", -1),
        ("seed", True),
        ("seed", 2**32),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        TrainingConfig.model_validate({key: value})


def test_numbers_may_be_text_as_yaml_reads_them() -> None:
    config = TrainingConfig.model_validate({"learning_rate": "1e-4", "kl_weight": 0})
    assert (config.learning_rate, config.kl_weight) == (1e-4, 0.0)


def test_the_largest_seed_trains() -> None:
    assert next(trainer(FAST.model_copy(update={"seed": 2**32 - 1})).epochs()).epoch == 1


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("ssim", ["gaussian", "uniform"])
def test_same_seed_same_result_and_global_state_untouched(ssim: str, channels_last: bool) -> None:
    config = TrainingConfig.model_validate(
        {**FAST.model_dump(), "ssim": ssim, "channels_last": channels_last}
    )
    before = torch.get_rng_state()
    first, again = trainer(config), trainer(config)
    assert values(list(first.epochs())) == values(list(again.epochs()))
    assert same_weights(first.model, again.model)
    assert torch.equal(torch.get_rng_state(), before)
    other = trainer(config.model_copy(update={"seed": 1}))
    assert next(other.epochs()).train_loss != first.history[0].train_loss


@pytest.mark.parametrize("activation", CHOICES["activation"])
def test_layout_and_working_in_place_change_no_result(activation: str) -> None:
    described = {**ARCHITECTURE.to_dict(), "activation": activation}
    architecture, data = Architecture.from_dict(described), dataset(train=4)
    config = FAST.model_copy(update={"recipe": "paper", "learning_rate": 1e-3})
    trained = Trainer(architecture, data, config)
    next(trained.epochs())
    expected = build_vae(architecture, config.seed)
    images = load_batch(data, data.train[_order(config, 4)], config, trained.device)
    noise = generator_for(config.seed, 1)
    torch.randperm(4, generator=noise)
    forward(expected, images.contiguous(), config, noise)[0].total.backward()  # type: ignore[no-untyped-call]
    torch.optim.Adam(expected.parameters(), config.learning_rate).step()
    for ours, theirs in zip(trained.model.parameters(), expected.parameters(), strict=True):
        # Adam's first step follows the gradient's sign, which is rounding noise for a bias that
        # a BatchNorm takes away again.
        assert theirs.grad is not None
        told = theirs.grad.abs() > 1e-5
        torch.testing.assert_close(ours[told], theirs[told], rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("channels_last", "flip"), [(True, False), (False, False), (True, True)])
def test_resumed_training_equals_an_uninterrupted_one(
    tmp_path: Path, channels_last: bool, flip: bool, recipe: str
) -> None:
    chosen = {"channels_last": channels_last, "flip": flip, "recipe": recipe}
    config = FAST.model_copy(update=chosen)
    whole, path = trainer(config), tmp_path / "checkpoint"
    expected = list(whole.epochs())
    next(trainer(config).epochs(path))
    torch.manual_seed(99)  # the global random state has no say
    resumed = trainer(config)
    results = list(resumed.epochs(path))
    assert values(results) == values(expected)
    assert results[0].duration_s != expected[0].duration_s  # told again, not trained again
    assert same_weights(resumed.model, whole.model)
    assert same_weights(resumed.best_model(), whole.best_model())


def test_a_stream_left_is_taken_up_where_it_was(tmp_path: Path) -> None:
    expected = values(list(trainer().epochs(tmp_path / "checkpoint")))
    left = trainer()
    told = [next(left.epochs(tmp_path / "checkpoint"))]  # restored, of which one was read
    assert not left.finished
    assert values(told + list(left.epochs(tmp_path / "checkpoint"))) == expected
    assert left.finished
    assert list(left.epochs()) == []


def test_a_batch_that_fails_costs_its_epoch_only(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"

    def stop(done: int, total: int) -> None:
        if next(calls) == total + 2:  # the second epoch's third batch
            raise KeyboardInterrupt

    calls = itertools.count(1)
    with pytest.raises(KeyboardInterrupt):
        list(trainer().epochs(path, stop))
    assert values(list(trainer().epochs(path))) == values(list(trainer().epochs()))


def test_a_finished_checkpoint_is_reported_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    first = trainer()
    expected, again = list(first.epochs(path)), trainer()
    assert list(again.epochs(path)) == expected
    assert same_weights(again.best_model(), first.best_model())


@pytest.mark.slow
def test_more_epochs_continue_a_finished_training(tmp_path: Path) -> None:
    path, longer = tmp_path / "checkpoint", FAST.model_copy(update={"epochs": 4})
    list(trainer().epochs(path))
    assert values(list(trainer(longer).epochs(path))) == values(list(trainer(longer).epochs()))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"ssim": "uniform"}, {"batch_size": 5}, {"recipe": "paper"}]
)
def test_checkpoint_of_another_training_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "checkpoint"
    next(trainer().epochs(path))
    with pytest.raises(UserError, match="another architecture, data or settings"):
        next(trainer(FAST.model_copy(update=change)).epochs(path))


def test_checkpoint_of_an_earlier_version_is_reported_and_training_starts_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "checkpoint"
    expected = next(trainer().epochs(path))
    tensors, metadata = read_tensors(path)
    del metadata["optimiser"]
    write_tensors(path, tensors, metadata)
    with pytest.warns(RuntimeWarning, match=r"checkpoint: written by an earlier version.*over"):
        result = next(trainer().epochs(path))
    assert values([result]) == values([expected])


def test_large_heads_get_a_smaller_learning_rate() -> None:
    architecture = ORIGINAL.resized(32)
    model = build_vae(architecture, seed=0)
    inputs = model.encoder.mean.in_features
    assert inputs > FAN_IN
    others, heads = parameter_groups(model, 0.5)
    assert heads["lr"] == 0.5 * FAN_IN / inputs
    assert [tuple(parameter.shape) for parameter in heads["params"]] == [
        *2 * [(architecture.latent_size, inputs), (architecture.latent_size,)]
    ]
    assert len(others["params"]) + 4 == len(list(model.parameters()))
    small = build_vae(ARCHITECTURE, seed=0)
    assert small.encoder.mean.in_features <= FAN_IN
    assert parameter_groups(small, 0.5)[1]["lr"] == 0.5


@pytest.mark.slow
def test_the_paper_explodes_where_the_default_recipe_does_not() -> None:
    """The first step of Adam moves the log-variance of `original` by the rate times its inputs."""
    corners = torch.rand((40, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(corners, 64, mode="bilinear")
    data = replace(dataset(), images=(images * 255).numpy().astype(np.uint8))
    data = replace(data, train=np.arange(32), validation=np.arange(32, 40))
    largest = {}
    for recipe in RECIPES:
        config = TrainingConfig(recipe=recipe, learning_rate=1e-2, epochs=1, batch_size=4)
        result = next(Trainer(ORIGINAL.resized(64), data, config).epochs())
        largest[recipe] = result.train_loss
    assert largest["schedule_free"] < 2
    assert largest["paper"] > 10 * largest["schedule_free"]


def test_statistics_are_those_of_the_evaluated_weights() -> None:
    """In training mode, where each batch has its own statistics, the encoder gives the same."""
    trained = trainer(FAST.model_copy(update={"batch_size": 10}))
    next(trained.epochs())
    images = load_batch(dataset(), np.arange(10), FAST, torch.device("cpu"))
    model = trained.best_model()
    with torch.no_grad():
        by_statistics = model.encode(images)[0]
        by_batch = model.train().encode(images)[0]
    # Running variances are unbiased (n - 1), those of a batch are not: a difference below 1 %.
    torch.testing.assert_close(by_statistics, by_batch, rtol=0.05, atol=0.01)


def test_the_latents_mean_may_be_evaluated() -> None:
    model, data = build_vae(ARCHITECTURE, seed=0), dataset()
    sampled = evaluate(model, data, data.validation, FAST)
    at_mean = FAST.model_copy(update={"evaluate_at": "mean"})
    mean = evaluate(model, data, data.validation, at_mean)
    images = load_batch(data, data.validation, FAST, torch.device("cpu"))
    with torch.no_grad():
        expected = (model.eval().reconstruct(images) - images).abs().mean().item()
    assert mean.l1 == pytest.approx(expected, rel=1e-5)
    assert sampled.l1 != mean.l1
    assert sampled.kl == pytest.approx(mean.kl)


def test_variation_and_active_units_are_those_of_the_definition() -> None:
    data, config = dataset(), FAST.model_copy(update={"evaluate_at": "mean"})
    model = build_vae(ARCHITECTURE, seed=0)
    with torch.no_grad():
        model.encoder.mean.weight[0] *= 100
        model.encoder.mean.weight[1:] *= 1e-4
    found = evaluate(model, data, data.validation, config)
    images = load_batch(data, data.validation, config, torch.device("cpu"))
    with torch.no_grad():
        rebuilt, mean = model.eval().reconstruct(images), model.encode(images)[0]
    between = [one.var(dim=0, correction=0).sum().item() for one in (rebuilt, images)]
    assert found.variation == pytest.approx(between[0] / between[1], rel=1e-4)
    assert mean.var(dim=0, correction=0)[0] > 0.01 > mean.var(dim=0, correction=0)[1:].max()
    assert found.active_units == 1


def test_a_constant_decoder_does_not_vary() -> None:
    model, data = build_vae(ARCHITECTURE, seed=0), dataset()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("decoder.output"):
                parameter.zero_()
    assert evaluate(model, data, data.validation, FAST).variation == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_checkpoint_is_reported_and_training_starts_over(
    tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "checkpoint"
    expected = next(trainer().epochs(path))
    _damage(path, damage)
    with pytest.warns(RuntimeWarning, match=r"checkpoint.*starts over"):
        result = next(trainer().epochs(path))
    assert values([result]) == values([expected])


def test_early_stopping_keeps_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [1.0, 0.5, 0.5, 0.7, 0.1])
    stopping, weights = trainer(FAST.model_copy(update={"epochs": 9, "patience": 2})), []
    for _ in stopping.epochs():
        weights.append(stopping.model.encoder.mean.weight.detach().clone())
    assert len(stopping.history) == 4  # epochs 3 and 4 are not lower than epoch 2
    assert stopping.best.epoch == 2
    assert torch.equal(stopping.best_model().encoder.mean.weight, weights[1])
    assert not torch.equal(weights[1], weights[3])


def test_every_image_is_used_and_no_batch_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[Tensor]()

    def recording(data: ImageDataset, indices: np.ndarray, *rest: object) -> Tensor:
        seen.append(torch.from_numpy(indices))
        return load_batch(data, indices, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("nas.training.load_batch", recording)
    told: list[tuple[int, int]] = []
    stream = trainer(data=dataset(train=9)).epochs(on_batch=lambda *batch: told.append(batch))
    next(stream)
    assert [len(batch) for batch in seen] == [4, 5]
    assert sorted(torch.cat(seen).tolist()) == list(range(9))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]  # two to train on, two to validate on
    next(stream)
    assert torch.cat(seen)[:9].tolist() != torch.cat(seen)[9:].tolist()  # shuffled anew


def test_time_in_on_batch_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))

    def pause(_done: int, _total: int) -> None:
        for _ in range(1000):
            next(clock)

    result = next(trainer().epochs(on_batch=pause))
    assert 0 < result.duration_s < 100
    assert result.images_per_s > 10 / 100


def test_divergence_names_epoch_and_batch() -> None:
    with pytest.raises(TrainingDiverged, match=r"epoch 1, batch \d of 3: the loss is (nan|inf)"):
        list(trainer(FAST.model_copy(update={"learning_rate": 1e30})).epochs())


def test_divergence_in_validation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, [0.5, float("nan")])
    with pytest.raises(TrainingDiverged, match="epoch 2, validation"):
        list(trainer().epochs())


@pytest.mark.parametrize("kind", ["cpu", "cuda", "python"])
def test_out_of_memory_ends_the_candidate(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def starved(*_arguments: object, **_options: object) -> None:
        if kind == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if kind == "python":
            raise MemoryError
        torch.empty(2**60)

    monkeypatch.setattr("nas.training.forward", starved)
    with pytest.raises(OutOfMemory, match=r"epoch 1 at batch size 4: out of memory on cpu"):
        list(trainer().epochs())
    assert issubclass(OutOfMemory, CandidateFailed)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_out_of_memory_is_known_by_its_message(message: str) -> None:
    guard = out_of_memory_as_failure("building", "cuda:0")
    with pytest.raises(OutOfMemory, match=r"^building: out of memory on cuda:0$") as caught, guard:
        raise RuntimeError(message)
    assert str(caught.value.__cause__) == message


@pytest.mark.parametrize("failure", [OutOfMemory("inner: out of memory"), TrainingDiverged("nan")])
def test_a_failure_that_has_its_name_keeps_it(failure: CandidateFailed) -> None:
    with pytest.raises(CandidateFailed) as caught, out_of_memory_as_failure("outer", "cpu"):
        raise failure
    assert caught.value is failure


def test_other_errors_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("nas.training.forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match") as caught:
        list(trainer().epochs())
    assert not isinstance(caught.value, CandidateFailed)


def test_images_must_fit() -> None:
    with pytest.raises(UserError, match=r"'smooth' holds images of \(3, 16, 16\).*\(3, 32, 32\)"):
        Trainer(ARCHITECTURE.resized(32), dataset(), FAST)
    with pytest.raises(UserError, match="1 training and 6 validation images"):
        trainer(data=dataset(train=1))


def test_evaluate_is_reproducible_and_leaves_the_mode() -> None:
    model, data = trainer().model, dataset()
    first, again = (evaluate(model, data, data.test, FAST) for _ in range(2))
    assert first == again
    assert model.training
    assert first.reconstruction == pytest.approx(1 - first.ssim + 0.5 * first.l1, abs=1e-6)
    assert first.total == pytest.approx(first.reconstruction + 1e-3 * first.kl, abs=1e-6)


def test_evaluate_weighs_images_not_batches() -> None:
    model, data = trainer().model, dataset(validation=5)
    images = data.images.copy()
    images[data.validation[:3]], images[data.validation[3:]] = 255, 128
    config = FAST.model_copy(update={"batch_size": 3})
    # An untrained model paints everything grey: 0.5 away from three images, 0 away from two.
    l1 = evaluate(model, replace(data, images=images), data.validation, config).l1
    assert l1 == pytest.approx(3 / 5 * 0.5, abs=0.03)


def test_bfloat16_trains_with_a_float32_loss() -> None:
    half = trainer(FAST.model_copy(update={"precision": "bfloat16"}))
    result, exact = next(half.epochs()), next(trainer().epochs())
    assert result.train_loss == pytest.approx(exact.train_loss, rel=0.05)
    assert result.train_loss != exact.train_loss
    assert half.model.encoder.mean.weight.dtype == torch.float32


@pytest.mark.parametrize("instructions", [True, False])
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it(
    instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.protocol.has_bfloat16", lambda device: instructions)
    names = ("auto", "bfloat16", "float32")
    auto, half, exact = (
        next(trainer(FAST.model_copy(update={"precision": name})).epochs()).train_loss
        for name in names
    )
    assert half != exact
    assert auto == (half if instructions else exact)


def test_evaluation_is_in_float32_whatever_the_steps_are() -> None:
    model, data = trainer().model, dataset()
    one, other = (
        evaluate(model, data, data.validation, FAST.model_copy(update={"precision": name}))
        for name in ("bfloat16", "float32")
    )
    assert one == other


@pytest.mark.parametrize(
    ("given", "precision"),
    [
        ({}, "auto"),
        ({"recipe": "paper"}, "float32"),
        ({"recipe": "paper", "precision": "bfloat16"}, "bfloat16"),
        ({"precision": "float32"}, "float32"),
    ],
)
def test_precision_is_by_default_that_of_the_recipe(
    given: dict[str, object], precision: str
) -> None:
    assert TrainingConfig.model_validate(given).precision == precision


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cuda_trains_like_the_cpu(tmp_path: Path, precision: str) -> None:
    config = TrainingConfig.model_validate({**FAST.model_dump(), "precision": precision})
    path, expected = tmp_path / "checkpoint", next(trainer().epochs())
    first = next(Trainer(ARCHITECTURE, dataset(), config, "cuda").epochs(path))
    assert first.train_loss == pytest.approx(expected.train_loss, rel=0.05)
    resumed = Trainer(ARCHITECTURE, dataset(), config, "cuda")
    assert [result.epoch for result in resumed.epochs(path)] == [1, 2, 3]
    assert resumed.best_model().encoder.mean.weight.is_cuda


def test_saved_model_comes_back(tmp_path: Path) -> None:
    path, source = tmp_path / "weights.safetensors", trainer()
    next(source.epochs())
    model = source.best_model()
    save_weights(model, path)
    loaded = load_vae(path)
    images = torch.rand(2, 3, SIZE, SIZE)
    assert loaded.architecture == ARCHITECTURE
    assert not loaded.training
    assert torch.equal(loaded.reconstruct(images), model.reconstruct(images))
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(trainer().model, path)
    _damage(path, damage)
    with pytest.raises(UserError, match=r"weights\.safetensors: (damaged|cannot be read)"):
        load_vae(path)


def test_metadata_is_covered_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "tensors"
    write_tensors(path, {"a": torch.ones(2)}, {"note": "first"})
    path.write_bytes(path.read_bytes().replace(b"first", b"fixed"))
    with pytest.raises(UserError, match="checksum"):
        read_tensors(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"foreign\.safetensors"):
        load_vae(path)
    write_tensors(path, {"a": torch.ones(2)}, {"note": json.dumps(1)})
    with pytest.raises(UserError, match="contains no architecture"):
        load_vae(path)
    with pytest.raises(UserError, match="cannot be read"):
        load_vae(tmp_path / "missing")


def test_unwritable_folder_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_tensors(blocked / "weights", {}, {})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tensors"
    write_tensors(path, {"a": torch.ones(2)}, {})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_tensors(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(read_tensors(path)[0]["a"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["tensors"]


def test_training_data_may_be_a_part(tmp_path: Path) -> None:
    data, path = dataset(), tmp_path / "checkpoint"
    part = replace(data, train=data.train[:4])
    next(trainer(data=part).epochs(path))
    with pytest.raises(UserError, match="another architecture, data or settings"):
        next(trainer(data=data).epochs(path))


def _order(config: TrainingConfig, count: int) -> np.ndarray:
    order: np.ndarray = torch.randperm(count, generator=generator_for(config.seed, 1)).numpy()
    return order


def _damage(path: Path, damage: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"truncated": content[:middle], "flipped": flipped, "empty": b""}[damage])


class _WatchedLane(Lane):
    """Knows whether its training room is held."""

    held = False

    @contextmanager
    def training(self) -> Iterator[None]:
        with super().training():
            self.held = True
            try:
                yield
            finally:
                self.held = False


def _evaluator(folder: Path, on_batch: Callable[[int, int], None] | None = None) -> Evaluator:
    """Return an evaluator that only trains, with two threads, in a lane that is watched."""
    evaluator = Evaluator(
        dataset(),
        FAST,
        SetUp(),
        torch.device("cpu"),
        ["reconstruction_loss"],
        folder,
        thread_count=2,
        on_batch=on_batch,
    )
    evaluator.lane = _WatchedLane("cpu", folder / "lanes")
    return evaluator


def _held(evaluator: Evaluator) -> tuple[int, bool]:
    """Return torch's number of threads, and whether the lane is held."""
    assert isinstance(evaluator.lane, _WatchedLane)
    return torch.get_num_threads(), evaluator.lane.held


@pytest.mark.slow
def test_an_evaluation_holds_threads_and_lane_only_while_it_trains(tmp_path: Path) -> None:
    at_batch: set[tuple[int, bool]] = set()
    evaluator = _evaluator(tmp_path, lambda done, total: at_batch.add(_held(evaluator)))
    between = {_held(evaluator) for _ in evaluator(ARCHITECTURE)}
    assert at_batch == {(2, True)}
    assert between == {(1, False)}
    assert _held(evaluator) == (1, False)


def test_an_evaluation_that_is_closed_early_puts_threads_and_lane_back(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path)
    stream = evaluator(ARCHITECTURE)
    assert next(found.step for found in stream if found.step == "training")
    stream.close()  # type: ignore[attr-defined]
    assert _held(evaluator) == (1, False)


def test_an_evaluation_that_fails_within_an_epoch_puts_threads_and_lane_back(
    tmp_path: Path,
) -> None:
    def fail(done: int, total: int) -> None:
        raise CandidateFailed(f"at batch {done} of {total}")

    evaluator = _evaluator(tmp_path, fail)
    with pytest.raises(CandidateFailed, match="at batch 1"):
        list(evaluator(ARCHITECTURE))
    assert _held(evaluator) == (1, False)
