"""What a prompt and a notebook show of measurements is short, and has the numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from profiling import LatencyConfig, LayerTable, PairedLatency, compare_latency, profile_layers

QUICK = LatencyConfig(min_rounds=2, max_rounds=2, attempts=1, priming_ms=0, min_sample_ms=0)


def network(layers: int) -> nn.Module:
    return nn.Sequential(*[nn.Linear(8, 8) for _ in range(layers)])


@pytest.fixture(scope="module")
def table() -> LayerTable:
    return profile_layers(network(40), torch.zeros(1, 8), QUICK)


@pytest.fixture(scope="module")
def pair() -> PairedLatency:
    return compare_latency(network(2), network(4), torch.zeros(1, 8), QUICK)


@pytest.mark.slow
def test_a_layer_table(table: LayerTable) -> None:
    assert repr(table).startswith("LayerTable(40 layers, ")
    assert f"{table.latency.median_ms:.4g} ms" in repr(table)
    assert len(repr(table)) < 120
    shown = table._repr_html_()
    assert shown.count("<tr") == 21
    assert "and 21 more: see <code>frame()</code>" in shown
    assert len(shown) < 12_000


def test_a_latency(pair: PairedLatency) -> None:
    latency = pair.candidate
    assert repr(latency).startswith(f"Latency('candidate', {latency.median_ms:.4g} ms, 95 % inter")
    assert len(repr(latency)) < 160
    assert f"<td>{latency.median_ms:.4g} ms</td>" in latency._repr_html_()


def test_two_latencies(pair: PairedLatency) -> None:
    assert f"ratio {pair.ratio.median:.4g}, 95 % interval" in repr(pair)
    assert len(repr(pair)) < 200
    shown = pair._repr_html_()
    assert shown.count("<tr>") == 3
    assert f"ratio {pair.ratio.median:.4g}" in shown
