"""Train every architecture of the space, one record each; what is there already is not redone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.vae_table.protocol import Record, RunFolder, TableProtocol
from nas.datasets import ImageDataset, load_dataset
from nas.evaluate import static_costs
from nas.training import CandidateFailed, Trainer
from profiling.allocator import tune_allocator
from profiling.environment import threads
from profiling.lane import Lane
from search_spaces.axes import Assignment
from search_spaces.space import SearchSpace

Progress = Callable[[int, int], None]

KIND = "training"


def train_all(
    folder: Path,
    protocol: TableProtocol,
    workers: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Train what the folder lacks, in shuffled order so that the time left can be told.

    Args:
        folder: Where the records go; a killed run loses the architecture in training alone.
        protocol: How; the same at every run into one folder.
        workers: Processes, each with `protocol.threads` threads.
        limit: Train at most this many of the shuffled order (for a second seed).
        progress: Called with (done, total), those found done included.

    Returns:
        How many were trained now.
    """
    tune_allocator()
    with threads(protocol.threads):
        run = RunFolder(folder, protocol)
    wanted = shuffled(run.space)[:limit]
    missing = [one for one in wanted if not run.has(KIND, run.space.architecture(one).digest)]
    total, found = len(wanted), len(wanted) - len(missing)
    for done, _ in enumerate(_trained(folder, protocol, missing, workers), start=found + 1):
        if progress:
            progress(done, total)
    return len(missing)


def shuffled(space: SearchSpace) -> list[Assignment]:
    """Return one assignment per distinct architecture, in an order that is always the same."""
    distinct = {space.architecture(one).digest: one for one in space.enumerate()}
    order = np.random.default_rng(0).permutation(len(distinct))
    members = list(distinct.values())
    return [members[index] for index in order]


def _trained(
    folder: Path, protocol: TableProtocol, missing: Sequence[Assignment], workers: int
) -> Iterator[None]:
    if workers == 1:
        yield from (train_one(folder, protocol, one) for one in missing)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(train_one, folder, protocol, one) for one in missing]
        yield from (job.result() for job in jobs)


def train_one(folder: Path, protocol: TableProtocol, assignment: Assignment) -> None:
    """Train one architecture and write its record."""
    tune_allocator()
    run = RunFolder(folder, protocol)
    architecture = run.space.architecture(assignment)
    with threads(protocol.threads):
        epochs, failure = _epochs(run, assignment)
    record = {
        "digest": architecture.digest,
        "assignment": assignment,
        "architecture": architecture.to_dict(),
        **static_costs(architecture),
        "epochs": epochs,
        "failure": failure,
    }
    run.write(KIND, architecture.digest, record)


def _epochs(run: RunFolder, assignment: Assignment) -> tuple[list[Record], str | None]:
    lane, records = Lane("cpu"), []
    architecture = run.space.architecture(assignment)
    images = _images(run.protocol, architecture.image_size)
    trainer = Trainer(architecture, images, run.protocol.training, torch.device("cpu"))
    try:
        with lane.training():
            start_s = time.process_time()
            for result in trainer.epochs(on_batch=lambda _done, _total: lane.enter()):
                end_s = time.process_time()
                quality = asdict(result.validation)
                own = {key: value for key, value in asdict(result).items() if key != "validation"}
                records.append({**own, **quality, "processor_s": end_s - start_s})
                start_s = end_s
    except CandidateFailed as error:
        return records, str(error)
    return records, None


@cache
def _images(protocol: TableProtocol, size: int) -> ImageDataset:
    return load_dataset(protocol.data, size)
