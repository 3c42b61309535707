"""What a command prints on terminals of several widths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

WIDTHS = (40, 60, 80, 120)
_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?(?:%|x| %| [mu]?s\b| [kMGT]?B\b| [kMGT]\b)?")


def whole_at_every_width(
    show: Callable[[], object], capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
) -> None:
    """Check that every number of a wide terminal appears on narrow ones, with its unit.

    Where columns are left out, a line must say so.
    """
    capsys.readouterr()
    wide = _shown(show, 200, capsys, patch)
    assert sum(wide.values()) > 3, "there are numbers to compare"
    for width in WIDTHS:
        narrow = _shown(show, width, capsys, patch)
        assert not wide - narrow or narrow["… left out at this width: "], (width, wide - narrow)


def _shown(
    show: Callable[[], object],
    width: int,
    capsys: pytest.CaptureFixture[str],
    patch: pytest.MonkeyPatch,
) -> Counter[str]:
    patch.setenv("COLUMNS", str(width))
    show()
    text = capsys.readouterr().out
    return Counter([*_NUMBER.findall(text), *re.findall("… left out at this width: ", text)])
