"""Measure the front and the references of a study again, together, at its end.

During a search each candidate is measured beside `original` alone, at different times, and the
front favours candidates whose measured latency is low by chance. So at the end the members of the
front and both references are measured in the same rounds, with their trained weights where they
were trained. Tables and figures use these latencies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from nas.artefacts import WEIGHTS
from nas.latency import Place, measure_together
from nas.setups import SetUp
from nas.timed_models import TimedImages
from profiling.paired import InterleavedLatencies
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from search_spaces.sizes import size_of
from studies.record.records import FinalLatency, StudyRecord
from studies.store.store import StudyStore

TOGETHER = 24
"""Largest number of front members per round, besides the references: a round times all of them."""

ORIGINAL = "original"

PASSES = 3
"""Largest number of repetitions: new latencies may bring new members, which are then measured."""


Together = Callable[
    [
        Mapping[str, Architecture],
        str,
        SetUp,
        Place,
        TimedImages | None,
        Mapping[str, Path],
        Callable[[int, int], None],
    ],
    InterleavedLatencies,
]
"""A function with the signature of `nas.latency.measure_together`."""


def measure_front(
    store: StudyStore,
    latency: SetUp,
    where: Place,
    images: TimedImages,
    progress: Callable[[int, int], None],
    together: Together | None = None,
    setup: str = "",
) -> StudyRecord:
    """Measure the front and the references together, record the latencies, return the study.

    Nothing is measured if all members of the front have such a latency already.

    Args:
        store: The study, open for writing.
        latency: What is timed, and how.
        where: Where it is measured.
        images: Images that the models are fed.
        progress: Called with (done, total) rounds.
        together: Measures on another host; None measures in this process.
        setup: Name of a further set-up of the study, which `latency` describes.
    """
    wanted: dict[str, Architecture] = {}
    for _ in range(PASSES):
        record = store.record()
        front = {trial.digest: trial.architecture for trial in record.front if not trial.reference}
        known = store.final_latency(setup)
        if not record.complete or (known and front.keys() <= known.keys()):
            return record
        wanted |= front
        found = measure_trials(store, wanted, latency, where, images, progress, together)
        store.set_final_latency({**known, **found}, setup)
    return store.record()


def measure_trials(
    store: StudyStore,
    wanted: Mapping[str, Architecture],
    latency: SetUp,
    where: Place,
    images: TimedImages,
    progress: Callable[[int, int], None],
    together: Together | None = None,
) -> dict[str, FinalLatency]:
    """Measure architectures together with the references, in groups; return them by digest.

    Args:
        store: The study, whose trained weights are used.
        wanted: Digest -> architecture, without the references.
        latency: What is timed, and how.
        where: Where it is measured.
        images: Images that the models are fed.
        progress: Called with (done, total) rounds of each group.
        together: Measures on another host; None measures in this process.
    """
    measure, found = together or measure_together, dict[str, FinalLatency]()
    channels, height, width = images.pixels.shape[1:]
    size = size_of(height, width)
    anchors = {name: one.resized(size, channels) for name, one in REFERENCES.items()}
    for group in _groups(wanted):
        members = {**group, **anchors}
        weights = _weights(store, members)
        latencies = measure(members, ORIGINAL, latency, where, images, weights, progress)
        found |= _final(members, anchors, latencies)
    return found


def _weights(store: StudyStore, members: Mapping[str, Architecture]) -> dict[str, Path]:
    """Return the files of trained weights that the study has, by the name of the model."""
    files = {n: (store.artefacts / one.digest / WEIGHTS).absolute() for n, one in members.items()}
    return {name: path for name, path in files.items() if path.is_file()}


def _final(
    members: Mapping[str, Architecture], anchors: Iterable[str], latencies: InterleavedLatencies
) -> dict[str, FinalLatency]:
    return {
        architecture.digest: FinalLatency(
            over={
                anchor: (ratio.median, *ratio.interval)
                for anchor in anchors
                for ratio in [latencies.ratio(name, anchor)]
            },
            contended=latencies.contended,
            weights=latencies.taken[name].subject.weights,
        )
        for name, architecture in members.items()
    }


def _groups(members: Mapping[str, Architecture]) -> Iterator[dict[str, Architecture]]:
    """Yield the members in groups; at least one group, because references are measured as well."""
    left = iter(members.items())
    group = dict(islice(left, TOGETHER))
    yield group
    while group := dict(islice(left, TOGETHER)):
        yield group
