"""What a driver knows of the trials of a study's other drivers."""

from __future__ import annotations

from collections.abc import Iterable

from studies.record.records import State, TrialRecord


class Elsewhere:
    """The trials of a study as this driver last heard of them.

    Args:
        trials: Those that are recorded when this driver begins.
        shared: Whether there may be other drivers; if not, trials that run were left behind.

    Attributes:
        states: State by trial number.
        running: Numbers of the candidates, references apart, that others evaluate.
        taken: Digests of architectures that others have begun since.
    """

    def __init__(self, trials: Iterable[TrialRecord], shared: bool) -> None:
        self.states: dict[int, State] = {}
        self.running: set[int] = set()
        self.taken: set[str] = set()
        for trial in trials:
            self.states[trial.number] = trial.state
            if shared and _is_running_candidate(trial):
                self.running.add(trial.number)

    def hear(self, trial: TrialRecord) -> None:
        """Take note of what another driver did with a trial."""
        self.states[trial.number] = trial.state
        self.taken.add(trial.digest)
        self.running.discard(trial.number)
        if _is_running_candidate(trial):
            self.running.add(trial.number)

    def forget(self, number: int) -> None:
        """Take whatever becomes of a trial for news again."""
        self.states.pop(number, None)


def _is_running_candidate(trial: TrialRecord) -> bool:
    return trial.state == "running" and not trial.reference
