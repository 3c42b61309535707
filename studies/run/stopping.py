"""Early stopping of a study's trainings: reports trials to the rule of `nas.search`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nas.findings import Findings
from nas.objectives import TRAINED_OBJECTIVE
from nas.search.early_stopping import EarlyStopping
from studies.record.records import TrialRecord


class Stopper:
    """Decides which trainings stop early, and which of those resume later.

    Args:
        rule: The rule of early stopping; None trains every candidate to the end.
        objectives: Names of the study's objectives.
        epochs: Epochs of a full training.
    """

    def __init__(self, rule: EarlyStopping | None, objectives: Sequence[str], epochs: int) -> None:
        self._rule, self._objectives, self._epochs = rule, objectives, epochs
        self._costs = [name for name in objectives if name != TRAINED_OBJECTIVE]
        self._decided: dict[str, int] = {}

    def restore(self, trial: TrialRecord) -> None:
        """Report a trial of an earlier run or another driver, with the decision made then."""
        if self._rule is None or not trial.history or trial.state == "rejected":
            return
        self._decided[trial.digest] = len(trial.history)
        if trial.reference:
            self._rule.protect(trial.digest)
        stopped = trial.state == "stopped"
        costs = self._costs_of(trial.objectives)
        self._rule.restore(trial.digest, costs, _losses(trial.history), stopped)
        self.ended(trial)

    def reason_to_stop(self, trial: TrialRecord, findings: Findings) -> str | None:
        """Return the reason for stopping a training after its latest epoch; None to continue."""
        epoch = len(findings.history)
        if self._rule is None or epoch <= self._decided.get(trial.digest, 0):
            return None  # a resumed training reports earlier epochs again
        self._decided[trial.digest] = epoch
        if trial.reference:
            self._rule.protect(trial.digest)
        costs = self._costs_of(findings.objectives)
        if self._rule.report(trial.digest, epoch, costs, _losses(findings.history)):
            return None
        loss = findings.objectives[TRAINED_OBJECTIVE]
        return (
            f"stopped after epoch {epoch} of {self._epochs}: its loss of {loss:.4g} is too high "
            "for its costs"
        )

    def ended(self, trial: TrialRecord) -> None:
        """Report the end of a full training to the rule."""
        if self._rule is not None and trial.state in ("complete", "failed"):
            complete = trial.state == "complete"
            values = [trial.objectives[n] for n in self._objectives] if complete else None
            self._rule.finished(trial.digest, values)

    def resumable(self, stopped: Collection[str]) -> str | None:
        """Return the digest of a stopped training to resume now; None if there is none."""
        found = self._rule.resumable() if self._rule is not None and stopped else []
        return next((digest for digest in found if digest in stopped), None)

    def _costs_of(self, objectives: Mapping[str, float]) -> list[float]:
        return [objectives[name] for name in self._costs]


def _losses(history: Sequence[Mapping[str, float]]) -> list[float]:
    return [epoch[TRAINED_OBJECTIVE] for epoch in history]
