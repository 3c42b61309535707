"""Two models in one set-up, one model in two, and the operations that run in each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.explain.explanation import Estimate
from nas.explain.in_setups import Compared, Comparison, ToCompare, compare_in_setups
from nas.setups import SetUp
from nas.timed_models import TimedImages
from nas.vae import build_vae
from profiling.environment import fingerprint
from profiling.executed import executed
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL
from studies.profiles.setups_page import (
    EAGER_ONLY,
    notes,
    operation_rows,
    time_rows,
    verdict,
    write_comparison,
)
from tests.helpers.command import nas

CPU = torch.device("cpu")
SMALL = ORIGINAL.resized(16)
QUICK = {
    "min_rounds": 2, "max_rounds": 2, "attempts": 1, "warmup_window": 1, "max_warmup": 2,
    "priming_ms": 0, "min_sample_ms": 0,
}  # fmt: skip


# The operations that run


class Pointwise(nn.Module):
    """A convolution, a BatchNorm and an ELU."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layers(x)
        return found


@pytest.mark.parametrize(
    ("backend", "counts", "words"),
    [
        ("eager", {"convolution": 1, "batch_norm": 1, "activation": 1}, ""),
        ("bn_folded", {"convolution": 1, "activation": 1}, "1 x BatchNorm folded"),
        ("compile", None, ""),
    ],
)
def test_operations_of_torch_are_counted(backend: str, counts: Any, words: str) -> None:
    found = executed(backend, Pointwise().eval(), (torch.rand(1, 3, 8, 8),))
    assert found == (counts, words)


@pytest.mark.slow
def test_operations_of_runtimes_are_counted() -> None:
    for package in ("onnxruntime", "onnxscript", "openvino"):
        pytest.importorskip(package)
    model, args = Pointwise().eval(), (torch.rand(1, 3, 8, 8),)
    there, words = executed("onnxruntime", model, args)
    # The BatchNorm is folded, and the layout changes before and after the convolution.
    assert there is not None
    assert (there["convolution"], there["activation"], "batch_norm" in there) == (1, 1, False)
    assert words == ""
    fused, _ = executed("openvino", model, args)
    assert fused is not None
    assert (fused["convolution"], "activation" in fused, "batch_norm" in fused) == (1, False, False)
    assert executed("openvino", model, args, "int8") == (None, "")


# A comparison


def estimate(value: float, spread: float = 0.1) -> Estimate:
    return Estimate(value=value, low=value - spread, high=value + spread)


def compared(
    name: str, setup: str, ms: float, over: float, counts: dict[str, int] | None, rewrites: str = ""
) -> Compared:
    return Compared(
        name=name, setup=setup, ms=estimate(ms), over=estimate(over), executed=counts,
        rewrites=rewrites,
    )  # fmt: skip


ACROSS = Comparison(
    batch=1,
    first=compared("original", "eager", 8.0, 1.0, {"convolution": 9, "batch_norm": 8}),
    second=compared("original", "rewritten", 4.0, 0.5, {"convolution": 9}, "8 x BatchNorm folded"),
    rounds=12,
    contention=(),
    environment=fingerprint("cpu"),
    fed="16 images",
)
WITHIN = ACROSS.model_copy(
    update={
        "first": compared("original", "openvino", 4.0, 1.0, None),
        "second": compared("modified", "openvino", 4.2, 1.05, None),
        "contention": ("the twin differs",),
    }
)


def test_one_model_in_two_set_ups_in_words() -> None:
    assert verdict(ACROSS) == (
        "`rewritten` as `original` at batch 1 is 2.00x faster than `eager` (4.00 ms against "
        "8.00 ms)."
    )
    assert time_rows(ACROSS) == [
        ("original", "eager", "8.00 ms", "7.90 ms to 8.10 ms", ""),
        ("original", "rewritten", "4.00 ms", "3.90 ms to 4.10 ms", "0.50x (0.40x to 0.60x)"),
    ]
    assert operation_rows(ACROSS) == [
        ("convolutions", "9", "9"),
        ("BatchNorm", "8", "0"),
        ("all operations", "17", "9"),
    ]
    assert notes(ACROSS) == ["rewritten: 8 x BatchNorm folded.", EAGER_ONLY]


def test_two_models_in_one_set_up_in_words() -> None:
    assert verdict(WITHIN) == (
        "`modified` in openvino at batch 1 cannot be distinguished from `original` (4.20 ms "
        "against 4.00 ms)."
    )
    assert operation_rows(WITHIN) == []
    assert notes(WITHIN) == ["The machine was busy (the twin differs).", EAGER_ONLY]
    half = WITHIN.model_copy(
        update={"first": ACROSS.first.model_copy(update={"setup": "openvino"})}
    )
    assert operation_rows(half)[0] == ("convolutions", "9", "?")


def test_the_page_has_the_tables_and_trusts_no_name(tmp_path: Path) -> None:
    evil = ACROSS.model_copy(
        update={"first": ACROSS.first.model_copy(update={"name": "<script>x"})}
    )
    path = write_comparison([evil, WITHIN], tmp_path / "explain.html")
    text = path.read_text(encoding="utf-8")
    assert "<script>x" not in text
    for words in ("Operations that run in one pass", "8 x BatchNorm folded", "0.40x to 0.60x"):
        assert words in text
    assert EAGER_ONLY in text


@pytest.mark.slow
def test_one_model_is_timed_in_two_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    setup = SetUp.model_validate({**QUICK, "part": "encoder"})
    other = setup.model_copy(update={"backend": "bn_folded"})
    pair = ToCompare("original", SMALL, setup), ToCompare("original", SMALL, other)
    found = compare_in_setups(*pair, CPU, TimedImages.noise(16))
    assert (found.first.setup, found.second.setup) == ("encoder", "bn_folded, encoder")
    assert found.second.over.value > 0
    assert found.first.executed is not None
    assert found.second.executed is not None
    norms = sum(isinstance(one, nn.BatchNorm2d) for one in build_vae(SMALL).encoder.modules())
    assert found.first.executed["batch_norm"] == norms
    assert "batch_norm" not in found.second.executed
    assert found.second.rewrites.startswith(f"{norms} x BatchNorm folded")


def test_models_of_different_images_are_refused() -> None:
    one = ToCompare("original", SMALL, SetUp(part="decoder"))
    other = replace(one, name="modified", architecture=MODIFIED.resized(32))
    with pytest.raises(UserError, match="original and modified take images of different shapes"):
        compare_in_setups(one, other, CPU, TimedImages.noise(16))


# The command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("original@32",), "explain: name a second model, or compare one in two backends with --a"),
        (("original@32", "modified@32", "--against", "eager"), "explain: name a second model, or"),
        (("original@32", "--against", "onxruntime"), "--backend onxruntime: backend: 'onxruntime'"),
        (
            ("original@32", "modified@32", "--part", "hed"),
            "--part hed: part: 'hed' is not one of f",
        ),
        (("original@32", "--target", "pi", "--against", "eager"), "leave --target out"),
        (("original@32", "modified@32", "--target", "pi"), "--target: target 'pi' is not known"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("NAS_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    assert nas("profile", "explain", *arguments) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_numbers_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[ToCompare, ToCompare]] = []

    def compare(one: ToCompare, other: ToCompare, *_: Any) -> Comparison:
        asked.append((one, other))
        return ACROSS.model_copy(update={"batch": one.setup.batch})

    monkeypatch.setattr("nas.explain.in_setups.compare_in_setups", compare)
    arguments = ("original@32", "--against", "rewritten", "--batch", "1,4", "--threads", "2")
    assert nas("profile", "explain", *arguments, "-o", str(tmp_path / "out")) == 0
    setups = [(one.setup.backend, other.setup.backend) for one, other in asked]
    assert setups == [("eager", "rewritten")] * 2
    assert [(one.setup.batch, one.setup.threads) for one, _ in asked] == [(1, 2), (4, 2)]
    stored = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert [one["batch"] for one in stored] == [1, 4]
    assert (tmp_path / "out" / "explain.html").is_file()
    printed = capsys.readouterr().out
    assert "rewritten as original at batch 4 is 2.00x faster than eager" in printed
    assert "operations in one pass" in printed
