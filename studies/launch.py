"""Set a study up from its configuration and run it: device, data, store, evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nas.datasets import ImageDataset, load_dataset
from nas.evaluate import STATIC, Evaluator, measure_anchor, shown_images, static_costs
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint, select_device
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.config import StudyConfig
from studies.display import Display
from studies.records import StudyRecord
from studies.runner import Runner
from studies.store import StudyStore

ProgressBar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Makes a progress bar from a label; its callback is told (done, total)."""

_PROBES = 30


def run_study(
    config: StudyConfig,
    root: Path,
    storage: str | None,
    display: Display,
    progress_bar: ProgressBar,
) -> tuple[StudyRecord, str | None]:
    """Run or resume a study; what is finished is in the storage at every moment.

    Returns the record, and why the search was given up, if it was.

    Raises:
        UserError, ProfilingError: it cannot run as configured; nothing was spent.
    """
    space, device = config.load_space(), select_device(config.device)
    _require_colour(space)
    with progress_bar("checking limits") as progress:
        check_limits(config, space, progress)
    # Before the first large tensor: activations would be page-faulted anew at every pass.
    tune_allocator()
    store = StudyStore(root / config.name, storage)
    with store.writing():
        dataset = _load(config, space.image_size, progress_bar)
        facts = {**fingerprint(device).model_dump(), **_facts(dataset)}
        wanted = {*config.objectives, *config.limits}
        anchor_ms = store.anchor_ms
        if "latency_ms" in wanted and anchor_ms is None:
            anchor_ms = measure_anchor(space.image_size, config.latency, device)
        store.create(config, space, {**facts, "original_latency_ms": anchor_ms})
        if dataset is not None:
            np.save(store.artefacts / "samples.npy", shown_images(dataset))
        evaluator = Evaluator(
            dataset=dataset,
            training=config.training,
            latency=config.latency,
            device=device,
            wanted=wanted,
            anchor_ms=anchor_ms,
            artefacts=store.artefacts,
            # Two hyper-threads share one core's arithmetic: physical cores are what counts.
            thread_count=config.threads or psutil.cpu_count(logical=False),
            on_batch=display.batch,
        )
        runner = Runner(config, space, store, evaluator, display)
        with display:
            return runner.run(), runner.gave_up


def _load(config: StudyConfig, image_size: int, progress_bar: ProgressBar) -> ImageDataset | None:
    if all(objective.cost != "training" for objective in config.selected):
        return None
    with progress_bar(f"loading {config.data.kind}") as progress:
        return load_dataset(config.data, image_size, progress)


def _facts(dataset: ImageDataset | None) -> dict[str, Any]:
    if dataset is None:
        return {"data_fingerprint": None}
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = {name: len(part) for name, part in parts.items()}
    images = {**counts, "skipped": len(dataset.skipped)}
    return {"data_fingerprint": dataset.fingerprint, "images": images}


def _require_colour(space: SearchSpace) -> None:
    axis = space.axes.get("image_channels")
    channels = axis.choices if axis else (space.fixed.get("image_channels", 3),)
    if set(channels) != {3}:
        raise UserError(
            f"space {space.name!r}: image_channels {', '.join(map(str, channels))}, but the images "
            "have 3 channels: leave it out or fix it to 3"
        )


def check_limits(
    config: StudyConfig, space: SearchSpace, progress: Callable[[int, int], None]
) -> None:
    """Refuse limits that no candidate seems to meet, before any time is spent.

    Counts thirty random candidates (a tenth of a second each) until one meets the limits on
    what is known from an architecture alone.

    Raises:
        UserError: naming, for each limit, the smallest value that was found.
    """
    limits, smallest = config.limits, dict.fromkeys(config.limits, math.inf)
    if not limits.keys() & STATIC:
        return
    rng = np.random.default_rng(0)
    for probe in range(_PROBES):
        progress(probe, _PROBES)
        costs = static_costs(space.architecture(space.sample(rng)))
        known = {name: costs[name] for name in limits if name in costs}
        if all(value <= limits[name] for name, value in known.items()):
            return
        smallest |= {name: min(value, smallest[name]) for name, value in known.items()}
    wanted = ", ".join(f"{name} {limit:g}" for name, limit in limits.items())
    found = ", ".join(f"{n} {value:.4g}" for n, value in smallest.items() if value < math.inf)
    raise UserError(
        f"limits: none of {_PROBES} random candidates of space {space.name!r} meets {wanted}; the "
        f"smallest values among them are {found}: raise the limits or choose another space"
    )
