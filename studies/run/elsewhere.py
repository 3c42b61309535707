"""The state of the trials that a study's other drivers evaluate."""

from __future__ import annotations

from collections.abc import Iterable

from studies.record.records import State, TrialRecord


class Elsewhere:
    """The trials of a study as this driver last read them from the storage.

    Args:
        trials: The recorded trials when this driver starts.
        shared: Whether there may be other drivers; if not, running trials were left by an earlier
            run.

    Attributes:
        states: State by trial number.
        running: Numbers of the candidates that others evaluate, without references.
        taken: Digests of architectures that others have started since this driver began.
    """

    def __init__(self, trials: Iterable[TrialRecord], shared: bool) -> None:
        self.states: dict[int, State] = {}
        self.running: set[int] = set()
        self.taken: set[str] = set()
        for trial in trials:
            self.states[trial.number] = trial.state
            if shared and _is_running_candidate(trial):
                self.running.add(trial.number)

    def update(self, trial: TrialRecord) -> None:
        """Record the new state of another driver's trial."""
        self.states[trial.number] = trial.state
        self.taken.add(trial.digest)
        self.running.discard(trial.number)
        if _is_running_candidate(trial):
            self.running.add(trial.number)

    def forget(self, number: int) -> None:
        """Forget a trial's state, so that its next state counts as news."""
        self.states.pop(number, None)


def _is_running_candidate(trial: TrialRecord) -> bool:
    return trial.state == "running" and not trial.reference
