"""Early stopping of a study's trainings: reports trials to the rule of `nas.search`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nas.findings import Findings
from nas.objectives import (
    OBJECTIVES,
    TRAINED_OBJECTIVE,
    minimised,
    sign_of,
    trained_objectives,
)
from nas.search.early_stopping import EarlyStopping
from studies.record.formats import format_value, noun
from studies.record.records import TrialRecord


class Stopper:
    """Decides which trainings stop early, and which of those resume later.

    The rule compares the first trained objective and the costs, which are known before training;
    further trained objectives do not count until a training is complete.

    Args:
        rule: The rule of early stopping; None trains every candidate to the end.
        objectives: Names of the study's objectives.
        epochs: Epochs of a full training.
    """

    def __init__(self, rule: EarlyStopping | None, objectives: Sequence[str], epochs: int) -> None:
        self._rule, self._objectives, self._epochs = rule, objectives, epochs
        trained = trained_objectives(objectives)
        self._learned = (*trained, TRAINED_OBJECTIVE)[0]
        self._costs = [name for name in objectives if name not in trained]
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
        self._rule.restore(trial.digest, costs, self._losses(trial.history), stopped)
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
        if self._rule.report(trial.digest, epoch, costs, self._losses(findings.history)):
            return None
        objective = OBJECTIVES[self._learned]
        value = format_value(objective, findings.objectives[self._learned])
        worse = "high" if objective.direction == "minimise" else "low"
        return (
            f"stopped after epoch {epoch} of {self._epochs}: its {noun(objective)} of {value} is "
            f"too {worse} for its costs"
        )

    def ended(self, trial: TrialRecord) -> None:
        """Report the end of a full training to the rule."""
        if self._rule is not None and trial.state in ("complete", "failed"):
            values = None
            if trial.state == "complete":
                found = [trial.objectives[name] for name in self._objectives]
                values = minimised(found, self._objectives).tolist()
            self._rule.finished(trial.digest, values)

    def resumable(self, stopped: Collection[str]) -> str | None:
        """Return the digest of a stopped training to resume now; None if there is none."""
        found = self._rule.resumable() if self._rule is not None and stopped else []
        return next((digest for digest in found if digest in stopped), None)

    def _costs_of(self, objectives: Mapping[str, float]) -> list[float]:
        return [objectives[name] for name in self._costs]

    def _losses(self, history: Sequence[Mapping[str, float]]) -> list[float]:
        """Return the first trained objective after each epoch, as it is minimised."""
        return [sign_of(self._learned) * epoch[self._learned] for epoch in history]
