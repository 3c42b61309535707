"""Set a study up from its configuration and run it: device, data, store, evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.artefacts import full_disk_refused, swept, write_whole
from nas.datasets import ImageDataset
from nas.evaluate import (
    STATIC_COSTS,
    npy,
    shown_images,
    static_costs,
)
from nas.latency import measure_anchor
from nas.predict.known_costs import known_costs, known_limits
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint, select_device
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.records import StudyRecord, TrialRecord
from studies.run.display import Display
from studies.run.evaluators import (
    EvaluatorMaker,
    ProgressBar,
    data_facts,
    load_images,
    load_predictor,
    needed_memory_bytes,
)
from studies.run.final_latency import measure_front
from studies.run.interruption import Interruption
from studies.run.runner import Runner
from studies.run.site import Here, PreparedStudy, Site
from studies.store.store import StudyStore

_PROBES = 30


def run_study(
    config: StudyConfig,
    root: Path,
    storage: str | None,
    display: Display,
    progress_bar: ProgressBar,
    mix: bool = False,
    interruption: Interruption | None = None,
    artefacts: str | None = None,
) -> tuple[StudyRecord, str | None]:
    """Run or resume a study; what is finished is in the storage at every moment.

    Returns the record, and why the search was given up, if it was. `mix` goes on with a study whose
    latencies were measured in another environment. With an `interruption`, signals stop the study
    between two writes to its storage. `artefacts` is a store that artefacts are copied to, where
    drivers on several hosts share the study.

    Raises:
        Interrupted: a signal came; what runs can be resumed.
        UserError, ProfilingError: it cannot run as configured; nothing was spent.
    """
    space, store = config.load_space(), StudyStore(root / config.name, storage)
    _require_colour(space)
    with (
        # Around the site: it kills what still evaluates, be it while that writes.
        swept(store.folder, store.artefacts),
        _site(config, space.image_size, progress_bar) as site,
    ):
        device = site.call(select_device, config.device)
        with progress_bar("checking limits") as progress:
            check_limits(config, space, progress)
        # Before the first large tensor: activations would be page-faulted anew at every pass.
        tune_allocator()
        interruption = interruption or Interruption()
        with full_disk_refused(store.folder), store.writing():
            dataset = _load(config, space.image_size, progress_bar)
            predictor = load_predictor(config, device, space.image_size)
            facts = {**site.call(_environment, device), **data_facts(dataset)}
            if predictor and "predicted_latency_ms" in config.wanted:
                facts["latency_predictor"] = predictor.calibration.digest
            earlier = _earlier(config, root, space, facts["data_fingerprint"])
            measures = "latency_ms" in config.wanted
            anchor_ms = store.anchor_ms
            if measures and anchor_ms is None:
                anchor_ms = site.call(measure_anchor, space.image_size, config.latency, device)
            facts["original_latency_ms"] = anchor_ms
            store.create(config, space, facts, mix, artefacts)
            if measures:  # where another driver came first, it is told in its
                anchor_ms = store.anchor_ms
            if dataset is not None:
                write_whole(store.artefacts / "samples.npy", npy(shown_images(dataset)))
                if store.mirror:
                    store.mirror.push("samples.npy")
            distinct = store.space_distinct
            if distinct is not None and distinct <= config.search.trials:
                display.note(f"{config.space}: all {distinct} architectures will be tried")
            make = EvaluatorMaker(config, space.image_size, str(device), store.artefacts, anchor_ms)
            costs = known_costs(config.objectives, predictor=predictor, anchor_ms=anchor_ms)
            limits = known_limits(config.limits, predictor, anchor_ms)
            record, gave_up = site.run(
                PreparedStudy(
                    config, store, make, dataset, predictor, facts, display, mix, interruption
                ),
                lambda crew: Runner(config, space, store, crew, display, costs, earlier, limits),
            )
            interruption.check()
            if measures:
                with (
                    store.others.claimed("measuring the front"),
                    progress_bar("measuring the front again") as progress,
                ):
                    record = measure_front(store, config.latency, device, progress, site.together)
            store.fetch(only="reconstructions.npy")
        return record, gave_up


def _site(
    config: StudyConfig, image_size: int, progress_bar: ProgressBar
) -> AbstractContextManager[Site]:
    if config.runner == "local":
        return nullcontext(Here())
    from studies.on_ray.site import ray_site

    return ray_site(config, needed_memory_bytes(config, image_size), progress_bar)


def _environment(device: torch.device) -> dict[str, Any]:
    tune_allocator()
    return fingerprint(device).model_dump()


def _load(config: StudyConfig, image_size: int, progress_bar: ProgressBar) -> ImageDataset | None:
    return load_images(config.data, image_size, progress_bar) if config.trains else None


def _earlier(
    config: StudyConfig, root: Path, space: SearchSpace, data: str | None
) -> tuple[TrialRecord, ...]:
    """Return what the sampler learns from, found by the study that the configuration names."""
    if config.search.warm_start is None:
        return ()
    store = StudyStore.open(root, config.search.warm_start)
    store.require_alike(config, space, data)
    return store.record().complete


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
    if not limits.keys() & STATIC_COSTS.keys():
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
