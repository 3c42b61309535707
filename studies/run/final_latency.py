"""The latencies a study ends with: its front and references, measured once more, together.

During a search each candidate is measured beside `original` alone, minutes or hours apart, and the
front favours those that were lucky. So at the end the members of the front take turns with both
references in the same rounds, and tables and figures use that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import torch

from nas.latency import measure_together
from profiling.latency import LatencyConfig
from profiling.paired import InterleavedLatencies
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from studies.record.records import FinalLatency, StudyRecord
from studies.store.store import StudyStore

TOGETHER = 24
"""Members of the front that share rounds, besides the references: each round costs all of them."""

PASSES = 3
"""Times that the front is looked at: new values may bring new members, which are measured then."""


Together = Callable[
    [Mapping[str, Architecture], str, LatencyConfig, torch.device, Callable[[int, int], None]],
    InterleavedLatencies,
]
"""As `nas.latency.measure_together`."""


def measure_front(
    store: StudyStore,
    latency: LatencyConfig,
    device: torch.device,
    progress: Callable[[int, int], None],
    together: Together | None = None,
) -> StudyRecord:
    """Measure the front and the references together and record it; return the study with it.

    Nothing is measured where the front's members already were. `together` measures elsewhere;
    None does it here.
    """
    wanted: dict[str, Architecture] = {}
    for _ in range(PASSES):
        record = store.record()
        front = {trial.digest: trial.architecture for trial in record.front if not trial.reference}
        known = store.final_latency()
        if not record.complete or (known and front.keys() <= known.keys()):
            return record
        wanted |= front
        anchors = {name: REFERENCES[name].resized(record.image_size) for name in REFERENCES}
        found: dict[str, FinalLatency] = {}
        for group in _groups(wanted):
            found |= _measured(
                together or measure_together, group, anchors, latency, device, progress
            )
        store.set_final_latency({**known, **found})
    return store.record()


def _measured(
    measure: Together,
    members: Mapping[str, Architecture],
    anchors: Mapping[str, Architecture],
    latency: LatencyConfig,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> dict[str, FinalLatency]:
    together = {**members, **anchors}
    turns = measure(together, next(iter(anchors)), latency, device, progress)
    return {
        architecture.digest: FinalLatency(
            over={
                anchor: (ratio.median, *ratio.interval)
                for anchor in anchors
                for ratio in [turns.ratio(name, anchor)]
            },
            contended=turns.contended,
        )
        for name, architecture in together.items()
    }


def _groups(members: Mapping[str, Architecture]) -> Iterator[dict[str, Architecture]]:
    """Yield the members in groups; at least one group, since the references are measured too."""
    left = iter(members.items())
    group = dict(islice(left, TOGETHER))
    yield group
    while group := dict(islice(left, TOGETHER)):
        yield group
