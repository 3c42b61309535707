"""Is the measured ratio the one that a user of the trained model will see?

Trains members of a space briefly on rendered faces. A plain loop over real images, as a user would
write it, then times each trained member beside the trained `original`. Its ratio is compared with
those of this project's protocol: during a search (initial weights), at a study's end (trained
weights), and, as a control, on a black image with new BatchNorm statistics.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from nas.checkpoint import load_vae, save_weights
from nas.datasets import DataConfig, ImageDataset, load_dataset
from nas.latency import Meter, measure_together
from nas.setups import SetUp
from nas.timed_models import TimedImages
from nas.training import Trainer, TrainingConfig
from nas.vae import build_vae
from profiling.fresh_process import FreshProcess
from profiling.lane import Lane
from profiling.paired import compare_latency
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL

Row = dict[str, Any]

SIZE, IMAGES, EPOCHS = 64, 300, 2
BLOCKS, PASSES = 16, 20
CPU = torch.device("cpu")


def accuracy(members: Sequence[Architecture], config: SetUp) -> Iterator[Row]:
    """Yield one row for each member: its ratio to `original` by each way of measuring."""
    dataset = load_dataset(DataConfig(kind="faces", count=IMAGES), SIZE)
    images, original = TimedImages.of(dataset), ORIGINAL.resized(SIZE)
    loop_images = np.asarray(dataset.images[dataset.test[:64]])  # others than the protocol's
    with tempfile.TemporaryDirectory() as folder:
        base = _trained(original, dataset, Path(folder))
        for architecture in members:
            weights = _trained(architecture, dataset, Path(folder))
            with FreshProcess(_Apart, tuned=True) as process:
                loop = process.call("plain_loop", weights, base, loop_images)
                black = process.call("black", architecture, config)
            search, _ = Meter(config, CPU, images).measure(architecture)
            final = measure_together(
                {"original": original, "member": architecture},
                "original",
                config,
                CPU,
                images,
                {"original": base, "member": weights},
            )
            yield {
                "digest": architecture.digest,
                "loop": loop,
                "search": search.ratio.median,
                "final": final.ratio("member").median,
                "black": black,
                "contention": "; ".join((*search.contention, *final.contention)),
            }


def accuracy_lines(rows: Sequence[Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """Return (what, figure, goal) for each way of measuring."""
    goal = "median 3 %, 95th percentile 6 %"
    ways = {
        "search": ("protocol in a search against a plain loop", goal),
        "final": ("protocol at a study's end against it", goal),
        "black": ("control: black image, new statistics", ""),
    }
    lines = []
    for way, (what, wanted) in ways.items():
        errors = [float(row[way]) / float(row["loop"]) - 1 for row in rows]
        sizes = np.abs(errors)
        text = (
            f"median {median(sizes):.1%}, 95th percentile {np.quantile(sizes, 0.95):.1%}, "
            f"bias {median(errors):+.1%} ({len(rows)} trained architectures)"
        )
        lines.append((what, text, wanted))
    return lines


def _trained(architecture: Architecture, dataset: ImageDataset, folder: Path) -> Path:
    path = folder / f"{architecture.digest}.safetensors"
    trainer = Trainer(architecture, dataset, TrainingConfig(epochs=EPOCHS), CPU)
    for _ in trainer.epochs():
        pass
    save_weights(trainer.best_model(), path)
    return path


class _Apart:
    """Measures in a process that has not trained."""

    def plain_loop(self, weights: Path, base: Path, images: Any) -> float:
        """Return the ratio of two trained models, from blocks of passes that alternate."""
        models = [load_vae(weights), load_vae(base)]
        tensors = [torch.from_numpy(image[None]).float() / 255 for image in images]
        torch.set_num_threads(1)
        ratios = []
        with Lane("cpu").measuring(), torch.inference_mode():
            for block in range(BLOCKS + 1):
                times = [self._pass_ms(model, tensors, block) for model in models]
                ratios.append(times[0] / times[1])
        return median(ratios[1:])  # the first block warms up

    def _pass_ms(self, model: torch.nn.Module, tensors: list[torch.Tensor], block: int) -> float:
        taken = []
        for number in range(PASSES):
            image = tensors[(block * PASSES + number) % len(tensors)]
            start = time.perf_counter()
            model(image)
            taken.append(1000 * (time.perf_counter() - start))
        return median(taken)

    def black(self, architecture: Architecture, config: SetUp) -> float:
        """Return the ratio on a black image with the BatchNorm statistics of new models."""
        pair = compare_latency(
            build_vae(architecture, seed=0),
            build_vae(ORIGINAL.resized(SIZE), seed=0),
            torch.zeros(1, 3, SIZE, SIZE),
            config,
            alone=Lane("cpu").measuring,
        )
        return pair.ratio.median
