"""The benchmark on a loss by formula: results that are kept, and figures computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import analytic
from benchmarks.analytic import Search, judged, latency_ms, loss, points_of
from search_spaces.references import MODIFIED, ORIGINAL


def test_the_formulas_are_those_of_the_committed_results() -> None:
    assert loss(ORIGINAL) == pytest.approx(0.366966, abs=1e-6)
    assert loss(MODIFIED) == pytest.approx(0.359406, abs=1e-6)
    assert latency_ms(ORIGINAL) == pytest.approx(11.0189, abs=1e-3)
    assert latency_ms(MODIFIED) == pytest.approx(75.5329, abs=1e-3)


def test_a_search_with_a_result_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--samplers", "random", "--seeds", "2", "--trials", "3", "--processes", "1"]
    asked += ["--out", str(tmp_path)]
    analytic.main(asked)
    first = capsys.readouterr().out
    assert first.count("/2: ") == 2
    assert first.splitlines()[-1].startswith("| random | 2 | ")
    analytic.main(asked)
    assert capsys.readouterr().out == "\n".join(first.splitlines()[2:]) + "\n"
    points = points_of(Search("random", 0, 3).file(tmp_path))
    assert points.shape == (3, 3)
    assert (points[:, 0] < 1).all()  # without the noise that the search observed
    assert (points[:, 1] > np.log(1e4)).all()


def test_searches_are_judged_by_the_volume_of_all_together() -> None:
    # The joint front is (0, 2), (1, 1), (2, 0), and the reference point (2.2, 2.2): its volume is
    # 1 x 0.2 + 1 x 1.2 + 0.2 x 2.2 = 1.84. Up to a loss of 1.1 it is 1 x 0.2 + 0.1 x 1.2.
    one, other = Search("a", 0, 2), Search("b", 0, 2)
    points = {one: np.array([[0.0, 2.0], [1.0, 1.0]]), other: np.array([[2.0, 0.0], [3.0, 3.0]])}
    found = judged(points)
    assert found[one] == pytest.approx((1 - 1.64 / 1.84, 0, 0))
    assert found[other] == pytest.approx((1 - 0.44 / 1.84, 1, 2))
