"""Train every architecture of the space that has no record yet, and write its record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.vae_table.protocol import Member, Record, RunFolder, TableProtocol, members
from nas.datasets import ImageDataset, load_dataset
from nas.evaluate import static_costs
from nas.training import CandidateFailed, EpochResult, Trainer
from profiling.allocator import tune_allocator
from profiling.environment import threads
from profiling.lane import Lane
from search_spaces.architecture import Architecture
from search_spaces.sizes import Size

Progress = Callable[[int, int], None]

KIND = "training"


def train_all(
    folder: Path,
    protocol: TableProtocol,
    workers: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Train the architectures that have no record in the folder.

    Args:
        folder: Folder of the records; a killed run loses only the architectures in training.
        protocol: The protocol; it must be the same in every run into one folder.
        workers: Processes, each with `protocol.threads` threads.
        limit: Train only the first `limit` architectures (a second seed needs only a few).
        progress: Called with (done, total); existing records are included.

    Returns:
        The number of architectures trained in this call.
    """
    tune_allocator()
    with threads(protocol.threads):
        run = RunFolder(folder, protocol)
    wanted = members(run.space)[:limit]
    missing = [member for member in wanted if not run.has(KIND, member.digest)]
    found = len(wanted) - len(missing)
    for done, _ in enumerate(_trained(folder, protocol, missing, workers), start=found + 1):
        if progress:
            progress(done, len(wanted))
    return len(missing)


def _trained(
    folder: Path, protocol: TableProtocol, missing: Sequence[Member], workers: int
) -> Iterator[None]:
    if workers == 1:
        for member in missing:
            train_one(folder, protocol, member)
            yield
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(train_one, folder, protocol, member) for member in missing]
        yield from (job.result() for job in jobs)


def train_one(folder: Path, protocol: TableProtocol, member: Member) -> None:
    """Train one architecture and write its record."""
    tune_allocator()
    epochs: list[Record] = []
    failure: str | None = None
    try:
        with threads(protocol.threads):
            epochs.extend(_epochs(member.architecture, protocol))
    except CandidateFailed as error:
        failure = str(error)
    record = {
        "digest": member.digest,
        "reference": member.reference,
        "assignment": member.assignment,
        "architecture": member.architecture.to_dict(),
        **static_costs(member.architecture),
        "epochs": epochs,
        "failure": failure,
    }
    RunFolder(folder, protocol).write(KIND, member.digest, record)


def _epochs(architecture: Architecture, protocol: TableProtocol) -> Iterator[Record]:
    lane, images = Lane("cpu"), _images(protocol, architecture.image_size)
    trainer = Trainer(architecture, images, protocol.training, torch.device("cpu"))
    with lane.training():
        start_s = time.process_time()
        for result in trainer.epochs(on_batch=lambda _done, _total: lane.enter()):
            # Other work on the machine affects wall-clock time, but hardly processor time.
            end_s = time.process_time()
            yield _row(result, end_s - start_s)
            start_s = end_s


def _row(result: EpochResult, processor_s: float) -> Record:
    row = asdict(result)
    quality = row.pop("validation")
    return {**row, **quality, "processor_s": processor_s}


@cache
def _images(protocol: TableProtocol, size: Size) -> ImageDataset:
    return load_dataset(protocol.data, size)
