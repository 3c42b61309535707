"""A study's search: report trials to the sampler, and keep its proposal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nas.predict.known_costs import KnownCosts
from nas.search import Proposal, make_proposer
from nas.search.interfaces import KnownLimits
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.noise import SeedNoise
from studies.record.records import TrialRecord
from studies.record.verdict import violations


class Search:
    """Reports trials to the sampler, and keeps its proposal until the trial begins.

    Args:
        config: The study's configuration: sampler, seed, objectives.
        space: The search space.
        costs: Computes exact or predicted costs of many architectures at once.
        known_limits: Computes by how much architectures exceed hard limits.
        noise: The seed noise of the loss, if an earlier confirmation of this study has found it.

    Attributes:
        proposal: The proposal that has not begun as a trial, or None.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: SearchSpace,
        costs: KnownCosts | None,
        known_limits: KnownLimits | None,
        noise: SeedNoise | None = None,
    ) -> None:
        self._space, self._limits, self._objectives = space, config.limits, config.objectives
        search = config.search
        told = {"focus": search.focus, "noise": noise.deviation if noise else None}
        options = told if search.sampler == "pareto" else {}
        self._proposer = make_proposer(
            space, search.sampler, config.objectives, search.seed, costs, known_limits, **options
        )
        self.proposal: Proposal | None = None

    def warm(self, earlier: Iterable[TrialRecord]) -> None:
        """Report those trained trials of another study whose architecture is in the space."""
        members = [(self._space.assignment(t.architecture), t) for t in earlier]
        known = [(assignment, t) for assignment, t in members if assignment is not None]
        if known:
            self._proposer.warm(
                [assignment for assignment, _ in known],
                [trial.architecture for _, trial in known],
                [self._values(trial) for _, trial in known],
            )

    def register(self, assignment: Mapping[str, Any] | None, architecture: Architecture) -> None:
        """Register an architecture as evaluated; `assignment` is None outside the space."""
        self._proposer.register(None if assignment is None else dict(assignment), architecture)

    def propose(self) -> Proposal | None:
        """Return the kept proposal, or else a new one; None if the space is exhausted."""
        if self.proposal is None:
            self.proposal = self._proposer.propose()
        return self.proposal

    def tell(self, trial: TrialRecord) -> None:
        """Report the objective values and limit violations of a trial that has ended."""
        values = self._values(trial) if trial.trained else None
        self._proposer.tell(trial.digest, values, violations(self._limits, trial.findings))

    def observe(self, digest: str, epoch: int, value: float) -> None:
        """Report the first trained objective after an epoch, while the training runs."""
        self._proposer.observe(digest, epoch, value)

    def _values(self, trial: TrialRecord) -> list[float]:
        return [trial.objectives[name] for name in self._objectives]
