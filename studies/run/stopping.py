"""Early stopping of a study's trainings: the rule of `nas.search`, told of trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nas.findings import Findings
from nas.objectives import TRAINED_OBJECTIVE
from nas.search.early_stopping import EarlyStopping
from studies.record.records import TrialRecord


class Stopper:
    """Says which trainings end early, and which of those go on after all.

    Args:
        rule: None lets every training run to its end.
        objectives: Names of the study's objectives.
        epochs: Epochs of a full training.
    """

    def __init__(self, rule: EarlyStopping | None, objectives: Sequence[str], epochs: int) -> None:
        self._rule, self._objectives, self._epochs = rule, objectives, epochs
        self._costs = [name for name in objectives if name != TRAINED_OBJECTIVE]
        self._decided: dict[str, int] = {}

    def restore(self, trial: TrialRecord) -> None:
        """Take over a trial of an earlier run as it was decided then."""
        if self._rule is None or not trial.history:
            return
        self._decided[trial.digest] = len(trial.history)
        if trial.reference:
            self._rule.protect(trial.digest)
        stopped = trial.state == "stopped"
        costs = self._costs_of(trial.objectives)
        self._rule.restore(trial.digest, costs, _losses(trial.history), stopped)
        self.ended(trial)

    def reason_to_stop(self, trial: TrialRecord, findings: Findings) -> str | None:
        """Say why a training ends after the epoch it has just done; None if it goes on."""
        epoch = len(findings.history)
        if self._rule is None or epoch <= self._decided.get(trial.digest, 0):
            return None  # an epoch that a resumed training tells of once more
        self._decided[trial.digest] = epoch
        if trial.reference:
            self._rule.protect(trial.digest)
        costs = self._costs_of(findings.objectives)
        if self._rule.report(trial.digest, epoch, costs, _losses(findings.history)):
            return None
        loss = findings.objectives[TRAINED_OBJECTIVE]
        return (
            f"stopped after epoch {epoch} of {self._epochs}: a loss of {loss:.4g} by then is too "
            "high for what it costs"
        )

    def ended(self, trial: TrialRecord) -> None:
        """Take note of how a full training ended."""
        if self._rule is not None and trial.state in ("complete", "failed"):
            complete = trial.state == "complete"
            values = [trial.objectives[n] for n in self._objectives] if complete else None
            self._rule.finished(trial.digest, values)

    def resumable(self, stopped: Collection[str]) -> str | None:
        """Return the digest of a stopped training that deserves to go on now, if there is one."""
        found = self._rule.resumable() if self._rule is not None and stopped else []
        return next((digest for digest in found if digest in stopped), None)

    def _costs_of(self, objectives: Mapping[str, float]) -> list[float]:
        return [objectives[name] for name in self._costs]


def _losses(history: Sequence[Mapping[str, float]]) -> list[float]:
    return [epoch[TRAINED_OBJECTIVE] for epoch in history]
