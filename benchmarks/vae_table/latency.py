"""Measure every architecture of the space against `original`, taking turns, one at a time."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.vae_table.protocol import Member, Record, RunFolder, TableProtocol, members
from benchmarks.vae_table.training import Progress
from nas.vae import build_vae
from profiling.allocator import tune_allocator
from profiling.lane import Lane
from profiling.latency import LatencyConfig, measure_latency, paired_ratio
from search_spaces.references import ORIGINAL

KIND = "latency"

CONFIG = LatencyConfig(max_rounds=60, max_s=1.0, max_warmup=20, max_warmup_s=0.3)
"""One image on one thread, at most about a second each, so that a space takes ten minutes."""


def measure_all(
    folder: Path,
    protocol: TableProtocol,
    config: LatencyConfig = CONFIG,
    limit: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Measure what the folder lacks, and once more what was measured on a busy machine.

    Returns:
        How many measurements of all are contended.
    """
    tune_allocator()
    run = RunFolder(folder, protocol)
    wanted, lane = members(run.space)[:limit], Lane("cpu")
    for done, member in enumerate(wanted, start=1):
        known = run.get(KIND, member.digest)
        if known is None or known["contended"]:
            with lane.measuring():
                found = measure_one(member, config)
            if known is None or found["spread"] < known["spread"] or not found["contended"]:
                run.write(KIND, member.digest, found)
        if progress:
            progress(done, len(wanted))
    return sum(record["contended"] for record in run.read(KIND).values())


def measure_one(member: Member, config: LatencyConfig) -> Record:
    """Time one architecture beside `original` at the same image size."""
    start_s, size = time.monotonic(), member.architecture.image_size
    described = {"candidate": member.architecture, "original": ORIGINAL.resized(size)}
    models = {name: build_vae(one, seed=0) for name, one in described.items()}
    image = torch.zeros(1, member.architecture.image_channels, size, size)
    measured = measure_latency(models, image, config)
    ratio = paired_ratio(measured["candidate"], measured["original"])
    return {
        "latency_over_original": ratio.median,
        "latency_over_original_low": ratio.interval[0],
        "latency_over_original_high": ratio.interval[1],
        "candidate_ms": measured["candidate"].median_ms,
        "original_ms": measured["original"].median_ms,
        "spread": measured["candidate"].spread,
        "contended": measured["candidate"].contended,
        "measuring_s": time.monotonic() - start_s,
    }
