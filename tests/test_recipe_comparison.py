"""The comparison of recipes: its plan, and the recipes that `nas` does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.recipes.jobs import CHOICE, HELD_OUT, Job, architecture, plan
from benchmarks.recipes.summary import DEFAULT, summary
from benchmarks.recipes.variants import EMA_DECAY, VARIANTS, AdamVariant
from nas.recipes import RECIPES
from nas.vae import build_vae
from search_spaces.references import ORIGINAL

SMALL = ORIGINAL.resized(16)


def test_each_training_of_the_plan_is_made_once_with_a_file_of_its_own() -> None:
    jobs = list(plan())
    assert len(set(jobs)) == len(jobs) == len({job.file(Path("a")) for job in jobs})
    assert {job.variant for job in jobs} == set(VARIANTS)


def test_members_are_the_same_at_each_size_and_half_are_held_out() -> None:
    small, large = (architecture(Job(size, "faces", "3", DEFAULT)) for size in (64, 144))
    assert small.resized(144) == large
    members = {job for job in plan() if job.model.isdecimal()}
    assert len({job.model for job in members if job.held_out}) == HELD_OUT
    assert len({job.model for job in members if not job.held_out}) == CHOICE


def test_the_default_recipe_is_one_of_the_compared() -> None:
    assert VARIANTS[DEFAULT].learning_rate == RECIPES["schedule_free"].learning_rate


def test_an_average_of_weights_is_evaluated_and_the_last_step_is_trained() -> None:
    model = build_vae(SMALL, seed=0)
    weight = model.encoder.mean.weight
    optimiser, average = AdamVariant(model, 1e-2, average=True), weight.detach().clone()
    optimiser.begin()
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
        average = EMA_DECAY * average + (1 - EMA_DECAY) * weight.detach()
    latest = weight.detach().clone()
    optimiser.end()
    torch.testing.assert_close(weight.detach(), average)
    optimiser.begin()
    assert torch.equal(weight.detach(), latest)


def test_a_cosine_starts_with_a_warm_up_and_ends_at_nothing() -> None:
    model = build_vae(SMALL, seed=0)
    bias, changes = dict(model.named_parameters())["decoder.output.convolution.bias"], []
    optimiser = AdamVariant(model, 1e-2, steps=40)
    for _ in range(40):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = bias.detach().clone()
        optimiser.step()
        changes.append((before - bias.detach()).abs().max().item())
    assert changes[0] == pytest.approx(1e-2 / 16, rel=1e-3)
    assert max(changes) == pytest.approx(1e-2, rel=1e-3)
    assert changes[-1] < 1e-4


def test_the_summary_gives_regrets_computed_by_hand(tmp_path: Path) -> None:
    path, variants = tmp_path / "t.csv", ["adam 1e-3", DEFAULT]
    head = "size,images,model,variant,seed,diverged,processor_s," + ",".join(
        f"total_{number}" for number in range(1, 7)
    )
    rows = [
        f"64,faces,{model},{variant},0,False,1.0,9,9,{loss + 0.1},9,9,{loss}"
        for model, losses in {"original": (0.5, 0.4), "0": (0.4, 0.44)}.items()
        for variant, loss in zip(variants, losses, strict=True)
    ]
    path.write_text("\n".join([head, *rows]))
    lines = {line.split("  ")[0]: line.split() for line in summary(path).splitlines()}
    # Regrets: today's 0.5 / 0.4 - 1 = 25 % and 0; the default's 0 and 0.44 / 0.4 - 1 = 10 %.
    assert lines["adam 1e-3"][2:6] == ["0.450", "0.000", "0.125", "0.250"]
    assert lines[DEFAULT][2:6] == ["0.420", "-0.050", "0.050", "0.100"]
