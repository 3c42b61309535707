"""Copies without a kind of operation: only the modules of that kind change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from profiling.ablation import Ablation, Ready
from profiling.allocator import allocator_state
from profiling.complexity import complexity
from profiling.errors import ProfilingError
from profiling.fresh_process import FreshProcess
from profiling.kinds import KindGroup


class Join(nn.Module):
    """Joins two feature maps."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.cat((first, second), 1)


class Dense(nn.Module):
    """One dense layer, then a pool and a linear layer: every kind of operation once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.activation = nn.ELU(inplace=True)
        self.pointwise = nn.Conv2d(4, 2, 1)
        self.depthwise = nn.Conv2d(2, 2, 3, padding=1, groups=2)
        self.join = Join()
        self.pool = nn.MaxPool2d(2)
        self.flat = nn.Flatten()
        self.head = nn.Linear(6 * 4 * 4, 5)

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        new = self.depthwise(self.pointwise(self.activation(self.norm(features))))
        found: Tensor = self.head(self.flat(self.pool(self.join(features, new))))
        return found


IMAGES = torch.zeros(2, 3, 8, 8)
PATHS: dict[KindGroup, str] = {
    "convolution": "stem",
    "batch_norm": "norm",
    "activation": "activation",
    "pointwise": "pointwise",
    "depthwise": "depthwise",
    "concatenation": "join",
    "resampling": "pool",
    "linear": "head",
}


@pytest.fixture(scope="module")
def ablation() -> Ablation:
    return Ablation(Dense().eval(), IMAGES)


@pytest.mark.parametrize(("kind", "path"), PATHS.items())
def test_exactly_the_modules_of_a_kind_go(ablation: Ablation, kind: KindGroup, path: str) -> None:
    copy = ablation.without(kind)
    intact = dict(ablation.without().named_children())
    changed = [
        name for name, module in copy.named_children() if type(module) is not type(intact[name])
    ]
    assert changed == [path]


@pytest.mark.parametrize("kind", PATHS)
def test_a_copy_launches_what_is_left_and_keeps_the_shape(
    ablation: Ablation, kind: KindGroup
) -> None:
    copy = ablation.without(kind)
    assert copy(IMAGES).shape == (2, 5)
    left = complexity(copy, IMAGES)
    assert left.launches == 7
    assert left.macs == ablation.counts.macs - ablation.counts.macs_of.get(kind, 0)


def test_nothing_is_launched_when_all_is_taken_away(ablation: Ablation) -> None:
    assert complexity(ablation.without(*PATHS), IMAGES).launches == 0


def test_counts_by_kind(ablation: Ablation) -> None:
    counts = ablation.counts
    # Per image: 64 pixels x (4 x 27, 2 x 4, 2 x 9) and 96 x 5.
    expected = {"convolution": 13824, "pointwise": 1024, "depthwise": 2304, "linear": 960}
    assert {kind: macs for kind, macs in counts.macs_of.items() if macs} == expected
    assert counts.macs == sum(expected.values())
    assert counts.launches_of == {**dict.fromkeys(PATHS, 1), "other": 0}
    assert counts.calls == 10  # nine children and the model itself
    # The pool reads 2 x 6 x 8 x 8 and writes 2 x 6 x 4 x 4 numbers, and as many 8-byte indices.
    assert counts.bytes_of["resampling"] == 4 * 768 + (4 + 8) * 192


def test_batch_norm_and_activation_pass_their_input_through(ablation: Ablation) -> None:
    copy = ablation.without("batch_norm", "activation")
    assert isinstance(copy.norm, nn.Identity)
    assert isinstance(copy.activation, nn.Identity)
    assert isinstance(ablation.without("pointwise").pointwise, Ready)


def test_the_model_stays_as_it_was_and_shares_its_tensors() -> None:
    model = Dense().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = Ablation(model, IMAGES).without("pointwise")
    with torch.inference_mode():
        copy(IMAGES)
    assert model.training
    assert isinstance(model.pointwise, nn.Conv2d)
    assert dict(copy.named_parameters())["stem.weight"] is model.stem.weight
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_ready_tensors_hold_real_values() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    images = torch.rand(1, 3, 2, 2)
    copy = Ablation(model, images).without("pointwise")
    with torch.no_grad():
        largest = model[0](images)
    assert torch.equal(copy(images), largest.flatten()[:8].view(1, 2, 2, 2))


def test_a_model_that_is_one_module_can_be_taken_away_whole() -> None:
    copy = Ablation(nn.Linear(3, 2), torch.zeros(4, 3)).without("linear")
    assert copy(torch.zeros(4, 3)).shape == (4, 2)
    assert complexity(copy, torch.zeros(4, 3)).launches == 0


def test_a_shared_module_is_refused_with_its_path() -> None:
    pool = nn.MaxPool2d(2)
    ablation = Ablation(nn.Sequential(pool, nn.Conv2d(3, 3, 1), pool), IMAGES)
    with pytest.raises(ProfilingError, match=r"0 \(MaxPool2d\) is called 2 times"):
        ablation.without("resampling")


def test_the_random_state_stays_as_it_was(ablation: Ablation) -> None:
    state = torch.get_rng_state()
    Ablation(Dense(), IMAGES).without("linear")
    assert not torch.equal(state, torch.get_rng_state())  # building the model draws from it
    state = torch.get_rng_state()
    ablation.without("linear")
    assert torch.equal(state, torch.get_rng_state())


class Actor:
    """Lives in the fresh process."""

    def __init__(self, start: int) -> None:
        self.total = start

    def add(self, number: int) -> int:
        self.total += number
        return self.total

    def allocator(self) -> str:
        return allocator_state()

    def count(self, *, progress: Callable[[int, int], None]) -> str:
        for done in (1, 2):
            progress(done, 2)
        return "counted"

    def fail(self) -> None:
        raise ProfilingError("width: 0 is too small")

    def die(self) -> None:
        os._exit(1)


@pytest.fixture(scope="module")
def process() -> Iterator[FreshProcess]:
    with FreshProcess(Actor, 10, tuned=True) as running:
        yield running


@pytest.mark.slow
def test_an_object_lives_on_between_calls(process: FreshProcess) -> None:
    assert [process.call("add", 1), process.call("add", 2)] == [11, 13]


@pytest.mark.slow
def test_the_allocator_is_tuned_there_and_only_there(process: FreshProcess) -> None:
    before = allocator_state()
    there = process.call("allocator")
    assert there == "tuned" or before == "preloaded" or not hasattr(os, "confstr")
    assert allocator_state() == before


@pytest.mark.slow
def test_progress_comes_back(process: FreshProcess) -> None:
    seen: list[tuple[int, int]] = []
    result = process.call("count", progress=lambda done, total: seen.append((done, total)))
    assert (result, seen) == ("counted", [(1, 2), (2, 2)])


@pytest.mark.slow
def test_an_error_comes_back_and_the_process_lives_on(process: FreshProcess) -> None:
    with pytest.raises(ProfilingError, match="width: 0 is too small"):
        process.call("fail")
    assert process.call("add", 0) >= 10


@pytest.mark.slow
def test_a_process_that_dies_is_reported_in_one_line() -> None:
    with (
        FreshProcess(Actor, 0) as dying,
        pytest.raises(ProfilingError, match="ended unexpectedly") as told,
    ):
        dying.call("die")
    assert "\n" not in str(told.value)
