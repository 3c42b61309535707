"""Does an order of architectures found on rendered faces hold on photographs?

Compares the losses of members of the space `table` that `python -m benchmarks.vae_table train`
trained on rendered faces and, with `--photographs`, on photographs:

python -m benchmarks.photographs --faces FACES --photographs PHOTOGRAPHS --to DIR

Further folders of the same images (`--faces` and `--photographs` are repeatable) are trainings with
other seeds. The agreement of two seeds on the same images is the most that can be expected between
images, so it stands beside. `orders.csv` has Kendall's tau of each pair, over all members and over
those with the same size of the latent, `losses.csv` the losses, `axes.csv` their mean for each
choice of each axis.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pandas as pd

from nas.objectives import TRAINED_OBJECTIVE
from studies.record.latencies import kendall

LOSSES = {TRAINED_OBJECTIVE: "reconstruction", "total_loss": "total"}
WITHIN = "latent_size"

Records = Mapping[str, Mapping[str, Any]]
"""Training records by digest."""


def read(folder: Path) -> Records:
    """Return the records of the members that were trained into a folder."""
    paths = sorted((folder / "training").glob("*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    return {one["digest"]: one for one in records if one["epochs"]}


def losses(trainings: Mapping[str, Records], field: str) -> pd.DataFrame:
    """Return the last epoch's loss of each member (rows) that every training (column) has.

    Args:
        trainings: Records of each training, by its name.
        field: Field of an epoch's record.
    """
    found = {
        name: {digest: one["epochs"][-1][field] for digest, one in records.items()}
        for name, records in trainings.items()
    }
    return pd.DataFrame(found).dropna().rename_axis("digest")


def choices(trainings: Mapping[str, Records]) -> pd.DataFrame:
    """Return the choice of each axis (columns) of each member of the space (rows)."""
    first = next(iter(trainings.values()))
    made = {digest: one["assignment"] for digest, one in first.items() if one["assignment"]}
    return pd.DataFrame.from_dict(made, orient="index").rename_axis("digest")


def orders(trainings: Mapping[str, Records]) -> Iterator[dict[str, object]]:
    """Yield Kendall's tau of each pair of trainings, with its 95 % bootstrap interval."""
    latent = choices(trainings)[WITHIN]
    for loss, field in LOSSES.items():
        table = losses(trainings, field)
        groups = [("all", table), *table.groupby(latent.reindex(table.index))]
        compared = [(group, part) for group, part in groups if len(part) > 1]
        for (group, part), (first, second) in product(compared, combinations(table, 2)):
            tau, (low, high) = kendall(list(part[first]), list(part[second]))
            pair = {"loss": loss, WITHIN: group, "first": first, "second": second}
            found = {"tau": round(tau, 3), "low": round(low, 3), "high": round(high, 3)}
            yield {**pair, "members": len(part), **found}


def means(trainings: Mapping[str, Records]) -> pd.DataFrame:
    """Return the mean reconstruction loss of the members with each choice of each axis."""
    table, made = losses(trainings, LOSSES[TRAINED_OBJECTIVE]), choices(trainings)
    parts = {
        axis: table.groupby(made[axis].reindex(table.index)).mean().rename(index=str)
        for axis in sorted(made, key=str)
    }
    return pd.concat(parts, names=["axis", "choice"])


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
    trainings = {name: read(folder) for name, folder in folders.items()}
    parts = {loss: losses(trainings, field) for loss, field in LOSSES.items()}
    pd.concat(parts, names=["loss"]).round(6).to_csv(options.to / "losses.csv")
    found, axes = pd.DataFrame(orders(trainings)), means(trainings)
    found.to_csv(options.to / "orders.csv", index=False)
    axes.round(4).to_csv(options.to / "axes.csv")
    print(found.to_string(index=False))
    print(axes.round(3).to_string())


if __name__ == "__main__":
    main()
