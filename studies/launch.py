"""Set a study up from its configuration and run it: device, data, store, evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch

from nas.artefacts import full_disk_refused, swept, write_whole
from nas.calibration import Setting
from nas.datasets import DataConfig, ImageDataset, load_dataset
from nas.evaluate import (
    STATIC,
    Evaluator,
    npy,
    shown_images,
    static_costs,
    training_memory_bytes,
)
from nas.known_costs import known_costs, known_limits
from nas.latency import measure_anchor
from nas.predictor import LatencyPredictor
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint, select_device
from profiling.lane import Lane
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.config import LEAST_MEMORY_BYTES, StudyConfig
from studies.crew import Alone, Crew, OnBatch, Workers
from studies.display import Display
from studies.final_latency import Together, measure_front
from studies.interruption import Interruptible, Interruption
from studies.records import StudyRecord, TrialRecord
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
            predictor = _predictor(config, device, space.image_size)
            facts = {**site.call(_environment, device), **data_facts(dataset)}
            if predictor and "predicted_latency_ms" in {*config.objectives, *config.limits}:
                facts["latency_predictor"] = predictor.calibration.digest
            earlier = _earlier(config, root, space, facts["data_fingerprint"])
            measures = "latency_ms" in {*config.objectives, *config.limits}
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
                Prepared(
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


class Site(Protocol):
    """Where a study's candidates are evaluated and its latencies are measured."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function there."""

    @property
    def together(self) -> Together | None:
        """Measures architectures together, there; None where that is this machine."""

    def run(
        self, prepared: Prepared, make_runner: Callable[[Any], Runner[Any]]
    ) -> tuple[StudyRecord, str | None]:
        """Run the study; return its record, and why the search was given up, if it was."""


class Here:
    """This machine."""

    together: Together | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in this process."""
        return function(*args)

    def run(
        self, prepared: Prepared, make_runner: Callable[[Any], Runner[Any]]
    ) -> tuple[StudyRecord, str | None]:
        """Run the study in this process, or in several beside it."""
        interruption = prepared.interruption
        with _crew(prepared) as crew, prepared.display:
            runner = make_runner(Interruptible(crew, interruption))
            with interruption.held():
                return runner.run(), runner.gave_up


def _site(
    config: StudyConfig, image_size: int, progress_bar: ProgressBar
) -> AbstractContextManager[Site]:
    if config.runner == "local":
        return nullcontext(Here())
    from studies.ray_site import ray_site

    return ray_site(config, needed_memory_bytes(config, image_size), progress_bar)


def _environment(device: torch.device) -> dict[str, Any]:
    tune_allocator()
    return fingerprint(device).model_dump()


@dataclass(frozen=True)
class EvaluatorMaker:
    """Makes a study's evaluator, in whatever process it is called; can be sent there."""

    config: StudyConfig
    image_size: int
    device: str
    artefacts: Path
    anchor_ms: float | None

    def __call__(self, on_batch: OnBatch) -> Evaluator:
        """Return the evaluator of a process of its own, with images from the cache."""
        tune_allocator()
        device = torch.device(self.device)
        trains = _trains(self.config)
        dataset = load_dataset(self.config.data, self.image_size) if trains else None
        return self.make(on_batch, dataset, _predictor(self.config, device, self.image_size))

    def make(
        self,
        on_batch: OnBatch,
        dataset: ImageDataset | None,
        predictor: LatencyPredictor | None,
    ) -> Evaluator:
        """Return the evaluator with what is loaded already."""
        config = self.config
        return Evaluator(
            dataset=dataset,
            predictor=predictor,
            training=config.training,
            latency=config.latency,
            device=torch.device(self.device),
            wanted={*config.objectives, *config.limits},
            anchor_ms=self.anchor_ms,
            artefacts=self.artefacts,
            thread_count=config.threads or self._threads(),
            on_batch=on_batch,
        )

    def _threads(self) -> int:
        if self.config.runner == "ray":
            return max(1, int(self.config.ray.cpus_per_trial))
        return max(1, cores() // self.workers)

    @cached_property
    def workers(self) -> int:
        """Number of processes that evaluate on this machine."""
        return self.config.workers or default_workers(self.config, self.image_size, self.device)


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run."""

    config: StudyConfig
    store: StudyStore
    make: EvaluatorMaker
    dataset: ImageDataset | None
    predictor: LatencyPredictor | None
    environment: Mapping[str, Any]
    display: Display
    mix: bool
    interruption: Interruption


def cores() -> int:
    """Physical cores: two hyper-threads share one core's arithmetic."""
    return psutil.cpu_count(logical=False) or 1


def default_workers(config: StudyConfig, image_size: int, device: str) -> int:
    """Return how many processes make sense: one on a GPU, else one per core that has the memory.

    Four fifths of the memory are used.
    """
    if device != "cpu" or not _trains(config):
        return 1
    room = psutil.virtual_memory().available * 4 // 5
    return max(1, min(cores(), room // needed_memory_bytes(config, image_size)))


def needed_memory_bytes(config: StudyConfig, image_size: int) -> int:
    """Estimate what evaluating a candidate takes, judged by the larger reference."""
    if not _trains(config):
        return LEAST_MEMORY_BYTES
    return LEAST_MEMORY_BYTES + max(
        training_memory_bytes(architecture.resized(image_size), config.training.batch_size)
        for architecture in REFERENCES.values()
    )


@contextmanager
def _crew(prepared: Prepared) -> Iterator[Crew]:
    make = prepared.make
    limits = make.config.trial_limits
    # A limit is kept by ending the process that exceeds it: it cannot be this one.
    if make.workers == 1 and not limits:
        batch = prepared.display.batch
        yield Alone(make.make(batch, prepared.dataset, prepared.predictor))
    else:
        with Workers(make.workers, make, limits) as workers:
            yield workers


def _load(config: StudyConfig, image_size: int, progress_bar: ProgressBar) -> ImageDataset | None:
    return load_images(config.data, image_size, progress_bar) if _trains(config) else None


def load_images(data: DataConfig, image_size: int, progress_bar: ProgressBar) -> ImageDataset:
    """Load what is trained on, letting others measure meanwhile."""
    lane = Lane("cpu")

    def loaded(done: int, total: int) -> None:
        lane.enter()  # rendering and decoding disturb a measurement as much as training does
        progress(done, total)

    with progress_bar(f"loading {data.kind}") as progress, lane.training():
        return load_dataset(data, image_size, loaded)


def _predictor(
    config: StudyConfig, device: torch.device, image_size: int
) -> LatencyPredictor | None:
    """Load the predictor if this study has a use for one: an objective, a limit, or its sampler.

    Raises:
        UserError: a predicted latency is wanted, and there is no predictor for it.
    """
    needed = "predicted_latency_ms" in {*config.objectives, *config.limits}
    screens = config.search.sampler == "pareto" and "latency_ms" in config.objectives
    if not (needed or screens or "latency_ms" in config.limits):
        return None
    setting = Setting(str(device), config.latency.threads, config.latency.batch, image_size)
    try:
        found = LatencyPredictor.load(*astuple(setting))
    except UserError:
        if needed:
            raise
        return None
    if found is None and needed:
        raise UserError(
            f"predicted_latency_ms: there is no latency predictor for {setting.words}; "
            f"make one with: {setting.remedy}"
        )
    return found


def _earlier(
    config: StudyConfig, root: Path, space: SearchSpace, data: str | None
) -> tuple[TrialRecord, ...]:
    """Return what the sampler learns from, found by the study that the configuration names."""
    if config.search.warm_start is None:
        return ()
    store = StudyStore.open(root, config.search.warm_start)
    store.require_alike(config, space, data)
    return store.record().complete


def _trains(config: StudyConfig) -> bool:
    return any(objective.cost == "training" for objective in config.selected)


def data_facts(dataset: ImageDataset | None) -> dict[str, Any]:
    """Return what is recorded of the images: fingerprint, and how many are in each part."""
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
    if not limits.keys() & STATIC.keys():
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
