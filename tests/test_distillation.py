"""Distillation: the loss against teachers, its control, and trainings that resume with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.compress.distillation import Guidance
from nas.compress.narrowing import narrowed
from nas.compress.pruning import prune
from nas.datasets import ImageDataset
from nas.losses import vae_loss
from nas.protocol import forward, generator_for, load_batch
from nas.training import EpochResult, Quality, Trainer, TrainingConfig
from nas.vae import VAE, build_vae
from search_spaces.errors import UserError
from tests.fakes.dataset import noise
from tests.helpers.small_networks import described

SIZE = 16
STUDENT = described(SIZE)
FAST = TrainingConfig(epochs=3, batch_size=4, precision="float32", channels_last=True)
DATA = noise(20, SIZE)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def teacher(seed: int, size: int = SIZE) -> VAE:
    return build_vae(described(size, block="dense"), seed).eval()


def trainer(
    guidance: Guidance | None = None,
    start: dict[str, Tensor] | None = None,
    config: TrainingConfig = FAST,
    data: ImageDataset = DATA,
) -> Trainer:
    return Trainer(STUDENT, data, config, start=start, guidance=guidance)


def values(results: list[EpochResult]) -> list[tuple[int, float, Quality]]:
    return [(result.epoch, result.train_loss, result.validation) for result in results]


def batch() -> Tensor:
    return load_batch(DATA, DATA.train[:4], FAST, torch.device("cpu"))


def test_the_target_is_the_mean_of_what_the_teachers_decode_from_their_means() -> None:
    teachers, images = (teacher(1), teacher(2)), batch()
    first, second = (one.decode(one.encode(images)[0]).detach() for one in teachers)
    torch.testing.assert_close(Guidance(1, teachers).target(images), (first + second) / 2)
    assert torch.equal(Guidance(1, teachers[:1]).target(images), first)
    assert Guidance(1).target(images) is images


def test_the_term_is_the_reconstruction_loss_against_the_target() -> None:
    images, rebuilt = batch(), torch.rand(4, 3, SIZE, SIZE)
    guidance, zeros = Guidance(0.25, (teacher(1),)), torch.zeros(4, 4)
    for window in ("gaussian", "uniform"):
        found = guidance.loss(rebuilt, images, window, 0.7, half=False)
        expected = vae_loss(
            rebuilt, guidance.target(images), zeros, zeros,
            window=window, l1_weight=0.7,
        )  # fmt: skip
        torch.testing.assert_close(found, 0.25 * expected.reconstruction)


@pytest.mark.parametrize("teachers", [(), (1,), (1, 2)])
def test_a_step_minimises_the_usual_loss_and_the_weighted_term(teachers: tuple[int, ...]) -> None:
    config = FAST.model_copy(update={"batch_size": len(DATA.train), "epochs": 1})
    guidance = Guidance(0.5, tuple(map(teacher, teachers)))
    order = torch.randperm(len(DATA.train), generator=generator_for(config.seed, 1)).numpy()
    images = load_batch(DATA, DATA.train[order], config, torch.device("cpu"))
    noise_of_epoch = generator_for(config.seed, 1)
    torch.randperm(len(DATA.train), generator=noise_of_epoch)
    model = build_vae(STUDENT, config.seed)
    terms, rebuilt, _ = forward(model, images, config, noise_of_epoch)
    term = guidance.loss(rebuilt, images, config.ssim, config.l1_weight, half=False)
    (result,) = trainer(guidance, config=config).epochs()
    assert result.train_loss == pytest.approx(float((terms.total + term).detach()), rel=1e-5)
    if not teachers:
        assert term.item() == pytest.approx(0.5 * terms.reconstruction.item(), rel=1e-5)


def test_teachers_are_not_changed() -> None:
    one = teacher(1)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    list(trainer(Guidance(0.5, (one,))).epochs())
    assert all(torch.equal(before[name], tensor) for name, tensor in one.state_dict().items())
    assert all(parameter.grad is None for parameter in one.parameters())


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("started", [True, False])
@pytest.mark.slow
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, guided: bool, started: bool
) -> None:
    def new() -> Trainer:
        return trainer(
            Guidance(0.5, (teacher(1), teacher(2))) if guided else Guidance(0.5),
            build_vae(STUDENT, 9).state_dict() if started else None,
        )

    whole, path = new(), tmp_path / "checkpoint"
    expected = list(whole.epochs())
    next(new().epochs(path))
    resumed = new()
    assert values(list(resumed.epochs(path))) == values(expected)
    pairs = zip(
        resumed.best_model().state_dict().values(), whole.best_model().state_dict().values(),
        strict=True,
    )  # fmt: skip
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.slow
def test_teachers_weight_and_start_change_the_training() -> None:
    starts = [None, build_vae(STUDENT, 9).state_dict()]
    guides = [None, Guidance(0.5), Guidance(0.25), Guidance(0.5, (teacher(1),))]
    guides.append(Guidance(0.5, (teacher(2),)))
    first = {next(trainer(g, s).epochs()).validation.total for s in starts for g in guides}
    assert len(first) == len(starts) * len(guides)


@pytest.mark.parametrize(
    "other",
    [
        Guidance(0.5),
        Guidance(0.25, (teacher(1),)),
        Guidance(0.5, (teacher(2),)),
        Guidance(0.5, (teacher(1), teacher(1))),
        None,
    ],
)
def test_the_checkpoint_of_another_guidance_is_refused(
    tmp_path: Path, other: Guidance | None
) -> None:
    path = tmp_path / "checkpoint"
    next(trainer(Guidance(0.5, (teacher(1),))).epochs(path))
    with pytest.raises(UserError, match="belongs to a training with another"):
        next(trainer(other).epochs(path))


def test_the_checkpoint_of_another_start_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    next(trainer(start=build_vae(STUDENT, 8).state_dict()).epochs(path))
    with pytest.raises(UserError, match="belongs to a training with another"):
        next(trainer().epochs(path))


def test_a_teacher_of_other_images_is_refused() -> None:
    with pytest.raises(UserError, match="the architecture is for"):
        trainer(Guidance(0.5, (teacher(1, 32),)))


@pytest.mark.slow
def test_a_pruned_model_is_trained_further() -> None:
    wide = trainer()
    list(wide.epochs())
    narrow = narrowed(STUDENT, 0.5)
    start = prune(wide.best_model(), narrow).state_dict()
    config = FAST.model_copy(update={"learning_rate": 1e-9})
    further = Trainer(narrow, replace(DATA, name="again"), config, start=start)
    next(further.epochs())
    for name, tensor in further.best_model().named_parameters():
        torch.testing.assert_close(tensor, start[name], rtol=0, atol=1e-6)
