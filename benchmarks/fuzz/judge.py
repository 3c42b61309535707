"""Run one malformed input and say what is wrong with the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.fuzz.cases import Case
from benchmarks.fuzz.child import Ended, run_nas
from benchmarks.fuzz.scratch import Scratch

LINES = 3
"""Maximum number of lines of a refusal; the faults of one file may have `LINES_OF_LIST`."""
LINES_OF_LIST = 11
LENGTH = 600
"""Maximum number of characters of a line."""

CACHES = ("cache", "home/.cache", "tmp/torchinductor")
"""Caches may keep what was computed before a fault of something else was found."""

LATE_S = 8.0
"""CPU time after which an input that must be refused counts as accepted."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Verdict:
    """What one input led to.

    Attributes:
        faults: What is wrong with the answer; empty if it is as it should be.
        accepted: Whether the command accepted the input.
        errors: The last line that it wrote to standard error.
    """

    faults: tuple[str, ...]
    accepted: bool
    errors: str


def judge(case: Case, scratch: Scratch) -> Verdict:
    """Run a case in the scratch folder, which is as at first before and afterwards."""
    for damage in case.damage:
        damage.inflict(scratch.root)
    before = scratch.snapshot()
    ended = run_nas(case.arguments, scratch.work, scratch.variables)
    if ended.limit == "time" and not case.may_pass:  # it may be refused late
        scratch.restore()
        for damage in case.damage:
            damage.inflict(scratch.root)
        ended = run_nas(case.arguments, scratch.work, scratch.variables, cpu_s=LATE_S)
    after = scratch.snapshot()
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    if changed or case.damage:
        scratch.restore()
    seen = [path for path in changed if not path.startswith(CACHES)]
    faults = tuple(_faults(case, ended, seen))
    return Verdict(faults, ended.code in (0, None), _last_line(ended.errors))


def _faults(case: Case, ended: Ended, changed: list[str]) -> list[str]:
    found = []
    if "Traceback (most recent call last)" in ended.errors:
        found.append("traceback")
    elif ended.limit in ("hangs", "memory"):
        found.append(ended.limit)
    elif ended.code not in (0, 2, None):
        found.append(f"exit code {ended.code}")
    elif ended.code in (0, None) and not case.may_pass:
        found.append("accepted")
    if _CONTROL.search(ended.errors) or _CONTROL.search(ended.output):
        found.append("control characters")
    if ended.code == 2:
        lines = [line for line in ended.errors.splitlines() if line.strip()]
        if not lines:
            found.append("no message")
        if len(lines) > (LINES_OF_LIST if _one_list(lines) else LINES):
            found.append("many lines")
        if any(len(line) > LENGTH for line in lines):
            found.append("long lines")
        if changed:
            found.append("changed files")
    if ended.left:
        found.append("left running")
    return found


def _one_list(lines: list[str]) -> bool:
    """Return whether the lines are the faults of one description, each with its source."""
    sources = {line.split(": ")[1] for line in lines if line.startswith("nas: ")}
    return len({source for source in sources if not source.startswith("and ")}) == 1


def _last_line(text: str) -> str:
    """Return the end of a text without this machine's folders."""
    lines = text.strip().splitlines() or [""]
    return re.sub(r"/\S*/", "", lines[-1])[-300:]
