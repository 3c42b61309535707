"""Run a study from its configuration: prepare it, search, conclude it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from nas.artefacts import full_disk_refused, write_whole
from nas.datasets import ImageDataset
from nas.evaluate import STATIC_COSTS, npy, shown_images, static_costs
from nas.latency import measure_anchor
from nas.predict.predictor import LatencyPredictor
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint, select_device
from profiling.files import swept
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
from studies.run.site import Here, PreparedStudy, Site
from studies.store.store import StudyStore

_PROBES = 30


@contextmanager
def _no_bar(_label: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


@dataclass(frozen=True)
class _Asked:
    """What `run_study` was asked for, completed."""

    config: StudyConfig
    root: Path
    space: SearchSpace
    store: StudyStore
    artefacts: str | None
    mix: bool
    display: Display
    progress_bar: ProgressBar
    interruption: Interruption


def run_study(
    config: StudyConfig,
    root: Path,
    *,
    storage: str | None = None,
    artefacts: str | None = None,
    mix: bool = False,
    display: Display | None = None,
    progress_bar: ProgressBar = _no_bar,
    interruption: Interruption | None = None,
) -> tuple[StudyRecord, str | None]:
    """Run or resume a study; what is finished is in the storage at every moment.

    Args:
        config: The question.
        root: Folder of the studies; the study has the folder of its name in there.
        storage: Where the record is kept, as for `StudyStore`.
        artefacts: URL of a store that artefacts are copied to, where drivers on several hosts share
            the study.
        mix: Whether to go on with a study whose latencies were measured in another environment.
        display: What shows the running study; None shows nothing.
        progress_bar: Makes the progress bars of what is prepared and measured.
        interruption: Lets signals stop the study between two writes to its storage.

    Returns:
        The record, and why the search was given up, if it was.

    Raises:
        Interrupted: a signal came; what runs can be resumed.
        UserError, ProfilingError: it cannot run as configured; nothing was spent.
    """
    space, store = config.load_space(), StudyStore(root / config.name, storage)
    display = display or Display(Console(quiet=True), config.search.trials, config.training.epochs)
    interruption = interruption or Interruption()
    asked = _Asked(config, root, space, store, artefacts, mix, display, progress_bar, interruption)
    _require_colour(space)
    with (
        # Around the site: it kills what still evaluates, be it while that writes.
        swept(store.folder, store.artefacts),
        _site(config, space.image_size, progress_bar) as site,
    ):
        device = _checked_device(asked, site)
        with full_disk_refused(store.folder), store.writing():
            record, gave_up = site.run(_prepared(asked, site, device))
            interruption.check()
            return _concluded(asked, site, device, record), gave_up


def _checked_device(asked: _Asked, site: Site) -> torch.device:
    """Return the device of the study, when its limits have proved to leave candidates."""
    device: torch.device = site.call(select_device, asked.config.device)
    with asked.progress_bar("checking limits") as progress:
        check_limits(asked.config, asked.space, progress)
    return device


def _prepared(asked: _Asked, site: Site, device: torch.device) -> PreparedStudy:
    """Load and measure what the study needs, and record what it is.

    The study's storage must be open for writing.
    """
    # Before the first large tensor: activations would be page-faulted anew at every pass.
    tune_allocator()
    config, space, store = asked.config, asked.space, asked.store
    dataset = _load(config, space.image_size, asked.progress_bar)
    predictor = load_predictor(config, device, space.image_size)
    facts = _facts(site, device, config, dataset, predictor)
    earlier = _earlier(config, asked.root, space, facts["data_fingerprint"])
    facts["original_latency_ms"] = _anchor_ms(asked, site, device)
    store.create(config, space, facts, asked.mix, asked.artefacts)
    _write_samples(store, dataset)
    _note_small_space(asked)
    # Read again: another driver may have been the first to record its own.
    anchor_ms = store.anchor_ms
    make = EvaluatorMaker(config, space.image_size, str(device), store.artefacts, anchor_ms)
    return PreparedStudy(
        config=config,
        space=space,
        store=store,
        make=make,
        dataset=dataset,
        predictor=predictor,
        environment=facts,
        earlier=earlier,
        display=asked.display,
        mix=asked.mix,
        interruption=asked.interruption,
    )


def _concluded(asked: _Asked, site: Site, device: torch.device, record: StudyRecord) -> StudyRecord:
    """Measure the front once more, where latency is wanted, and fetch what the report shows."""
    config, store = asked.config, asked.store
    if "latency_ms" in config.wanted:
        with (
            store.others.claimed("measuring the front"),
            asked.progress_bar("measuring the front again") as progress,
        ):
            record = measure_front(store, config.latency, device, progress, site.together)
    store.fetch(only="reconstructions.npy")
    return record


def _facts(
    site: Site,
    device: torch.device,
    config: StudyConfig,
    dataset: ImageDataset | None,
    predictor: LatencyPredictor | None,
) -> dict[str, Any]:
    """Return what is recorded of the environment, the images and the predictor."""
    facts = {**site.call(_environment, device), **data_facts(dataset)}
    if predictor and "predicted_latency_ms" in config.wanted:
        facts["latency_predictor"] = predictor.calibration.digest
    return facts


def _anchor_ms(asked: _Asked, site: Site, device: torch.device) -> float | None:
    """Return the latency of `original` that the study has, or measure it where one is wanted."""
    known = asked.store.anchor_ms
    if known is not None or "latency_ms" not in asked.config.wanted:
        return known
    size, latency = asked.space.image_size, asked.config.latency
    measured: float = site.call(measure_anchor, size, latency, device)
    return measured


def _write_samples(store: StudyStore, dataset: ImageDataset | None) -> None:
    if dataset is None:
        return
    write_whole(store.artefacts / "samples.npy", npy(shown_images(dataset)))
    if store.mirror:
        store.mirror.push("samples.npy")


def _note_small_space(asked: _Asked) -> None:
    distinct = asked.store.space_distinct
    if distinct is not None and distinct <= asked.config.search.trials:
        asked.display.note(f"{asked.config.space}: all {distinct} architectures will be tried")


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
