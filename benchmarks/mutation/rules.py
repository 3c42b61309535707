"""Break single rules, each by one change by hand, and name the test that notices it.

    nice -n 10 python -m benchmarks.mutation.rules --out benchmarks/results/mutation/rules.csv

These are rules under a study's headline that `benchmarks.mutation` may not draw.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from benchmarks.mutation.__main__ import test_files
from benchmarks.mutation.sandbox import Sandbox

_COMPARISON = "studies/record/comparison.py"
_WORDS = "studies/report/words.py"
_FORMATS = "studies/record/formats.py"
_LEARNING = "studies/record/learning.py"
_WORDS_TESTS = [
    "tests/test_report.py::test_the_batch_of_the_latency_is_a_fact",
    "tests/test_report.py::test_the_front_shows_intervals_and_metrics_with_their_digits",
    "tests/test_report.py::test_factors_are_coloured_by_their_direction_and_size",
    "tests/test_report.py::test_tints_change_at_factors_of_1_2_and_3",
]
_STOPPING = "nas/search/early_stopping.py"


class Change(NamedTuple):
    """One rule broken: `old`, which stands once in `module`, becomes `new`."""

    module: str
    rule: str
    old: str
    new: str


CHANGES = (
    Change(
        "nas/objectives.py",
        "a dominates b where it is better in any objective",
        "no_worse and any(",
        "any(",
    ),
    Change(
        "nas/objectives.py",
        "a dominates an equal b",
        " and any(ours < theirs for ours, theirs in pairs)",
        "",
    ),
    Change(
        "nas/objectives.py",
        "macs and flops are accepted together",
        '("macs", "flops"):',
        '("macs", "none"):',
    ),
    Change(
        "nas/objectives.py",
        "latency_ms and predicted_latency_ms are accepted together",
        '(LATENCY, "predicted_latency_ms"):',
        '(LATENCY, "none"):',
    ),
    Change(
        _COMPARISON,
        'certain without "no worse anywhere"',
        "min(verdicts.values()) >= 0 and max(",
        "max(",
    ),
    Change(_COMPARISON, "certain: min of the verdicts becomes max", "min(verdicts", "max(verdicts"),
    Change(
        _COMPARISON,
        "dominates by the recorded values alone",
        "certain and dominates(ours, theirs, names)",
        "dominates(ours, theirs, names)",
    ),
    Change(
        _COMPARISON,
        "dominates by the verdicts alone",
        "certain and dominates(ours, theirs, names)",
        "certain",
    ),
    Change(
        _COMPARISON,
        "a contended reference is overlooked",
        "(trial.contended or reference.contended)",
        "trial.contended",
    ),
    Change(
        _COMPARISON,
        "a contended trial is overlooked",
        "(trial.contended or reference.contended)",
        "reference.contended",
    ),
    Change(_COMPARISON, "equal values are called tied", " and self.gain(name) != equal", ""),
    Change(
        "profiling/intervals.py",
        "expanded percentile: 0.025 in its place",
        "(tail, 1 - tail)",
        "(0.025, 0.975)",
    ),
    Change(
        "profiling/intervals.py",
        "expanded percentile: without sqrt(n / (n - 1))",
        "-math.sqrt(count / (count - 1)) * stdtrit",
        "-stdtrit",
    ),
    Change(
        _STOPPING,
        "at a rung: best loss so far becomes the last",
        "min(curve.losses[:rung])",
        "curve.losses[rung - 1]",
    ),
    Change(
        _STOPPING,
        "cost region by the first cost only",
        "np.abs(points[:, :-1] - points[place, :-1]).max(axis=1)",
        "np.abs(points[:, 0] - points[place, 0])",
    ),
    Change(
        _STOPPING,
        "extrapolation: steeper of the last two steps becomes the gentler",
        "falls.max()",
        "falls.min()",
    ),
    Change(
        _STOPPING,
        "extrapolation: the candidate's best loss becomes its last",
        "losses.min()",
        "losses[-1]",
    ),
    Change(
        _STOPPING,
        "extrapolation: the rival's best loss becomes its last",
        "min(other.losses)",
        "other.losses[-1]",
    ),
    Change(
        "studies/run/limits.py",
        "the run of rejections is never cleared",
        "self._rejected.clear()",
        "pass",
    ),
    Change(
        "studies/run/limits.py",
        "references clear the run of rejections",
        "elif trial.searched:",
        "else:",
    ),
    Change(_WORDS, "row of the batch: its key is misspelt", 'get("batch")', 'get("batches")'),
    Change(
        _WORDS,
        "the colour of a factor is inverted",
        "'better' if verdict > 0",
        "'better' if verdict < 0",
    ),
    Change(
        _WORDS,
        "a factor of 3 has the middle tint",
        "2 if size < 3 else 3",
        "2 if size <= 3 else 3",
    ),
    Change(
        _WORDS,
        "intervals are dropped",
        '"interval": _interval(objective, trial)',
        '"interval": ""',
    ),
    Change(_FORMATS, "PSNR gets four digits", "2 if 'psnr' in name", "4 if 'psnr' in name"),
    Change(_FORMATS, "metrics are shown as dashes", "MISSING if value is None else", "MISSING or"),
    Change(
        _LEARNING, "a loss equal to the mean image's is enough", "loss >= (mean", "loss > (mean"
    ),
    Change(_LEARNING, "the reconstructions may be equal", "< LEAST_VARIATION", "< 0"),
    Change(_LEARNING, "the latent may be empty", "< LEAST_KL:", "< 0:"),
    Change("nas/floors.py", "reconstructions are not clipped", "flat.clamp(0, 1)", "flat"),
    Change(
        "nas/floors.py", "the size of PCA that cannot be fitted", "len(fitted) - 1", "len(fitted)"
    ),
    Change(
        "nas/losses.py",
        "PSNR per pixel",
        ".square().flatten(1).mean(dim=1)",
        ".square()",
    ),
    Change(
        "nas/losses.py",
        "PSNR per batch",
        ".square().flatten(1).mean(dim=1)",
        ".square().mean()",
    ),
    Change(
        "profiling/complexity.py",
        "leaf modules that launch nothing lose their row",
        "if tally.launches or not any(tally.module.children())",
        "if tally.launches",
    ),
    Change(
        "profiling/complexity.py",
        "the output shape is that of the last call",
        "tally.output_shape or _first_shape(output)",
        "_first_shape(output)",
    ),
    Change(
        "profiling/complexity.py",
        "the input shape is that of the last call",
        "            tally.calls += 1",
        "            tally.calls += 1\n            tally.input_shape = _first_shape(args)",
    ),
    Change(
        "search_spaces/enumeration.py",
        "nth takes a number below zero",
        "not 0 <= index < self.size",
        "not index < self.size",
    ),
    Change(
        "search_spaces/enumeration.py",
        "nth takes the number behind the last",
        "not 0 <= index < self.size",
        "not 0 <= index <= self.size",
    ),
    Change(
        "search_spaces/enumeration.py",
        "nth: a count is added instead of taken off",
        "index -= before[place]",
        "index += before[place]",
    ),
    Change(
        "search_spaces/configurations.py",
        "a wrong choice counts as one",
        "                    return -1",
        "                    return 1",
    ),
)


def outcomes() -> Iterator[tuple[str, str, str, str]]:
    """Make every change in turn; yield its module and rule, the outcome and the failed test."""
    for module, changes in groupby(CHANGES, key=lambda change: change.module):
        source = Path(module).read_text()
        tests = _WORDS_TESTS if module == _WORDS else test_files(module)
        with Sandbox(module, tests) as sandbox:
            for change in changes:
                changed = source.replace(change.old, change.new)
                yield module, change.rule, *sandbox.outcome(changed)


def main() -> None:
    """Write a row for every change, and print it."""
    parser = argparse.ArgumentParser(description="Which test notices that a rule is broken.")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    with parser.parse_args().out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("module", "rule", "outcome", "killed_by"))
        for row in outcomes():
            table.writerow(row)
            file.flush()
            print(*row, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
