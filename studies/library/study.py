"""A study as Python programs and notebooks see it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nas.artefacts import WEIGHTS
from nas.model import Model, load_model
from nas.objectives import Objective
from search_spaces.errors import UserError, nearest
from studies.record.best import best_trial
from studies.record.comparison import found
from studies.record.confirmed import shown_value
from studies.record.formats import html_table, noun
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import study_headline, trials_table
from studies.store import store
from studies.store.store import StudyStore

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_ROWS = 20
"""Largest number of members of the front that a notebook shows."""


def default_root() -> Path:
    """Return the folder of all studies: `$NAS_STUDIES`, or `nas-studies`."""
    return Path(os.environ.get("NAS_STUDIES") or "nas-studies")


def open_study(name: str, root: str | Path | None = None) -> Study:
    """Open a study that was run before, also one that is still running.

    Args:
        name: The study's name.
        root: Folder of all studies; by default `$NAS_STUDIES`, or `nas-studies`.

    Raises:
        UserError: there is no such study, or its storage is damaged.
    """
    return Study(StudyStore.open(Path(root or default_root()), name))


def list_studies(root: str | Path | None = None) -> list[str]:
    """Return the names of the studies in a folder, sorted."""
    return store.list_studies(Path(root or default_root()))


class Study:
    """A study: its trials, its Pareto front, figures and models.

    Args:
        stored: The study in its storage and folder.
        gave_up: Why its last run gave up the search, or None.
    """

    def __init__(self, stored: StudyStore, gave_up: str | None = None) -> None:
        self._store, self.gave_up = stored, gave_up
        self.record: StudyRecord = stored.record()

    def refresh(self) -> Study:
        """Read the study again, as another process may have continued it; return it."""
        self.record = self._store.record()
        return self

    @property
    def name(self) -> str:
        """The study's name."""
        return self.record.name

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.record.folder

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, in order."""
        return self.record.objectives

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials, in order of their numbers."""
        return self.record.trials

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The non-dominated trials, the best in the first objective first."""
        return self.record.front

    @property
    def references(self) -> Mapping[str, TrialRecord]:
        """The complete reference models, by name."""
        return self.record.references

    def trial(self, name: int | str) -> TrialRecord:
        """Return a trial by its number, or a reference by its name.

        Raises:
            UserError: there is no such trial.
        """
        known = {trial.reference or str(trial.number): trial for trial in self.trials}
        known |= {str(trial.number): trial for trial in self.trials}
        wanted = str(name).removeprefix("#")
        if wanted not in known:
            raise UserError(f"study {self.name!r} has no trial {name!r}{nearest(wanted, known)}")
        return known[wanted]

    def frame(self) -> pd.DataFrame:
        """Return one row per trial: state, objectives, metrics, intervals, choices on the axes."""
        return trials_table(self.record)

    def best(self, by: str | None = None, **limits: float) -> TrialRecord:
        """Return the best trial within limits, among those that have learned.

        Args:
            by: The value to be best in; by default the first objective.
            limits: The largest value by name, or the smallest one of what is maximised, such as
                `latency_ms=5`.

        Raises:
            UserError: no trial qualifies, or the study has not recorded such a value.
        """
        return best_trial(self.record, by, limits)

    def plot(self, x: str | None = None, y: str | None = None) -> go.Figure:
        """Plot one objective against another, with the front, the references and tooltips.

        Args:
            x: Name of the horizontal objective; by default the second one.
            y: Name of the vertical objective; by default the first one.

        Raises:
            UserError: the study has no such objective.
        """
        from studies.report.figure_tables import floor_lines, hovers, points_table
        from studies.report.figures import pair_figure

        first, second = self._objective(y, 0), self._objective(x, 1)
        floors = {one.name: floor_lines(self.record, one.name) for one in (first, second)}
        figure = pair_figure(points_table(self.record), second, first, floors)
        texts = hovers(self.record)
        for trace in figure.data:
            if trace.meta is not None:
                trace.hovertext = [texts.get(name, name) for name in trace.meta]
        return figure

    def plots(self) -> dict[str, go.Figure]:
        """Return every figure of the report, by name."""
        from studies.report.panels import report_panels

        groups = report_panels(self.record).values()
        return {panel.key: panel.figure for group in groups for panel in group}

    def report(self) -> Path:
        """Write the report again; return the path of the HTML file."""
        from nas.artefacts import PICTURES
        from studies.report.report import write_report

        self._store.fetch("samples.npy")
        self._store.fetch(only=PICTURES)
        return write_report(self.refresh().record)

    def load(self, trial: TrialRecord | int | str) -> Model:
        """Return the trained model of a trial, with the weights of the search.

        Raises:
            UserError: there is no such trial, or its weights are missing or damaged.
        """
        chosen = trial if isinstance(trial, TrialRecord) else self.trial(trial)
        self._store.fetch(chosen.digest)
        return load_model(self._store.artefacts / chosen.digest / WEIGHTS)

    def __repr__(self) -> str:
        names = ", ".join(self.record.objective_names)
        return (
            f"Study({self.name!r}, {len(found(self.record))} architectures found, "
            f"{len(self.front)} on the front of {names})"
        )

    def _repr_html_(self) -> str:
        """Return the headline and the front, as a notebook shows them."""
        members = [trial for trial in self.front if trial.reference is None]
        shown = [*self.references.values(), *members[:_ROWS]]
        rows = [
            [trial.name, *(shown_value(trial, one) for one in self.objectives),
             trial.architecture.summary]
            for trial in shown
        ]  # fmt: skip
        headline = study_headline(self.record).replace("`", "")
        more = f"<p>and {len(members) - _ROWS} more</p>" if len(members) > _ROWS else ""
        heads = ["model", *map(noun, self.objectives), "architecture"]
        return (
            f"<p><b>{_escaped(self.name)}</b>: {_escaped(headline)}</p>"
            f"{html_table(heads, rows)}{more}"
        )

    def _objective(self, name: str | None, default: int) -> Objective:
        known = {one.name: one for one in self.objectives}
        if name is None:
            return self.objectives[default]
        if name not in known:
            raise UserError(
                f"plot: {name!r} is not one of {', '.join(known)}{nearest(name, known)}"
            )
        return known[name]


def _escaped(text: str) -> str:
    import html

    return html.escape(text)
