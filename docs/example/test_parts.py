"""The parts meet the contracts of vae-nas."""

from __future__ import annotations

import pytest

from nas import testing


@pytest.mark.parametrize("name", ["convolutions", "cpu_ms", "sharpness"])
def test_objectives(name: str) -> None:
    testing.check_objective(f"vae_extras.metrics:{name}")


def test_the_loss() -> None:
    testing.check_loss("vae_extras.losses:charbonnier")


def test_the_recipe() -> None:
    testing.check_recipe("vae_extras.recipes:momentum")


def test_the_block() -> None:
    testing.check_block("vae_extras.blocks:Residual")


def test_the_data_set() -> None:
    assert len(testing.check_dataset("vae_extras.data:stripes")) == 60
