"""Measure every architecture of the space beside `original`, in interleaved rounds."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.vae_table.protocol import Member, Record, RunFolder, TableProtocol, members
from benchmarks.vae_table.training import Progress
from nas.latency import measure_pair
from nas.setups import SetUp
from profiling.allocator import tune_allocator
from profiling.lane import Lane

KIND = "latency"

CONFIG = SetUp(max_rounds=80, max_s=1.2, max_warmup=20, max_warmup_s=0.3, attempts=1)
"""One image on one thread, at most about a second each, so that a space takes ten minutes."""


def measure_all(
    folder: Path,
    protocol: TableProtocol,
    config: SetUp = CONFIG,
    limit: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Measure what the folder lacks, and repeat what was measured on a busy machine.

    Returns:
        The number of contended measurements.
    """
    tune_allocator()
    run = RunFolder(folder, protocol)
    wanted, lane = members(run.space)[:limit], Lane("cpu")
    for done, member in enumerate(wanted, start=1):
        known = run.get(KIND, member.digest)
        if known is None or known["contended"]:
            found = measure_one(member, config, lane)
            if known is None or found["spread"] < known["spread"] or not found["contended"]:
                run.write(KIND, member.digest, found)
        if progress:
            progress(done, len(wanted))
    return sum(record["contended"] for record in run.read(KIND).values())


def measure_one(member: Member, config: SetUp, lane: Lane) -> Record:
    """Time one architecture beside `original` at the same image size, as a study does."""
    start_s = time.monotonic()
    pair = measure_pair(member.architecture, config, torch.device("cpu"), lane)
    return {
        "latency_over_original": pair.ratio.median,
        "latency_over_original_low": pair.ratio.interval.low,
        "latency_over_original_high": pair.ratio.interval.high,
        "candidate_ms": pair.candidate.median_ms,
        "original_ms": pair.reference.median_ms,
        "spread": pair.candidate.spread,
        "contended": bool(pair.contention),
        "measuring_s": time.monotonic() - start_s,
    }
