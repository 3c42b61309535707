"""Which remembered speeds of the reference are believed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from profiling.quiet import REMEMBERED_S, QuietSpeed

HOUR = 3600.0


def test_a_speed_of_the_future_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "speeds.json", time.time()
    path.write_text(json.dumps([(now - HOUR, 3.0), (now + HOUR, 1.0), (now - REMEMBERED_S, 2.0)]))
    assert QuietSpeed(path).best_ms == 3.0
    QuietSpeed(path).note([2.5] * 9)
    assert [speed for _, speed in json.loads(path.read_text())] == [3.0, 2.5]
    monkeypatch.setattr(time, "time", lambda: now - 2 * HOUR)  # the clock is set back
    assert QuietSpeed(path).best_ms == float("inf")


@pytest.mark.parametrize(
    "text",
    ["[[NOW, -1]]", "[[NOW, 0]]", "[[NOW, NaN]]", "[[NOW, 1e999]]", "[[NOW, true, 2]]", "[1, 2]",
     "[[NOW, %s]]" % ("9" * 400), "[" * 9999, '{"a": 1}', "null", '[["x", "y"]]'],
)  # fmt: skip
def test_impossible_speeds_count_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "speeds.json"
    path.write_text(text.replace("NOW", str(time.time())))
    assert QuietSpeed(path).best_ms == float("inf")
    QuietSpeed(path).note([4.0] * 9)
    assert QuietSpeed(path).best_ms == 4.0
