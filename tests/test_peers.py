"""Other frameworks in a search comparison; a framework that is not installed is skipped."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers.__main__ import PEERS
from studies.bench.contenders import CONTENDERS
from studies.bench.runs import PlannedSearch, run_all
from studies.bench.simulation import simulate
from tests.helpers.made_table import made_table

STOPPING = {"syne-tune-moasha": "syne_tune", "neps-moasha": "neps"}
FULL = {"pymoo-sms-emoa": "pymoo", "pymoo-nsga2": "pymoo", "botorch-nehvi": "botorch"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STOPPING)
def test_peer_searches_and_stops_early(name: str) -> None:
    pytest.importorskip(STOPPING[name], exc_type=ImportError)
    searches: list[Any] = []
    for _ in range(2):
        asker: Any = PEERS[name].asker(made_table(), 0)
        searches.append(simulate(made_table(), asker, 8, workers=2, stopping=asker))
    first, again = searches
    assert len(first.events) == 8 * 9
    assert first.distinct + first.duplicates > 8
    assert 0 <= first.events[-1].quality.regret < 1
    assert again.events == first.events


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FULL)
def test_peer_searches_by_full_trainings(name: str) -> None:
    pytest.importorskip(FULL[name], exc_type=ImportError)
    first, again = (
        simulate(made_table(), PEERS[name].asker(made_table(), 0), 20, workers=3) for _ in range(2)
    )
    assert first.distinct > 8
    assert 0 <= first.events[-1].quality.regret < 1
    assert again.events == first.events


def test_every_peer_has_a_test() -> None:
    assert {*STOPPING, *FULL} == PEERS.keys()


def test_a_peer_that_stops_early_needs_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        peers.main(["syne-tune-moasha", "--table", "nb201", "--out", str(tmp_path)])
    assert caught.value.code == 2
    assert "table nb201 has one epoch" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [one for one in sys.modules if one.startswith("syne_tune")]:
        monkeypatch.delitem(sys.modules, module)
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
    summary = pd.read_csv(tmp_path / "vae-3x2-summary.csv")
    assert dict(zip(summary["sampler"], summary["seeds"], strict=True)) == {
        "qmc": 2, "neps-moasha": 2,
    }  # fmt: skip
