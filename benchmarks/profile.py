"""Accuracy of a layer profile: the share it explains, its cost, the repeatability of the peaks.

`python -m benchmarks.profile` measures both reference models at batch 1 and 8 on one thread, in
about four minutes. `--seconds 5` is faster and noisier.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from nas.vae import build_vae
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint
from profiling.latency import LatencyConfig
from profiling.layers import LayerTable, profile_layers
from profiling.roofline import Peaks, measure_peaks
from search_spaces.references import REFERENCES
from studies.profiles.layers_page import write_profile

BATCHES = (1, 8)
REPEATS_WITHIN, EXPLAINS_WITHIN, COMPLETES_S = 0.05, 0.10, 60.0


def main() -> None:
    """Measure and print one table each for the profiles and the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20.0, help="time spent on each profile")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    tune_allocator()
    first, second = (measure_peaks(options.threads) for _ in range(2))
    place = fingerprint()
    print(f"{place.cpu_model}, {options.threads} threads, torch {place.torch_version}")
    print(
        f"\n{'model':10}{'batch':>6}{'latency':>11}{'layers':>9}{'between':>9}{'inflation':>11}  "
    )
    for batch in BATCHES:
        for name in REFERENCES:
            table = profiled(name, batch, options.threads, options.seconds, first)
            print(f"{name:10}{batch:6}{_cells(table)}", flush=True)
    print_peaks(first, second)
    start = time.perf_counter()
    table = profiled("modified", 1, options.threads, options.seconds, None)
    with tempfile.TemporaryDirectory() as folder:
        write_profile(table, "modified", Path(folder) / "profile.html")
    took = time.perf_counter() - start
    print(f"\nprofile of modified at batch 1, peaks and page included: {took:.0f} s", end=" ")
    print(f"({'within' if took <= COMPLETES_S else 'OVER'} {COMPLETES_S:.0f} s)")


def profiled(
    name: str, batch: int, threads: int, seconds: float, peaks: Peaks | None
) -> LayerTable:
    """Profile a reference model as `nas profile model` does."""
    architecture = REFERENCES[name]
    model = build_vae(architecture, seed=0).eval()
    images = torch.rand(1, *architecture.image_shape)
    config = LatencyConfig(batch=batch, threads=threads, max_s=seconds, max_warmup_s=seconds / 2)
    return profile_layers(model, images, config, peaks=peaks)


def print_peaks(first: Peaks, second: Peaks) -> None:
    """Print both measurements of each peak and whether they agree."""
    pairs = {"matrix product, GFLOP/s": (first.gemm_gflop_s, second.gemm_gflop_s)}
    for (size, a), (_, b) in zip(first.copy_gb_s, second.copy_gb_s, strict=True):
        pairs[f"copy of {size / 2**20:.0f} MiB, GB/s"] = (a, b)
    pairs["launch, us"] = (first.launch_us, second.launch_us)
    print(f"\n{'peak':26}{'first':>9}{'second':>9}{'apart':>8}")
    for what, (a, b) in pairs.items():
        apart = abs(a / b - 1)
        verdict = "" if apart <= REPEATS_WITHIN else f"  over {REPEATS_WITHIN:.0%}"
        print(f"{what:26}{a:9.2f}{b:9.2f}{apart:8.1%}{verdict}")


def _cells(table: LayerTable) -> str:
    left = abs(table.explained_share + table.outside_share - 1)
    busy = f"  busy: {'; '.join(table.latency.contention)}" if table.latency.contended else ""
    verdict = "" if left <= EXPLAINS_WITHIN else f"  {left:.0%} unexplained"
    return (
        f"{table.latency.median_ms:8.1f} ms{table.explained_share:9.1%}{table.outside_share:9.1%}"
        f"{table.inflation.median:10.3f}x{verdict}{busy}"
    )


if __name__ == "__main__":
    main()
