"""Run a study from its configuration: prepare it, search, confirm and measure the front again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.artefacts import PICTURES, full_disk_refused
from nas.datasets import ImageDataset, require_source
from nas.evaluate import STATIC_COSTS, static_costs
from nas.latency import Place, address_of, measure_anchor
from nas.predict.predictor import LatencyPredictor
from nas.setups import SetUp, require_backend, runtimes
from nas.timed_models import TimedImages
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint, has_bfloat16, select_device
from profiling.files import swept
from profiling.fresh_process import begun_again
from profiling.target.client import KnownTarget, reach
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.numbers import at_least, at_most
from search_spaces.references import ORIGINAL
from search_spaces.sizes import Size
from search_spaces.space import SearchSpace
from studies.config.parts import sources_of
from studies.config.study import StudyConfig
from studies.confirm.confirmation import Shown, confirm
from studies.confirm.plan import best_models
from studies.record.comparison import found
from studies.record.records import StudyRecord, TrialRecord
from studies.record.verdict import Limits, in_words, missed
from studies.run.dashboard import write_dashboard
from studies.run.display import Display
from studies.run.evaluators import (
    EvaluatorMaker,
    ProgressBar,
    load_predictor,
    needed_memory_bytes,
)
from studies.run.final_latency import measure_front
from studies.run.floors import record_floors
from studies.run.images import about_images, data_facts, load_images, say_images, write_samples
from studies.run.interruption import Interruption
from studies.run.own import try_parts
from studies.run.site import LocalSite, PreparedStudy, Site
from studies.storage.mirror import store_url
from studies.store.reading import stored_anchors
from studies.store.store import StudyStore
from studies.terminal.console import Terminal

_PROBES = 30
"""Random candidates that are counted to check whether any meets the limits."""

_PASSES = 2
"""Number of times that the front is confirmed and measured again at the end."""


@contextmanager
def _no_bar(_label: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


@dataclass(frozen=True)
class _Request:
    """The arguments of `run_study`, with their defaults filled in."""

    config: StudyConfig
    root: Path
    space: SearchSpace
    original: Architecture
    store: StudyStore
    artefacts: str | None
    mix: bool
    display: Display
    progress_bar: ProgressBar
    interruption: Interruption
    targets: Mapping[str, KnownTarget] = field(default_factory=dict)

    def place(self, setup: SetUp, device: torch.device) -> Place:
        """Return where a set-up measures: its target, or a device of this machine."""
        return self.targets[setup.target] if setup.target else device


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
    """Run or resume a study; every finished trial is in the storage at once.

    Args:
        config: Space, data, objectives, budget and search of the study.
        root: Folder of all studies; the study's own folder in it has the study's name.
        storage: Address of the storage, as for `StudyStore`.
        artefacts: URL of a store that artefacts are copied to, so that drivers on several hosts can
            share the study.
        mix: Whether to resume a study whose latencies were measured in another environment.
        display: Shows the running study; None shows nothing.
        progress_bar: Makes the progress bars of preparation and measurement.
        interruption: Lets signals stop the study between two writes to its storage.

    Returns:
        The record, and the reason for giving up the search, or None.

    Raises:
        Interrupted: a signal came; the running trials can be resumed.
        UserError, ProfilingError: the study cannot run as configured.
    """
    space, store = config.load_space(), StudyStore(root / config.name, storage)
    display = display or Display(Terminal(quiet=True), config.search.trials, config.training.epochs)
    interruption = interruption or Interruption()
    if artefacts is not None:  # refused before anything is written
        store_url(artefacts)
    original = ORIGINAL.resized(space.image_size, space.image_channels)
    request = _Request(
        config, root, space, original, store, artefacts, mix, display, progress_bar, interruption
    )
    if config.trains:
        require_source(config.data, space.image_size)
    try_parts(config, space)
    with (
        # Around the site: at its end it kills workers, possibly while they write a file.
        swept(store.folder, store.artefacts),
        _site(config, space.image_size, progress_bar) as site,
    ):
        device = _checked_device(request, site)
        request = replace(
            request,
            config=_with_precision(config, site, device),
            targets=_reached(request.config, site),
        )
        with full_disk_refused(store.folder), store.writing():
            prepared = _prepared(request, site, device)
            record, gave_up = site.run(prepared)
            interruption.check()
            images = _timed_images(prepared.dataset, space)
            return _concluded(request, site, device, images, prepared.dataset, record), gave_up


def _checked_device(request: _Request, site: Site) -> torch.device:
    """Return the device of the study, after a check that its limits leave candidates."""
    device: torch.device = site.call(select_device, request.config.device)
    for setup in request.config.all_setups.values() if request.config.measured else ():
        site.call(require_backend, setup, device)
    with request.progress_bar("checking limits") as progress:
        try:
            check_limits(request.config, request.space, progress)
        except UserError:
            if not _has_candidate_within_limits(request):
                raise
    return device


def _reached(config: StudyConfig, site: Site) -> dict[str, KnownTarget]:
    """Return the targets of the set-ups by name, after a check that models can be timed there."""
    names = dict.fromkeys(one.target for one in config.all_setups.values() if one.target)
    addresses = {name: address_of(name) for name in names}
    return {n: site.call(reach, one) for n, one in addresses.items() if config.timed}


def _with_precision(config: StudyConfig, site: Site, device: torch.device) -> StudyConfig:
    """Return the configuration with the precision that "auto" means on the study's device.

    It is recorded, so that no training of the study has another one.
    """
    if not config.trains or config.training.precision != "auto":
        return config
    half = site.call(has_bfloat16, device)
    precision = {"precision": "bfloat16" if half else "float32"}
    return config.model_copy(update={"training": config.training.model_copy(update=precision)})


def _has_candidate_within_limits(request: _Request) -> bool:
    try:
        trials = request.store.record().trials
    except UserError:  # there is no study yet
        return False
    known = (trial.findings for trial in trials if trial.objectives and not trial.reference)
    return any(missed(request.config.limits, findings) is None for findings in known)


def _prepared(request: _Request, site: Site, device: torch.device) -> PreparedStudy:
    """Load images and predictor, measure the anchor, and record the study's configuration.

    The study's storage must be open for writing.
    """
    # Before the first large tensor: otherwise every pass page-faults its activations again.
    tune_allocator()
    config, space, store = request.config, request.space, request.store
    dataset = _load(config, space, request.progress_bar)
    predictor = load_predictor(config, device, space.image_size, request.targets)
    images = _timed_images(dataset, space)
    facts = _facts(site, device, config, dataset, predictor)
    if config.timed:
        facts["timed_on"] = images.about
        facts["runtime"] = site.call(runtimes, list(config.all_setups.values()))
    if request.targets:
        facts["targets"] = {name: one.facts.lasting for name, one in request.targets.items()}
    earlier = _earlier(config, request.root, space, facts["data_fingerprint"])
    facts |= stored_anchors(_anchors_ms(request, site, device, images))
    limits = store.limits
    store.create(config, space, facts, request.mix, request.artefacts)
    _note_changed_limits(request, limits)
    if dataset is not None:
        write_samples(store, dataset)
        say_images(store, dataset, facts["about_images"], request.display.note)
        record_floors(store, dataset, config, space, request.progress_bar)
    _note_small_space(request)
    # Read again: another driver may have recorded its anchor first.
    anchors_ms = store.anchors_ms
    make = EvaluatorMaker(
        config,
        space.image_size,
        str(device),
        store.artefacts,
        anchors_ms,
        sources_of(config),
        # On Ray each node compares its own images, and names itself.
        facts["data_fingerprint"] if config.runner == "local" else None,
        request.targets,
    )
    return PreparedStudy(
        config=config,
        space=space,
        store=store,
        make=make,
        dataset=dataset,
        predictor=predictor,
        environment=facts,
        earlier=earlier,
        display=request.display,
        mix=request.mix,
        interruption=request.interruption,
    )


def _concluded(
    request: _Request,
    site: Site,
    device: torch.device,
    images: TimedImages,
    dataset: ImageDataset | None,
    record: StudyRecord,
) -> StudyRecord:
    """Confirm the best models, measure the front again, and gather the images for the report.

    Either may bring new members to the front, so both are done twice; what is known already is not
    done again.
    """
    config, store = request.config, request.store
    for _ in range(_PASSES):
        record = _confirmed(request, device, dataset, record)
        for name, setup in config.all_setups.items() if config.measured else ():
            label = "measuring the front again" + f", {name}" * bool(name)
            with (
                store.others.claimed("measuring the front"),
                request.progress_bar(label) as progress,
            ):
                place = request.place(setup, device)
                record = begun_again(
                    measure_front, store, setup, place, images, progress, site.together, name
                )
    store.fetch(only=PICTURES)
    write_dashboard(store, record)
    return record


def _confirmed(
    request: _Request, device: torch.device, dataset: ImageDataset | None, record: StudyRecord
) -> StudyRecord:
    """Train the models that may be best with further seeds, where the study asks for it."""
    config, store, asked = request.config, request.store, request.config.confirmation
    if dataset is None or asked is None or not found(record):
        return record
    if device.type == "cuda" and not torch.cuda.is_available():  # it is a node's
        request.display.note(
            f"not confirmed: this machine has no {device}; on one that has: "
            f"nas study confirm {config.name}"
        )
        return record
    with store.others.claimed("confirming the best models"):
        record = store.record()
        plan = best_models(record, asked.seeds, asked.top, request.space)
        shown = Shown(request.display.note, request.progress_bar, request.interruption)
        return confirm(store, config, plan, dataset, device, shown)


def _facts(
    site: Site,
    device: torch.device,
    config: StudyConfig,
    dataset: ImageDataset | None,
    predictor: LatencyPredictor | None,
) -> dict[str, Any]:
    """Return the description of environment, images and predictor that is recorded."""
    facts = {**site.call(_environment, device), **data_facts(dataset)}
    if dataset is not None:
        facts["about_images"] = about_images(dataset)
    if predictor and "predicted_latency_ms" in config.wanted:
        facts["latency_predictor"] = predictor.calibration.digest
    return facts


def _timed_images(dataset: ImageDataset | None, space: SearchSpace) -> TimedImages:
    noise = space.image_size, space.image_channels
    return TimedImages.of(dataset) if dataset else TimedImages.noise(*noise)


def _anchors_ms(
    request: _Request, site: Site, device: torch.device, images: TimedImages
) -> dict[str, float]:
    """Return the study's latency of `original` in ms in each set-up; measure what is wanted."""
    known, original = request.store.anchors_ms, request.original
    if not request.config.measured:
        return known
    return {
        name: known.get(name)
        or begun_again(
            site.call, measure_anchor, original, setup, request.place(setup, device), images
        )
        for name, setup in request.config.all_setups.items()
    }


def _note_small_space(request: _Request) -> None:
    distinct = request.store.space_distinct
    if distinct is not None and distinct <= request.config.search.trials:
        name = request.config.space_name
        request.display.note(f"{name}: all {distinct} architectures will be tried")


def _note_changed_limits(request: _Request, before: Limits | None) -> None:
    now = request.config.limits
    if before is not None and dict(before) != dict(now):
        request.display.note(
            f"limits were {in_words(before)}, now {in_words(now)}: the trials so far are judged by "
            "these"
        )


def _site(
    config: StudyConfig, image_size: Size, progress_bar: ProgressBar
) -> AbstractContextManager[Site]:
    if config.runner == "local":
        return nullcontext(LocalSite())
    from studies.on_ray.site import ray_site

    return ray_site(config, needed_memory_bytes(config, image_size), progress_bar)


def _environment(device: torch.device) -> dict[str, Any]:
    tune_allocator()
    return fingerprint(device).model_dump()


def _load(
    config: StudyConfig, space: SearchSpace, progress_bar: ProgressBar
) -> ImageDataset | None:
    if not config.trains:
        return None
    return load_images(config.data, space.image_size, progress_bar, space.image_channels)


def _earlier(
    config: StudyConfig, root: Path, space: SearchSpace, data: str | None
) -> tuple[TrialRecord, ...]:
    """Return the trained trials of the study named by `search.warm_start`."""
    if config.search.warm_start is None:
        return ()
    store = StudyStore.open(root, config.search.warm_start)
    store.require_comparable(config, space, data)
    return tuple(trial for trial in store.record().trials if trial.trained)


def check_limits(
    config: StudyConfig, space: SearchSpace, progress: Callable[[int, int], None]
) -> None:
    """Refuse limits that no candidate seems to meet, before any training.

    Computes the static costs of up to 30 random candidates (0.1 s each), until one meets all limits
    on static costs.

    Raises:
        UserError: no candidate met them; the message has the costs of the candidate that exceeds
            them least, which are limits that it meets.
    """
    limits = {name: limit for name, limit in config.limits.items() if name in STATIC_COSTS}
    if not limits:
        return
    rng, nearest = np.random.default_rng(0), dict[str, float]()
    excess = math.inf
    for probe in range(_PROBES):
        progress(probe, _PROBES)
        costs = static_costs(space.architecture(space.sample(rng)))
        over = max(costs[name] / limit for name, limit in limits.items())
        if over <= 1:
            return
        if over < excess:
            excess, nearest = over, {name: costs[name] for name in limits}
    wanted = ", ".join(f"{name} {at_most(limit)}" for name, limit in limits.items())
    found = ", ".join(f"{name} {at_least(value)}" for name, value in nearest.items())
    raise UserError(
        f"limits: none of {_PROBES} random candidates of space {space.name!r} meets {wanted}; the "
        f"nearest of them has {found}: raise the limits or choose another space"
    )
