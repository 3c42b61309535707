"""Other frameworks' multi-objective searches on the tables of `nas bench`.

`python -m benchmarks.peers NAME ...` writes results beside those of `nas bench search` with the
same `--out`, `--trials` and `--workers`, and writes the comparison of all of them again. The
frameworks are not among our requirements: `pip install -e ".[peers]"` installs all but NePS, which
needs pandas below 3 and therefore a separate environment.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from benchmarks.peers import full
from benchmarks.peers.stopping import NepsMoAsha, SyneTuneMoAsha
from search_spaces.errors import UserError
from studies.bench.contenders import Contender
from studies.bench.runs import PlannedSearch, missing_of, run_contender, stored_results
from studies.bench.shipped import TABLES
from studies.bench.simulation import Asker, Stopping
from studies.bench.tables import Table
from studies.bench.write import write_comparison


def _own_rule(table: Table, asker: Asker) -> Stopping:
    """Return the asker itself, which is also the stopping rule."""
    return cast("Stopping", asker)


PEERS: dict[str, Contender] = {
    "syne-tune-moasha": Contender("Syne Tune MO-ASHA", "peer", SyneTuneMoAsha, _own_rule, True),
    "neps-moasha": Contender("NePS MO-ASHA", "peer", NepsMoAsha, _own_rule, True),
    "pymoo-sms-emoa": Contender("pymoo SMS-EMOA", "peer", full.sms_emoa),
    "pymoo-nsga2": Contender("pymoo NSGA-II", "peer", full.nsga2),
    "botorch-nehvi": Contender("BoTorch qLogNEHVI", "peer", full.BoTorchNehvi),
}
"""Frameworks by name. Those that stop early need a table of several epochs: `vae`."""


def compare(
    names: Sequence[str], seeds: int, trials: int, workers: int, out: Path, table: str = "vae"
) -> str:
    """Run the searches without a result in `out`; write the comparison and return it as text."""
    for name in names:
        if PEERS[name].epochs_needed and table != "vae":
            raise UserError(f"{name}: stops early, but table {table} has one epoch")
    searches = [
        PlannedSearch(table, name, seed, trials, workers) for name in names for seed in range(seeds)
    ]
    for planned in missing_of(searches, out):
        run_contender(planned, PEERS[planned.sampler], out)
    return str(write_comparison(stored_results(searches[0], out), out).table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="+", choices=PEERS, metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--table", choices=TABLES, default="vae")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100, help="budget, in full trainings")
    parser.add_argument("--workers", type=int, default=4, help="simulated workers")
    parser.add_argument("--out", type=Path, default=Path("nas-bench"), help="folder of results")
    chosen = parser.parse_args(arguments)
    settings = chosen.seeds, chosen.trials, chosen.workers, chosen.out, chosen.table
    try:
        print(compare(chosen.names, *settings))
    except UserError as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
