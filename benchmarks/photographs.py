"""Does an order of architectures found on rendered faces hold on photographs?

Compares the losses of members of the space `table` that `python -m benchmarks.vae_table train`
trained on rendered faces and, with `--photographs`, on photographs:

python -m benchmarks.photographs --faces FACES --photographs PHOTOGRAPHS --to DIR

Further folders of the same images (`--faces` and `--photographs` are repeatable) are trainings with
other seeds. The agreement of two seeds on the same images is the most that can be expected between
images, so it stands beside. `losses.csv` has the losses, `orders.csv` Kendall's tau of each pair.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import pandas as pd

from nas.objectives import TRAINED_OBJECTIVE
from studies.record.latencies import kendall

LOSSES = {TRAINED_OBJECTIVE: "reconstruction", "total_loss": "total"}


def losses(folders: Mapping[str, Path], field: str) -> pd.DataFrame:
    """Return the last epoch's loss of each member (rows) that every folder (column) has.

    Args:
        folders: Folder of the records of each training, by its name.
        field: Field of an epoch's record.
    """
    found = {
        name: {
            record["digest"]: record["epochs"][-1][field]
            for path in sorted((folder / "training").glob("*.json"))
            if (record := json.loads(path.read_text()))["epochs"]
        }
        for name, folder in folders.items()
    }
    return pd.DataFrame(found).dropna().rename_axis("digest")


def orders(folders: Mapping[str, Path]) -> Iterator[dict[str, object]]:
    """Yield Kendall's tau of each pair of trainings, with its 95 % bootstrap interval."""
    for loss, field in LOSSES.items():
        table = losses(folders, field)
        for first, second in combinations(table, 2):
            tau, (low, high) = kendall(list(table[first]), list(table[second]))
            pair = {"loss": loss, "first": first, "second": second, "members": len(table)}
            yield {**pair, "tau": round(tau, 3), "low": round(low, 3), "high": round(high, 3)}


def main() -> None:
    """Print the agreement of all pairs, and write it with the losses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, action="append", required=True)
    parser.add_argument("--photographs", type=Path, action="append", required=True)
    parser.add_argument("--to", type=Path, default=Path("benchmarks/results/photographs"))
    options = parser.parse_args()
    folders = {
        f"{kind}, seed {seed}": folder
        for kind in ("faces", "photographs")
        for seed, folder in enumerate(getattr(options, kind))
    }
    options.to.mkdir(parents=True, exist_ok=True)
    parts = {loss: losses(folders, field) for loss, field in LOSSES.items()}
    pd.concat(parts, names=["loss"]).round(6).to_csv(options.to / "losses.csv")
    found = pd.DataFrame(orders(folders))
    found.to_csv(options.to / "orders.csv", index=False)
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
