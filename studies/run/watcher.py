"""What a display may want to know of a running study."""

from __future__ import annotations

from nas.findings import Findings
from studies.record.records import StudyRecord, TrialRecord


class Watcher:
    """Is told what happens to the candidates of a study. Does nothing by itself."""

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """A candidate is about to be evaluated."""

    def found(self, number: int, findings: Findings) -> None:
        """More is known of a candidate."""

    def batch(self, done: int, total: int, number: int | None = None) -> None:
        """A training got on; without a number it is the only one that runs."""

    def warned(self, number: int, text: str) -> None:
        """A warning about a candidate whose evaluation continues."""

    def ended(self, number: int, study: StudyRecord) -> None:
        """The evaluation of a candidate is over, and recorded."""
