"""The table of trained VAEs, and an evaluator that reads it instead of training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from nas.objectives import TRAINED_OBJECTIVE, trained_objectives
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.bench.tables import Table, TableEntry

VAE_TABLE_FILE = Path(__file__).parent / "data" / "vae_table.parquet"

QUALITY = ("total_loss", "l1", "kl", "ssim", "ms_ssim", "psnr_db")
COSTS = ("params", "macs", "peak_memory_bytes")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class VaeTable:
    """The records of all trained members of a space and of both reference models.

    Attributes:
        space: The space of the members.
        about: The protocol of the training and the machine that was used.
        records: digest -> columns; lists hold one entry per epoch.
    """

    space: SearchSpace
    about: Mapping[str, Any]
    records: Mapping[str, Record]

    @cached_property
    def anchor_ms(self) -> float | None:
        """Median latency of `original`, by which ratios are multiplied to get milliseconds.

        None if a record has no latency.
        """
        times = [one["original_ms"] for one in self.records.values()]
        return None if any(time is None for time in times) else median(times)

    def latency_ms(self, record: Record) -> float | None:
        """Return the ratio to `original` times `anchor_ms`."""
        return self.anchor_ms and record["latency_over_original"] * self.anchor_ms

    def table(self) -> Table:
        """Return the members as a table for samplers, without failed members and references."""
        names = ["params", "macs", *(["latency_ms"] if self.anchor_ms else [])]
        entries = {}
        for digest, record in self.records.items():
            if record["reference"] or record["failure"]:
                continue
            known = {**record, "latency_ms": self.latency_ms(record)}
            architecture = Architecture.from_dict(json.loads(record["architecture"]))
            assignment = self.space.assignment(architecture)
            assert assignment is not None
            losses = tuple(record[TRAINED_OBJECTIVE][i] for i in best_epochs(record))
            costs = tuple(float(known[name]) for name in names)
            entries[digest] = TableEntry(
                digest, assignment, costs, losses, tuple(record["epoch_processor_s"])
            )
        return Table("vae", self.space, (TRAINED_OBJECTIVE, *names), entries)


def best_epochs(record: Record) -> list[int]:
    """Return for each epoch the index of the epoch with the lowest total loss so far."""
    totals: Sequence[float] = record["total_loss"]
    return [min(range(end), key=totals.__getitem__) for end in range(1, len(totals) + 1)]


def load_vae_table(path: Path = VAE_TABLE_FILE) -> VaeTable:
    """Read a table that `python -m benchmarks.vae_table build` wrote.

    Raises:
        UserError: The file does not exist.
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path}: no such table; make it with `python -m benchmarks.vae_table`")
    read = pq.read_table(path)
    about = {key.decode(): value.decode() for key, value in (read.schema.metadata or {}).items()}
    space = SearchSpace.from_dict(json.loads(about["space_description"]), str(path))
    known = {key: json.loads(about[key]) for key in ("protocol", "environment")}
    return VaeTable(space, known, {record["digest"]: record for record in read.to_pylist()})


class TabularEvaluator:
    """An evaluator that yields the findings of a table at once.

    Args:
        table: The source of the findings.
        wanted: Names of the required objectives and limits, as for `nas.evaluate.Evaluator`.
    """

    def __init__(self, table: VaeTable, wanted: Sequence[str]) -> None:
        self.table, self.wanted = table, frozenset(wanted)

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield the findings recorded after each step and epoch; the last have the step "done".

        Reading takes no time, so `known` findings are read again.

        Raises:
            CandidateFailed: The recorded training failed.
            UserError: The architecture is not in the table, or latency is required and the table
                has none.
        """
        record = self.table.records.get(architecture.digest)
        if record is None:
            raise UserError(f"{architecture.digest}: not in the table ({architecture.summary})")
        costs = {name: float(record[name]) for name in COSTS}
        findings = Findings("static", {**costs, "flops": 2 * costs["macs"]})
        yield findings
        if "latency_ms" in self.wanted:
            findings = self._measured(record, findings)
            yield findings
        if trained := trained_objectives(self.wanted):
            for epoch in range(1, len(record["total_loss"]) + 1):
                findings = _trained(record, findings, epoch, trained)
                yield findings
            if record["failure"]:
                raise CandidateFailed(record["failure"])
        yield replace(findings, step="done")

    def _measured(self, record: Record, known: Findings) -> Findings:
        latency_ms, anchor_ms = self.table.latency_ms(record), self.table.anchor_ms
        if latency_ms is None or anchor_ms is None:
            raise UserError("latency_ms: not in this table; choose other objectives")
        ratios = {
            name: record[name]
            for name in (f"latency_over_original{end}" for end in ("", "_low", "_high"))
        }
        low, high = (ratios[f"latency_over_original{end}"] * anchor_ms for end in ("_low", "_high"))
        return replace(
            known,
            step="device",
            objectives={**known.objectives, "latency_ms": latency_ms},
            metrics={**known.metrics, **ratios},
            intervals={"latency_ms": (low, high)},
            contended=bool(record["contended"]),
            timings_s={"latency": record["measuring_s"]},
        )


def _trained(record: Record, known: Findings, epoch: int, wanted: Sequence[str]) -> Findings:
    names = [TRAINED_OBJECTIVE, *(name for name in QUALITY if name in wanted)]
    best = best_epochs(record)[epoch - 1]
    history = [
        {
            "epoch": number + 1,
            "train_loss": record["train_loss"][number],
            **{name: record[name][number] for name in names},
            "validation_loss": record["total_loss"][number],
            "duration_s": record["epoch_processor_s"][number],
        }
        for number in range(epoch)
    ]
    quality = {name: record[name][best] for name in QUALITY}
    return replace(
        known,
        step="training",
        objectives={**known.objectives, **{name: record[name][best] for name in names}},
        metrics={**known.metrics, **quality, "best_epoch": best + 1},
        history=history,
        timings_s={**known.timings_s, "training": sum(one["duration_s"] for one in history)},
    )
