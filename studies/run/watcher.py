"""The events of a running study, as a display receives them."""

from __future__ import annotations

from nas.findings import Findings
from studies.record.records import StudyRecord, TrialRecord


class Watcher:
    """Receives the events of a study's candidates; this base class ignores them."""

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """The evaluation of a candidate starts."""

    def found(self, number: int, findings: Findings) -> None:
        """There are new findings on a candidate."""

    def batch(self, done: int, total: int, number: int | None = None) -> None:
        """A batch of a training is done; `number` is None if only one training runs."""

    def warned(self, number: int, text: str) -> None:
        """A warning about a candidate whose evaluation continues."""

    def ended(self, number: int, study: StudyRecord) -> None:
        """The evaluation of a candidate has ended and is recorded."""
