"""Blocks of the user's own: built, counted, trained, refused, recorded, found by workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas import testing
from nas.checkpoint import load_vae, save_weights
from nas.compress.narrowing import require_narrowing
from nas.evaluate import Evaluator, static_costs
from nas.findings import CandidateFailed
from nas.own.imports import PartFailed, imported, source_digest
from nas.predict.operations import exact_costs, operations
from nas.protocol import TrainingConfig
from nas.setups import SetUp
from nas.vae import build_vae
from profiling.complexity import complexity
from search_spaces import Architecture, SearchSpace, UserError
from studies.config.parts import require_parts, sources_of
from studies.config.study import StudyConfig
from studies.run.own import try_parts
from studies.store.store import StudyStore
from tests.fakes.dataset import noise
from tests.fakes.parts import Parts
from tests.fakes.runs import config, run

SOURCE = '''
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, channels, stage, layers):
        super().__init__()
        self.first = layers.operator.build(channels, stage.width)
        self.shortcut = nn.Conv2d(channels, stage.width, 1)

    def forward(self, features):
        return torch.relu(self.first(features)) + self.shortcut(features)


def pointwise(channels, stage, layers):
    return nn.Sequential(*[nn.Conv2d(channels, stage.width, 1)])


def no_module(channels, stage, layers):
    return 3


def raises(channels, stage, layers):
    raise ZeroDivisionError("no luck")


def halves(channels, stage, layers):
    return nn.Conv2d(channels, stage.width, 3, stride=2, padding=1)


def narrow(channels, stage, layers):
    return nn.Identity()


def two_arguments(channels, stage):
    return nn.Identity()


class Wide(nn.Module):
    """Fails where a stage is wide."""

    def __init__(self, channels, stage, layers):
        super().__init__()
        assert stage.width < 8, "too wide"
        self.only = nn.Conv2d(channels, stage.width, 1)

    def forward(self, features):
        return self.only(features)


class Late(Wide):
    def forward(self, features):
        if not features.is_meta:
            raise RuntimeError("only on the meta device")
        return self.only(features)


class Noisy(Wide):
    def forward(self, features):
        return self.only(features) + torch.rand(())


class Unused(Wide):
    def __init__(self, channels, stage, layers):
        super().__init__(channels, stage, layers)
        self.other = nn.Linear(2, 2)


class Forgetful(Wide):
    def __init__(self, channels, stage, layers):
        super().__init__(channels, stage, layers)
        self.register_buffer("scale", torch.ones(()), persistent=False)
'''


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return Parts(tmp_path, monkeypatch, SOURCE)


def described(block: object, up: str = "nearest", down: str = "max") -> Architecture:
    stage: dict[str, Any] = {"block": block, "layers": 2}
    return Architecture.from_dict(
        {
            "image_size": 12,
            "latent_size": 4,
            "encoder": {"stages": [{**stage, "width": w, "downsampling": down} for w in (4, 6)]},
            "decoder": {
                "seed_width": 6,
                "stages": [{**stage, "width": w, "upsampling": up} for w in (6, 4)],
            },
        }
    )


def space(block: object) -> dict[str, Any]:
    fixed = {"image_size": 16, "encoder.depth": 1, "decoder.depth": 1, "decoder.seed_width": 4,
             "decoder.base_width": 4, "encoder.base_width": 4}  # fmt: skip
    return {"name": "mine", "fixed": fixed,
            "axes": {"encoder.block": ["plain", block], "latent_size": [2, 4, 8]}}  # fmt: skip


@pytest.mark.parametrize(
    ("up", "down"), [("nearest", "max"), ("transposed", "strided"), ("pixel_shuffle", "average")]
)
def test_costs_are_exact_for_every_change_of_size(parts: Parts, up: str, down: str) -> None:
    architecture = described(parts("Residual"), up, down)
    model = build_vae(architecture, seed=0)
    counts = complexity(model, torch.zeros(1, 3, 12, 12))
    costs = exact_costs([architecture])
    assert (int(costs["params"][0]), int(costs["macs"][0])) == (counts.params, counts.macs)
    assert static_costs(architecture)["params"] == counts.params
    assert model.reconstruct(torch.zeros(2, 3, 12, 12)).shape == (2, 3, 12, 12)
    assert model.encoder.stages[0](torch.zeros(1, 3, 12, 12)).shape == (1, 4, 6, 6)


def test_a_block_is_a_class_a_function_or_its_name(parts: Parts) -> None:
    named = described(parts("Residual"))
    assert described(imported(parts("Residual"))) == named
    assert Architecture.from_dict(named.to_dict()).digest == named.digest
    assert named.own_blocks == (parts("Residual"),)
    assert isinstance(build_vae(described(parts("pointwise"))), nn.Module)
    given, written = SearchSpace(space(imported(parts("Residual")))), space(parts("Residual"))
    assert given == SearchSpace(written)
    assert given.own_blocks == (parts("Residual"),)
    assert SearchSpace(given.to_dict()) == given
    assert SearchSpace.load("tiny").own_blocks == ()
    with pytest.raises(UserError, match=r"'dens' is not one of plain, dense .did you mean 'dense'"):
        SearchSpace(space("dens"))
    with pytest.raises(UserError, match="block: 'x:' is not one of plain, dense, nor an import"):
        described("x:")


def test_a_trained_model_is_stored_and_resumed(parts: Parts, tmp_path: Path) -> None:
    settings = TrainingConfig.model_validate({"epochs": 2, "batch_size": 8})
    wanted, device = {"reconstruction_loss"}, torch.device("cpu")
    evaluator = Evaluator(noise(30, 12), settings, SetUp(), device, wanted, tmp_path)
    architecture = described(parts("Residual"))
    whole = list(evaluator(architecture))[-1]
    resumed = Evaluator(noise(30, 12), settings, SetUp(), device, wanted, tmp_path / "again")
    for findings in resumed(architecture):
        if findings.history:
            break
    again = list(resumed(architecture))[-1]
    keys = ("epoch", "reconstruction_loss")
    assert [[row[k] for k in keys] for row in again.history] == [
        [row[k] for k in keys] for row in whole.history
    ]
    path = tmp_path / "weights.safetensors"
    save_weights(build_vae(architecture, seed=1), path)
    assert load_vae(path).architecture == architecture
    imported.cache_clear()
    from nas.own.blocks import find_block

    find_block.cache_clear()
    parts.forget()
    with pytest.raises(UserError, match=f"there is no module '{parts.module}'"):
        load_vae(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_module", "returned a int, not a torch.nn.Module"),
        ("raises", "raised ZeroDivisionError: no luck"),
        ("halves", r"returned a tensor of shape \(1, 4, 8, 8\), not of 4 x 16 x 16 for each image"),
        ("narrow", r"returned a tensor of shape \(1, 3, 16, 16\), not of 4 x 16 x 16"),
    ],
)
def test_a_faulty_block_is_refused_before_the_study(parts: Parts, name: str, told: str) -> None:
    asked = config(space=space(parts(name)))
    with pytest.raises(UserError, match=rf"^{parts(name)} {told}.*\(tried in ") as refused:
        try_parts(asked, asked.load_space())
    assert "\n" not in str(refused.value)


def test_what_is_no_block(parts: Parts) -> None:
    for name, told in (
        ("two_arguments", "cannot be called with channels, stage, layers"),
        ("absent", "has no 'absent'"),
    ):
        with pytest.raises(ValueError, match=told):
            config(space=space(parts(name)))


def test_a_block_that_fails_later_fails_one_candidate(parts: Parts, tmp_path: Path) -> None:
    settings = TrainingConfig.model_validate({"epochs": 1, "batch_size": 8})
    device = torch.device("cpu")
    evaluator = Evaluator(noise(30, 12), settings, SetUp(), device, {"total_loss"}, tmp_path)
    with pytest.raises(CandidateFailed, match="Late raised RuntimeError: only on the meta"):
        list(evaluator(described(parts("Late"))))
    stages = [{"block": parts("Wide"), "width": 16}]
    data = described(parts("Wide")).to_dict()
    wide = Architecture.from_dict({**data, "encoder": {"stages": stages}})
    with pytest.raises(PartFailed, match="Wide raised AssertionError: too wide"):
        list(evaluator(wide))
    assert exact_costs([wide])["params"][0] > 1e12, "no sampler prefers it"


def test_what_needs_a_list_of_operations_is_refused(parts: Parts) -> None:
    architecture = described(parts("Residual"))
    with pytest.raises(UserError, match="latency of blocks of your own is not predicted"):
        operations(architecture)
    with pytest.raises(UserError, match="prune: the model has blocks of your own"):
        require_narrowing(architecture, architecture)


def test_a_study_records_its_blocks_and_refuses_another_source(
    parts: Parts, tmp_path: Path
) -> None:
    name, asked = parts("Residual"), config(space=space(parts("Residual")))
    record = run(tmp_path, asked)
    assert record.own == {name: ("block", source_digest(name))}
    assert any(name in trial.architecture.own_blocks for trial in record.trials)
    require_parts(asked, sources_of(asked))
    with pytest.raises(UserError, match=f"{name}: its source is not that of the study"):
        require_parts(asked, {name: "0" * 12})
    stored = StudyConfig.model_validate(asked.to_dict())
    grown = config(space=stored.space, search={"sampler": "pareto", "trials": 6})
    assert run(tmp_path, grown).searched == record.searched
    source_digest.cache_clear()
    parts.path.write_text("# changed\n" + SOURCE)
    with pytest.raises(UserError, match=f"the source of {name} was"):
        run(tmp_path, asked)


def test_a_stored_study_is_read_without_its_blocks(parts: Parts, tmp_path: Path) -> None:
    record = run(tmp_path, config(space=space(parts("Residual"))))
    imported.cache_clear()
    parts.forget()
    again = StudyStore.open(tmp_path, "s").record()
    assert [trial.digest for trial in again.trials] == [trial.digest for trial in record.trials]
    assert again.own == record.own


def test_the_contract_test_accepts_good_blocks(parts: Parts) -> None:
    testing.check_block(parts("Residual"))
    testing.check_block(imported(parts("pointwise")), image_size=16, channels=1)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("halves", "returned a tensor of shape"),
        ("raises", "raised ZeroDivisionError"),
        ("Noisy", "returned another output for equal input"),
        ("Unused", "other.weight does not take part in the output"),
        ("Forgetful", "the buffer .*scale is not stored with the weights"),
    ],
)
def test_the_contract_test_finds_faults(parts: Parts, name: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        testing.check_block(parts(name), image_size=16)
