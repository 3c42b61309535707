"""Set a study up from its configuration and run it: device, data, store, evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import psutil

from nas.datasets import load_dataset
from nas.evaluate import STATIC, Evaluator, shown_images, static_costs
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
) -> StudyRecord:
    """Run or resume a study; what is finished is in the storage at every moment.

    Raises:
        UserError, ProfilingError: it cannot run as configured; nothing was spent.
    """
    space, device = config.load_space(), select_device(config.device)
    image_size = space.image_size
    with progress_bar("checking limits") as progress:
        check_limits(config, space, progress)
    # Before the first large tensor: activations would be page-faulted anew at every pass.
    tune_allocator()
    store = StudyStore(root / config.name, storage)
    with store.writing():
        with progress_bar(f"loading {config.data.kind}") as progress:
            dataset = load_dataset(config.data, image_size, progress)
        facts = {
            "data_fingerprint": dataset.fingerprint,
            "images": {
                "train": len(dataset.train),
                "validation": len(dataset.validation),
                "test": len(dataset.test),
                "skipped": len(dataset.skipped),
            },
        }
        store.create(config, space, {**fingerprint(device).model_dump(), **facts})
        np.save(store.artefacts / "samples.npy", shown_images(dataset))
        evaluator = Evaluator(
            dataset=dataset,
            training=config.training,
            latency=config.latency,
            device=device,
            wanted=[*config.objectives, *config.limits],
            artefacts=store.artefacts,
            # Two hyper-threads share one core's arithmetic: physical cores are what counts.
            thread_count=config.threads or psutil.cpu_count(logical=False),
            on_batch=display.batch,
        )
        with display:
            return Runner(config, space, store, evaluator, display).run()


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
