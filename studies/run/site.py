"""The place where a study evaluates: this machine; `studies.on_ray` has a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from nas.datasets import ImageDataset
from nas.predict.known_costs import known_costs, known_limits
from nas.predict.predictor import LatencyPredictor
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.records import StudyRecord, TrialRecord
from studies.run.crew import Alone, Crew, Executor, Workers
from studies.run.display import Display
from studies.run.evaluators import EvaluatorMaker
from studies.run.final_latency import Together
from studies.run.interruption import Interruptible, Interruption
from studies.run.runner import Runner
from studies.store.store import StudyStore

E = TypeVar("E", bound=Executor)


@dataclass(frozen=True)
class PreparedStudy:
    """A study that is ready to run.

    Attributes:
        config: The study's configuration.
        space: The search space.
        store: The study's storage, open for writing.
        make: Makes the evaluators.
        dataset: The images; None where nothing is trained.
        predictor: Predicts latencies; None where there is none or the study does not use it.
        environment: The recorded description of machine and images.
        earlier: Complete trials of another study, from which the sampler learns.
        display: Shows the running study.
        mix: Whether workers in other environments are allowed; the study then records it.
        interruption: Handles signals.
    """

    config: StudyConfig
    space: SearchSpace
    store: StudyStore
    make: EvaluatorMaker
    dataset: ImageDataset | None
    predictor: LatencyPredictor | None
    environment: Mapping[str, Any]
    earlier: Sequence[TrialRecord]
    display: Display
    mix: bool
    interruption: Interruption

    def runner(self, crew: E) -> Runner[E]:
        """Return a runner of this study on a crew."""
        config, predictor = self.config, self.predictor
        anchor_ms = self.make.anchors_ms.get("")
        return Runner(
            config,
            self.space,
            self.store,
            crew,
            self.display,
            known_costs(config.objectives, predictor=predictor, anchor_ms=anchor_ms),
            self.earlier,
            known_limits(config.limits, predictor, anchor_ms),
        )


class Site(Protocol):
    """A place that evaluates a study's candidates and measures its latencies."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function at the site, and return its result."""

    @property
    def together(self) -> Together | None:
        """Measures architectures together at the site; None where that is this machine."""

    def run(self, prepared: PreparedStudy) -> tuple[StudyRecord, str | None]:
        """Run the study; return its record, and the reason for giving up the search, or None."""


class LocalSite:
    """This machine: candidates are evaluated in this process or in worker processes."""

    together: Together | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in this process."""
        return function(*args)

    def run(self, prepared: PreparedStudy) -> tuple[StudyRecord, str | None]:
        """Run the study in this process, or in several worker processes."""
        interruption = prepared.interruption
        with _crew(prepared) as crew, prepared.display:
            runner = prepared.runner(Interruptible(crew, interruption))
            with interruption.held():
                return runner.run(), runner.gave_up


@contextmanager
def _crew(prepared: PreparedStudy) -> Iterator[Crew]:
    make = prepared.make
    limits = make.config.trial_limits
    # A process that exceeds a limit is killed, so it must not be this one.
    if make.workers == 1 and not limits:
        batch = prepared.display.batch
        yield Alone(make.make(batch, prepared.dataset, prepared.predictor))
    else:
        with Workers(make.workers, make, limits) as workers:
            yield workers
