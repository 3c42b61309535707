"""Start-up time of `nas`: `python -m benchmarks.startup`.

Each command runs in fresh processes, interleaved, so that a slow phase of the machine affects all.
`python -c pass` is the interpreter alone. Prints the median and the range in seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from statistics import median

_NAS = [sys.executable, "-m", "studies.cli.main"]

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "nas --help": [*_NAS, "--help"],
    "nas study --help": [*_NAS, "study", "--help"],
    "nas space list": [*_NAS, "space", "list"],
    "nas study list (no studies)": [*_NAS, "study", "list"],
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(rounds + 1):
            for name, command in COMMANDS.items():
                seconds = _time([*command, *(["--root", folder] if "list (" in name else [])])
                if round_:  # the first round reads the files from disk
                    times[name].append(seconds)
    for name, samples in times.items():
        low, high = min(samples), max(samples)
        print(f"{name:30} {median(samples):6.3f} s  ({low:.3f} to {high:.3f}, {rounds} runs)")


def _time(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
