"""A study's search: what the sampler is told, and what it proposes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nas.predict.known_costs import KnownCosts
from nas.search import Proposal, make_proposer
from nas.search.interfaces import KnownLimits
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.records import TrialRecord
from studies.run.limits import Limits


class Search:
    """Tells the sampler of trials, and keeps its proposal until it is begun.

    Args:
        config: Names the sampler, its seed and the objectives.
        space: Where candidates come from.
        limits: The study's hard limits.
        costs: What is known of many architectures at once, for a sampler that screens them.
        known_limits: Hard limits that are known beforehand, for the same sampler.

    Attributes:
        proposal: What was proposed and has not been begun.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: SearchSpace,
        limits: Limits,
        costs: KnownCosts | None,
        known_limits: KnownLimits | None,
    ) -> None:
        self._space, self._limits, self._objectives = space, limits, config.objectives
        search = config.search
        self._proposer = make_proposer(
            space, search.sampler, config.objectives, search.seed, costs, known_limits
        )
        self.proposal: Proposal | None = None

    def warm(self, earlier: Iterable[TrialRecord]) -> None:
        """Learn from complete trials of another study, as far as the space holds them."""
        members = [(self._space.assignment(t.architecture), t) for t in earlier]
        known = [(assignment, t) for assignment, t in members if assignment is not None]
        if known:
            self._proposer.warm(
                [assignment for assignment, _ in known],
                [trial.architecture for _, trial in known],
                [self._values(trial) for _, trial in known],
            )

    def register(self, assignment: Mapping[str, Any] | None, architecture: Architecture) -> None:
        """Count an architecture as tried; without an assignment it is no member of the space."""
        self._proposer.register(None if assignment is None else dict(assignment), architecture)

    def propose(self) -> Proposal | None:
        """Return the proposal that is kept, or else a new one; None if there is no more."""
        if self.proposal is None:
            self.proposal = self._proposer.propose()
        return self.proposal

    def tell(self, trial: TrialRecord) -> None:
        """Tell how a trial ended."""
        values = self._values(trial) if trial.state == "complete" else None
        violations = self._limits.violations(trial.objectives, trial.metrics)
        self._proposer.tell(trial.digest, values, violations)

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Tell a loss while in training."""
        self._proposer.observe(digest, epoch, loss)

    def _values(self, trial: TrialRecord) -> list[float]:
        return [trial.objectives[name] for name in self._objectives]
