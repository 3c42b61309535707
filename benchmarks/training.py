"""Images per second and peak memory of our training loop, compared with others.

`python -m benchmarks.training [--model original|modified|FILE] [--batches N] [--rounds N]`, on the
CPU. FILE is an `architecture.json`. All loops compute the same loss at batch 32 and 144x144:

- straightforward: written like the paper's code, with SSIM image by image by average pooling,
  default Adam, contiguous tensors, the default allocator;
- paper: `Trainer` with the recipe `paper`, in float32;
- default: `Trainer` with the default recipe, in bfloat16 where the processor has instructions for
  it.

`--checkout FOLDER` compares the last with the loop of another checkout of this repository instead,
such as that of an earlier commit, with the defaults of that commit. `--window gaussian` computes
the default loss instead of the paper's.

Each run is a fresh process, the loops alternate, and the first step of each run does not count. On
a busy machine rely on processor time, with `OMP_WAIT_POLICY=passive`, not on wall-clock time.
`modified` needs 14 GB of free memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.datasets import ImageDataset
from nas.training import Trainer, TrainingConfig
from nas.vae import VAE, build_vae
from profiling.allocator import tune_allocator
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES

BATCH, SIZE, WINDOW = 32, 144, 11
CHECKOUT = "checkout"
"""The loop of another checkout."""


def main() -> None:
    """Compare the loops, or run one of them and print its record as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="original", help="name of a reference, or a file")
    parser.add_argument("--batches", type=int, default=3, help="timed steps of each run")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each loop")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", choices=("uniform", "gaussian"), default="uniform")
    parser.add_argument("--checkout", type=Path, help="compare with its loop instead of the others")
    parser.add_argument("--checkout-model", help="--model as that checkout reads it, if different")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(options.threads)
        print(json.dumps(run_side(options.side, options.model, options.batches, options.window)))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run the loops alternately in fresh processes; print medians."""
    sides = (CHECKOUT, DEFAULT) if options.checkout else SIDES
    if options.window == "gaussian" and not options.checkout:
        raise SystemExit("--window gaussian: needs --checkout; the other loops have no such window")
    records: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    print(f"{options.model}, batch {BATCH}, {SIZE}x{SIZE}, {options.window} window, ", end="")
    print(f"{options.threads} threads, ", end="")
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    for number in range(1, options.rounds + 1):
        for side, kept in records.items():
            kept.append(_in_fresh_process(side, options))
            print(f"round {number}, {side}: {_describe(kept[-1:])}", flush=True)
    for side, kept in records.items():
        print(f"median, {side}: {_describe(kept)}")
    for key, meaning in {
        "steps_s": "in wall-clock time",
        "processor_s": "in processor time",
    }.items():
        *others, own = (_median_s(kept, key) for kept in records.values())
        for name, theirs in zip(records, others, strict=False):
            print(f"default is {theirs / own:.2f} times as fast as {name} {meaning}")


def run_side(side: str, model: str, batches: int, window: str) -> dict[str, Any]:
    """Return the seconds of each timed step, the mean loss, and the process's peak memory."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random(((batches + 1) * BATCH, 3, 9, 9), dtype=np.float32))
    images = F.interpolate(coarse, SIZE, mode="bilinear").mul(255).byte()
    ticks: list[tuple[float, float]] = []
    loss = SIDES[side](
        REFERENCES[model] if model in REFERENCES else Architecture.load(Path(model)),
        images,
        window,
        lambda: ticks.append((time.perf_counter(), time.process_time())),
    )
    walls_s, processor_s = np.diff(ticks, axis=0).T.tolist()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"steps_s": walls_s, "processor_s": processor_s, "loss": loss, "peak_bytes": peak}


def trained(
    settings: dict[str, str],
    model: Architecture,
    images: Tensor,
    window: str,
    tick: Callable[[], None],
) -> float:
    """Train one epoch with `Trainer`, calling `tick` after each step; return the mean loss."""
    tune_allocator()
    count = len(images)
    dataset = ImageDataset(
        name="benchmark",
        images=images.numpy(),
        attribute_names=(),
        attributes=None,
        train=np.arange(count),
        validation=np.arange(2),
        test=np.arange(2),
        skipped=(),
        fingerprint="benchmark",
    )
    config = TrainingConfig.model_validate(settings | {"batch_size": BATCH, "ssim": window})
    trainer = Trainer(model, dataset, config)
    result = next(trainer.epochs(on_batch=lambda done, total: tick() if done < total else None))
    return result.train_loss


def straightforward(
    architecture: Architecture, images: Tensor, window: str, tick: Callable[[], None]
) -> float:
    """Train one epoch like the paper's code, with `tick` after each step; return the mean loss."""
    model = build_vae(architecture, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = torch.utils.data.DataLoader(images / 255, batch_size=BATCH, shuffle=True)  # type: ignore[arg-type,var-annotated]
    losses: list[float] = []
    for batch in loader:
        optimiser.zero_grad()
        loss = _plain_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
        tick()
    return sum(losses) / len(losses)


DEFAULT = "default"
SIDES: dict[str, Callable[[Architecture, Tensor, str, Callable[[], None]], float]] = {
    "straightforward": straightforward,
    "paper": partial(trained, {"recipe": "paper"}),
    DEFAULT: partial(trained, {}),
}


def _plain_loss(model: VAE, images: Tensor) -> Tensor:
    rebuilt, mean, log_variance = model(images)
    similarities = [
        _plain_ssim(one.unsqueeze(0), other.unsqueeze(0))
        for one, other in zip(rebuilt, images, strict=True)
    ]
    similarity = torch.stack(similarities).mean()
    kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp(), dim=1).mean()
    return 1 - similarity + 0.5 * F.l1_loss(rebuilt, images) + 1e-3 * kl


def _plain_ssim(first: Tensor, second: Tensor) -> Tensor:
    def average(maps: Tensor) -> Tensor:
        padding = WINDOW // 2
        return F.avg_pool2d(maps, WINDOW, stride=1, padding=padding, count_include_pad=False)

    c1, c2 = 0.01**2, 0.03**2
    mean_1, mean_2 = average(first), average(second)
    variance_1 = average(first.pow(2)) - mean_1.pow(2)
    variance_2 = average(second.pow(2)) - mean_2.pow(2)
    covariance = average(first * second) - mean_1 * mean_2
    numerator = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    denominator = (mean_1.pow(2) + mean_2.pow(2) + c1) * (variance_1 + variance_2 + c2)
    return (numerator / denominator).mean()


def _in_fresh_process(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one loop in a fresh process, without environment variables that change the allocator."""
    environment = {key: value for key, value in os.environ.items() if "MALLOC" not in key}
    settings = {
        key: str(getattr(options, key)) for key in ("model", "batches", "threads", "window")
    }
    packages = Path(__file__).parents[1]
    if side == CHECKOUT:  # this file, but the packages of the other checkout
        side, packages = DEFAULT, options.checkout.resolve()
        settings["model"] = options.checkout_model or settings["model"]
    environment["PYTHONPATH"] = str(packages)
    command = [sys.executable, "-P", __file__, "--side", side]  # not `profile` of this folder
    for key, value in settings.items():
        command += [f"--{key}", value]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def _median_s(records: list[dict[str, Any]], key: str) -> float:
    steps_s: list[float] = [seconds for record in records for seconds in record[key]]
    return median(steps_s)


def _describe(records: list[dict[str, Any]]) -> str:
    step_s, processor_s = (_median_s(records, key) for key in ("steps_s", "processor_s"))
    peak = max(record["peak_bytes"] for record in records)
    loss = median(record["loss"] for record in records)
    return (
        f"{BATCH / step_s:.1f} images/s ({step_s:.2f} s a step, {processor_s:.2f} s of processor "
        f"time), peak {peak / 1e9:.1f} GB, loss {loss:.3f}"
    )


if __name__ == "__main__":
    main()
