"""Other frameworks in a search comparison; a framework that is not installed is skipped."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import peers
from benchmarks.peers import PEERS
from studies.bench.contenders import CONTENDERS
from studies.bench.runs import PlannedSearch, run_all
from studies.bench.simulation import simulate
from tests.helpers.made_table import made_table

NEEDS = {"syne-tune-moasha": "syne_tune", "neps-moasha": "neps"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEEDS)
def test_peer_searches_and_stops_early(name: str) -> None:
    pytest.importorskip(NEEDS[name], exc_type=ImportError)
    searches: list[Any] = []
    for _ in range(2):
        asker: Any = PEERS[name].asker(made_table(), 0)
        searches.append(simulate(made_table(), asker, 8, workers=2, stopping=asker))
    first, again = searches
    assert len(first.events) == 8 * 9
    assert first.distinct + first.duplicates > 8
    assert 0 <= first.events[-1].quality.regret < 1
    assert again.events == first.events


def test_every_peer_has_a_test() -> None:
    assert NEEDS.keys() == PEERS.keys()


def test_a_peer_that_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "syne_tune", None)
    with pytest.raises(SystemExit) as caught:
        peers.main(["syne-tune-moasha", "--out", str(tmp_path)])
    assert caught.value.code == 2
    assert "pip install syne-tune" in capsys.readouterr().err


def test_peers_join_the_comparison_of_our_samplers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(peers.PEERS, "neps-moasha", replace(CONTENDERS["random"], family="peer"))
    monkeypatch.setattr("studies.bench.write.write_figures", lambda figures, folder: [])
    run_all([PlannedSearch("vae", "qmc", seed, 3, 2) for seed in (0, 1)], tmp_path)
    asked = ["neps-moasha", "--seeds", "2", "--trials", "3", "--workers", "2"]
    assert peers.main([*asked, "--out", str(tmp_path)]) == 0
    assert "neps-moasha" in capsys.readouterr().out
    summary = pd.read_csv(tmp_path / "vae-summary.csv")
    assert dict(zip(summary["sampler"], summary["seeds"], strict=True)) == {
        "qmc": 2, "neps-moasha": 2,
    }  # fmt: skip
