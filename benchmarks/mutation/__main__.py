"""Run the mutation test: apply each mutant to a copy of the tree and run the module's tests.

    nice -n 10 python -m benchmarks.mutation --out benchmarks/results/mutation/after.csv

A fixed sample of each module's mutants is run, one after another. Mutants that the file already
holds are not run again, so the same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.mutation.operators import Mutant, mutants
from benchmarks.mutation.sandbox import Sandbox

TESTS: dict[str, tuple[str, ...]] = {
    "nas/objectives.py": ("objectives", "comparison"),
    "studies/record/comparison.py": ("comparison",),
    "profiling/intervals.py": ("intervals",),
    "nas/search/early_stopping.py": ("early_stopping",),
    "studies/run/limits.py": ("limits",),
    "nas/losses.py": ("losses",),
    "nas/ssim.py": ("ssim",),
    "profiling/complexity.py": ("profiling_complexity",),
    "search_spaces/space.py": ("space",),
    "search_spaces/axes.py": ("axes", "space"),
    "search_spaces/configurations.py": ("axes", "space"),
    "search_spaces/enumeration.py": ("space",),
}
"""Module -> its test files in `tests/`, those most likely to detect a mutant first."""

SAMPLE = 25
COLUMNS = ("module", "function", "line", "mutation", "outcome", "killed_by")


def test_files(module: str) -> list[str]:
    """Return the test files that are the likeliest to notice a fault of `module`."""
    return [f"tests/test_{name}.py" for name in TESTS[module]]


def sample(module: str, size: int) -> list[Mutant]:
    """Draw `size` mutants of a module; an edit of one function does not change the others' draw."""

    def draw(mutant: Mutant) -> str:
        return hashlib.sha256(f"{mutant.function}: {mutant.mutation}".encode()).hexdigest()

    drawn = sorted(mutants(Path(module).read_text()), key=draw)[:size]
    return sorted(drawn, key=lambda mutant: mutant.line)


def tried(out: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of an earlier run."""
    if out.is_file():
        with out.open(newline="") as file:
            yield from csv.DictReader(file)


def run(module: str, tests: Sequence[str], chosen: list[Mutant], out: Path) -> None:
    """Run the mutants of one module and append a row for each to `out`."""
    with Sandbox(module, tests) as sandbox:
        for number, mutant in enumerate(chosen, start=1):
            outcome, killed_by = sandbox.outcome(mutant.source)
            row = (module, mutant.function, mutant.line, mutant.mutation, outcome, killed_by)
            with out.open("a", newline="") as file:
                csv.writer(file).writerow(row)
            print(f"{module} {number}/{len(chosen)} {outcome} {killed_by}", flush=True)
            if outcome == "survived":
                print(f"  line {mutant.line}, {mutant.function}: {mutant.mutation}", flush=True)


def summary(out: Path) -> Iterator[str]:
    """Yield for each module the number of mutants killed, then a line for each survivor."""
    rows = list(tried(out))
    for module in dict.fromkeys(row["module"] for row in rows):
        counts = Counter(row["outcome"] for row in rows if row["module"] == module)
        total = counts.total()
        yield f"{module}: {total - counts['survived']} of {total} killed"
    for row in rows:
        if row["outcome"] == "survived":
            yield f"survived: {row['module']}:{row['line']} {row['function']}: {row['mutation']}"


def main() -> None:
    """Run the mutants that were not run yet, and print the summary."""
    parser = argparse.ArgumentParser(description="Mutation test of the deciding modules.")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write or continue")
    parser.add_argument(
        "--module", action="append", help="file to mutate (repeatable); default: all"
    )
    parser.add_argument("--tests", nargs="+", help="what pytest runs; default: as in `TESTS`")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants per module")
    options = parser.parse_args()
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.is_file():
        out.write_text(",".join(COLUMNS) + "\n")
    done = {(row["module"], row["function"], row["mutation"]) for row in tried(out)}
    for module in options.module or TESTS:
        chosen = sample(module, options.sample)
        new = [
            mutant for mutant in chosen if (module, mutant.function, mutant.mutation) not in done
        ]
        if new:
            run(module, options.tests or test_files(module), new, out)
    print("\n".join(summary(out)))


if __name__ == "__main__":
    main()
