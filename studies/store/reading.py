"""Read a stored study into its record."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nas.objectives import select_objectives
from search_spaces.errors import UserError
from studies.record.records import FinalLatency, StudyRecord, TrialRecord
from studies.record.verdict import judged
from studies.storage.addresses import masked
from studies.store.frozen import last_of_each, record_of
from studies.store.opened import OpenedStudy

FORMAT = 1
"""Version of the format of trial and study attributes."""


def read_study(opened: OpenedStudy) -> StudyRecord:
    """Read a whole study.

    Raises:
        UserError: there is no such study, or `nas` did not create it.
    """
    with _collecting_no_garbage():
        attributes = opened.attributes
        if attributes.get("format") != FORMAT:
            raise UserError(
                f"{masked(opened.address)}: study {opened.study.study_name!r} was not made by nas"
            )
        environment, final = attributes["environment"], final_latencies(attributes)
        anchor_ms = environment.get("original_latency_ms")
        config = attributes["config"]
        trials = (
            with_final_latency(record_of(trial), final, anchor_ms)
            for trial in last_of_each(opened.study.get_trials(deepcopy=False))
        )
        limits = config.get("limits") or {}
        return StudyRecord(
            name=opened.study.study_name,
            objectives=select_objectives(config["objectives"]),
            trials=tuple(judged(trial, limits) for trial in trials),
            config=config,
            environment=environment,
            folder=opened.folder,
            space_size=attributes["space_size"],
            space_distinct=attributes.get("space_distinct"),
            measured_together=bool(final),
            mixed=tuple(environment.get("mixed", ())),
        )


def final_latencies(attributes: Mapping[str, Any]) -> dict[str, FinalLatency]:
    """Return the latencies of the last measurement of front and references, by digest."""
    return {
        digest: FinalLatency(
            over={name: (m, low, high) for name, (m, low, high) in one["over"].items()},
            contended=one["contended"],
        )
        for digest, one in attributes.get("final_latency", {}).items()
    }


def with_final_latency(
    trial: TrialRecord, final: Mapping[str, FinalLatency], anchor_ms: float | None
) -> TrialRecord:
    """Return a complete trial with its latency of the study's last measurement, if it has one.

    Args:
        trial: The trial; one that is not complete is returned unchanged.
        final: Latencies of the last measurement, by digest.
        anchor_ms: Latency of `original` when the study began, in ms.
    """
    if trial.state != "complete" or trial.digest not in final or anchor_ms is None:
        return trial
    return trial.with_latency(final[trial.digest], anchor_ms)


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """Disable Python's garbage collector, which would run repeatedly while a record is built."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # moves all objects to the oldest generation, unscanned
            gc.freeze()
            gc.unfreeze()
        if was:
            gc.enable()
