"""Write the records of a run as one Parquet file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.vae_table import latency, training
from benchmarks.vae_table.protocol import Member, Record, RunFolder, TableProtocol, members
from search_spaces.errors import UserError

CURVES = {
    "reconstruction": "reconstruction_loss",
    "total": "total_loss",
    "train_loss": "train_loss",
    "ssim": "ssim",
    "ms_ssim": "ms_ssim",
    "psnr_db": "psnr_db",
    "l1": "l1",
    "kl": "kl",
    "duration_s": "epoch_wall_s",
    "processor_s": "epoch_processor_s",
}
"""Field of an epoch's record -> list column: one entry per epoch."""

MEASURED = (
    "latency_over_original",
    "latency_over_original_low",
    "latency_over_original_high",
    "candidate_ms",
    "original_ms",
    "contended",
    "measuring_s",
)
COSTS = ("params", "macs", "peak_memory_bytes")


FURTHER = ("total", "reconstruction")
"""Fields of an epoch's record that the table has of further seeds too."""


def build(
    folder: Path,
    protocol: TableProtocol,
    to: Path,
    further: Sequence[Path] = (),
    *,
    partial: bool = False,
) -> int:
    """Write one row per architecture, references last; the protocol goes into the metadata.

    Args:
        folder: The folder of the records.
        protocol: The protocol of the training.
        to: The Parquet file.
        further: Folders of trainings with the next seeds, in their order.
        partial: Leave out architectures that are not trained yet instead of refusing.

    Returns:
        Number of rows.

    Raises:
        UserError: Records are missing.
    """
    run = RunFolder(folder, protocol)
    wanted = members(run.space)
    trained, measured = run.read(training.KIND), run.read(latency.KIND)
    missing = sum(member.digest not in trained for member in wanted)
    if missing and not partial:
        raise UserError(f"{folder}: {missing} of {len(wanted)} are not trained yet: run `train`")
    order = {run.space.architecture(one).digest: i for i, one in enumerate(run.space.enumerate())}
    wanted = [member for member in wanted if member.digest in trained]
    wanted.sort(key=lambda member: order.get(member.digest, len(order)))
    axes = tuple(run.space.axes)
    others = [
        RunFolder(one, protocol.with_seed(protocol.training.seed + number)).read(training.KIND)
        for number, one in enumerate(further, start=1)
    ]
    rows = [
        {
            **_row(one, trained[one.digest], measured.get(one.digest), axes),
            **_of_further([other[one.digest] for other in others if one.digest in other]),
        }
        for one in wanted
    ]
    about = {**run.about(), "space_description": run.space.to_dict()}
    texts = {key: one if isinstance(one, str) else json.dumps(one) for key, one in about.items()}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(texts)
    to.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, to, compression="zstd")
    return len(rows)


def _row(
    member: Member, trained: Record, measured: Record | None, axes: tuple[str, ...]
) -> dict[str, Any]:
    choices, found = member.assignment or {}, measured or {}
    return {
        "digest": member.digest,
        "reference": member.reference,
        **{axis: choices.get(axis) for axis in axes},
        **{name: int(trained[name]) for name in COSTS},
        **{name: found.get(name) for name in MEASURED},
        "failure": trained["failure"],
        **{name: [one[key] for one in trained["epochs"]] for key, name in CURVES.items()},
        "architecture": json.dumps(trained["architecture"], separators=(",", ":")),
    }


def _of_further(records: Sequence[Record]) -> dict[str, list[list[float]]]:
    return {
        f"further_{CURVES[key]}": [[epoch[key] for epoch in one["epochs"]] for one in records]
        for key in FURTHER
    }
