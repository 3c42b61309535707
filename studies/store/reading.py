"""Read a stored study into its record."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nas.floors import Floors
from nas.objectives import select_objectives, trained_objectives
from search_spaces.errors import UserError
from studies.record.records import FinalLatency, SeedRun, StudyRecord, TrialRecord
from studies.record.verdict import judged
from studies.storage.addresses import shown
from studies.store.attributes import runs_in
from studies.store.frozen import last_of_each, record_of
from studies.store.opened import OpenedStudy

FORMAT = 1
"""Version of the format of trial and study attributes."""

_ANCHOR, _FURTHER_ANCHORS = "original_latency_ms", "original_latencies_ms"


def anchors_ms(environment: Mapping[str, Any]) -> dict[str, float]:
    """Return the latency of `original` when a study began, in ms, by set-up; "" is the first."""
    first = environment.get(_ANCHOR)
    further = environment.get(_FURTHER_ANCHORS, {})
    return {**({} if first is None else {"": first}), **further}


def stored_anchors(anchors: Mapping[str, float]) -> dict[str, Any]:
    """Return the entries of the environment from which `anchors_ms` reads the anchors."""
    further = {name: one for name, one in anchors.items() if name}
    return {_ANCHOR: anchors.get(""), **({_FURTHER_ANCHORS: further} if further else {})}


def read_study(opened: OpenedStudy) -> StudyRecord:
    """Read a whole study. Trials whose attributes are damaged are left out and listed.

    Raises:
        UserError: there is no such study, `nas` did not create it, or its own attributes are
            damaged.
    """
    with _collecting_no_garbage():
        attributes = opened.attributes
        if attributes.get("format") != FORMAT:
            raise UserError(
                f"{shown(opened.address)}: study {opened.study.study_name!r} was not made by nas"
            )
        environment, config = attributes["environment"], attributes["config"]
        trials, damaged = _read_trials(opened, attributes)
        limits = config.get("limits") or {}
        return StudyRecord(
            name=opened.study.study_name,
            objectives=select_objectives(config["objectives"]),
            trials=tuple(judged(trial, limits) for trial in trials),
            damaged=tuple(damaged),
            config=config,
            environment=environment,
            folder=opened.folder,
            space_size=attributes["space_size"],
            space_distinct=attributes.get("space_distinct"),
            measured_together=bool(attributes.get("final_latency")),
            mixed=tuple(environment.get("mixed", ())),
            floors=floors_of(attributes),
            own={
                name: (one["part"], one["source"])
                for name, one in attributes.get("own", {}).items()
            },
        ).with_intervals()


def _read_trials(
    opened: OpenedStudy, attributes: Mapping[str, Any]
) -> tuple[list[TrialRecord], list[str]]:
    """Return the intact trials, and what is wrong with each damaged one."""
    anchors = anchors_ms(attributes["environment"])
    final = {name: final_latencies(attributes, name) for name in anchors}
    objectives, axes = attributes["config"]["objectives"], attributes["space"]["axes"]
    choices = {name: {(type(one), one) for one in axes[name]["choices"]} for name in axes}
    runs = further_runs(attributes)
    trials, damaged = [], []
    for stored in last_of_each(opened.trials()):
        try:
            trial = record_of(stored)
            _require_fit(trial, objectives, choices)
        except UserError as error:
            damaged.append(str(error))
        else:
            trials.append(with_runs(with_final_latencies(trial, final, anchors), runs))
    return trials, damaged


def _require_fit(
    trial: TrialRecord, objectives: Sequence[str], choices: Mapping[str, set[tuple[type, Any]]]
) -> None:
    """Check that a trial fits its study; raise `UserError` otherwise."""
    for name, value in trial.assignment.items():
        if (type(value), value) not in choices.get(name, ()):
            raise UserError(
                f"trial {trial.number}: damaged (candidate.assignment: {value!r:.40} is not a "
                f"choice of axis {name!r:.40})"
            )
    missing = [f"objectives: {name}" for name in objectives if name not in trial.objectives]
    missing = missing if trial.state == "complete" else []
    for name in trained_objectives(objectives)[:1]:  # early stopping and a figure read it
        if any(name not in epoch for epoch in trial.history):
            missing.append(f"history: {name}")
    if missing:
        raise UserError(f"trial {trial.number}: damaged (findings.{missing[0]} is missing)")


def final_latencies(attributes: Mapping[str, Any], setup: str = "") -> dict[str, FinalLatency]:
    """Return the latencies of the last measurement of front and references, by digest.

    They are stored as `DIGEST`, those in a further set-up as `DIGEST:SETUP`.
    """
    return {
        key.partition(":")[0]: FinalLatency(
            over={name: (m, low, high) for name, (m, low, high) in one["over"].items()},
            contended=one["contended"],
            weights=one.get("weights", ""),
        )
        for key, one in attributes.get("final_latency", {}).items()
        if key.partition(":")[2] == setup
    }


def floors_of(attributes: Mapping[str, Any]) -> Floors | None:
    """Return the floors of a study; None if it has none recorded."""
    stored = attributes.get("floors")
    return None if stored is None else Floors.from_dict(stored)


def with_final_latencies(
    trial: TrialRecord,
    final: Mapping[str, Mapping[str, FinalLatency]],
    anchors: Mapping[str, float],
) -> TrialRecord:
    """Return a complete trial with its latencies of the study's last measurement, if it has some.

    Args:
        trial: The trial; one that is not complete is returned unchanged.
        final: Latencies of the last measurement, by set-up and digest.
        anchors: Latency of `original` when the study began, in ms, by set-up.
    """
    for setup, anchor_ms in anchors.items() if trial.state == "complete" else ():
        if found := final[setup].get(trial.digest):
            trial = trial.with_latency(found, anchor_ms, setup)
    return trial


def further_runs(attributes: Mapping[str, Any]) -> dict[str, list[SeedRun]]:
    """Return the further trainings of a study by digest, in the order of their seeds."""
    found: dict[str, list[SeedRun]] = {}
    for key, one in runs_in(attributes).items():
        fields = {name: one[name] for name in SeedRun.__dataclass_fields__ if name in one}
        found.setdefault(key.partition(":")[0], []).append(SeedRun(**fields))
    return {digest: sorted(runs, key=lambda run: run.seed) for digest, runs in found.items()}


def with_runs(trial: TrialRecord, runs: Mapping[str, Sequence[SeedRun]]) -> TrialRecord:
    """Return a complete trial with its further trainings; another one is returned unchanged."""
    if trial.state != "complete" or trial.digest not in runs:
        return trial
    return trial.with_runs(runs[trial.digest])


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
