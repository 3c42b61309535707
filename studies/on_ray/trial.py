"""What runs on a Ray worker: evaluations, one finding at a time, as trials of Ray Tune."""

from __future__ import annotations

import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray.tune import Checkpoint, Trainable
from ray.tune.result import SHOULD_CHECKPOINT
from ray.util import get_node_ip_address

from nas.evaluate import CandidateFailed, Evaluator
from nas.findings import Findings
from nas.protocol import OnBatch
from profiling.environment import fingerprint
from profiling.errors import ProfilingError
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.trial_limits import UNLIMITED, TrialLimits
from studies.on_ray.board import Guard
from studies.run.crew import Evaluate
from studies.store.agreement import differing_places

if TYPE_CHECKING:
    from studies.run.evaluators import EvaluatorMaker

NOTE_EVERY_S = 1.0
"""Seconds between two reports of a worker's progress within an epoch."""

TOLD = "told"
"""Where a result of Tune's holds what the driver is told."""

Make = Callable[[OnBatch, Path], Evaluate]
"""Makes a worker's evaluator, given whom to tell of batches and where to write artefacts."""


@dataclass(frozen=True)
class Start:
    """What a Tune trial is to evaluate.

    Attributes:
        number: The trial's number in the study.
        architecture: What to evaluate.
        known: What an earlier evaluation had found.
        checkpoint: Where its training can be taken up; a path or URI of a Tune checkpoint.
    """

    number: int
    architecture: Architecture
    known: Findings | None = None
    checkpoint: str | None = None

    def __str__(self) -> str:
        return str(self.number)  # Tune makes tags of it


@dataclass(frozen=True)
class Told:
    """What a worker tells the driver.

    Attributes:
        kind: `found`: more is known. `ended`: it is over. `failed`: the candidate cannot be
            evaluated. `refused`: the worker cannot be used as it is. `broken`: a fault of ours.
        findings: What is known, after `found`.
        reason: In words, after the last three.
        elsewhere: In what the worker's environment differs from the study's, if that is allowed.
    """

    kind: Literal["found", "ended", "failed", "refused", "broken"]
    findings: Findings | None = None
    reason: str | None = None
    elsewhere: Sequence[str] = ()


class Evaluation(Trainable):
    """Evaluates one architecture; the process, its images and its measuring process are kept.

    Each step is one finding. What the evaluation writes goes to the study through Tune's
    checkpoints, taken whenever there is something new.
    """

    def setup(
        self,
        config: dict[str, Any],
        make: Make | None = None,
        objectives: Sequence[str] = (),
        board: Any = None,
        limits: TrialLimits = UNLIMITED,
    ) -> None:
        """Take up the first evaluation; everything that takes long happens in its first step."""
        assert make is not None
        self._guard = Guard(limits, board)
        self._make, self._objectives, self._board = make, objectives, board
        self._scratch = Path(self.logdir) / "artefacts"
        self._evaluate: Evaluate | None = None
        self._reported = 0.0
        self._saved: dict[str, int] = {}
        self._begin(config["start"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another evaluation in the same process."""
        self._begin(new_config["start"])
        return True

    def step(self) -> dict[str, Any]:
        """Evaluate up to the next finding. Objectives that are not known yet are NaN."""
        with self._guard.watching(self._start.number):
            told = next(self._stream)
        known = told.findings.objectives if told.findings else {}
        values = {name: known.get(name, math.nan) for name in self._objectives}
        return {**values, TOLD: told, SHOULD_CHECKPOINT: self._written() != self._saved}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copy what the evaluation has written."""
        self._saved = self._written()
        shutil.copytree(self._folder, checkpoint_dir, dirs_exist_ok=True)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Put back what an earlier evaluation had written."""
        shutil.copytree(checkpoint, self._folder, dirs_exist_ok=True)
        self._saved = self._written()

    def _begin(self, start: Start) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._guard.forget()
        self._start, self._folder = start, self._scratch / start.architecture.digest
        self._saved = {}
        self._stream = self._evaluation(start)  # closes the one before

    def _evaluation(self, start: Start) -> Iterator[Told]:
        """Whatever happens is told: only the end of the process looks like an error to Tune."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if start.checkpoint:
                with Checkpoint(start.checkpoint).as_directory() as folder:
                    self.load_checkpoint(folder)
            if self._evaluate is None:
                self._evaluate = self._make(self._on_batch, self._scratch)
            self._guard.begin()
            elsewhere = getattr(self._evaluate, "elsewhere", ())
            for findings in self._evaluate(start.architecture, start.known):
                yield Told("found", findings, elsewhere=elsewhere)
            yield Told("ended")
        except CandidateFailed as failure:
            yield Told("failed", reason=str(failure))
        except (UserError, ProfilingError) as error:
            yield Told("refused", reason=str(error))
        except Exception:
            yield Told("broken", reason=traceback.format_exc())

    def _written(self) -> dict[str, int]:
        if not self._folder.is_dir():
            return {}
        return {path.name: path.stat().st_mtime_ns for path in self._folder.iterdir()}

    def _on_batch(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._board is not None and now - self._reported >= NOTE_EVERY_S:
            self._reported = now
            self._board.note.remote(self._start.number, done, total)


@dataclass
class _Placed:
    """A worker's evaluator, and in what its environment differs from the study's."""

    evaluator: Evaluator
    elsewhere: Sequence[str]

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        return self.evaluator(architecture, known)


@dataclass(frozen=True)
class RemoteMaker:
    """Makes a study's evaluator on a Ray worker, if that is such as the study asks for.

    Attributes:
        make: Of the study; where it writes is replaced.
        environment: The study's.
        timed: Whether latency is measured, and so the environment matters.
        mix: Whether another environment is allowed, and marked.
    """

    make: EvaluatorMaker
    environment: Mapping[str, Any]
    timed: bool
    mix: bool

    def __call__(self, on_batch: OnBatch, folder: Path) -> Evaluate:
        """Return the evaluator.

        Raises:
            UserError: images or environment are not the study's.
        """
        evaluator = replace(self.make, artefacts=folder)(on_batch)
        images = evaluator.dataset.fingerprint if evaluator.dataset else None
        if images != self.environment["data_fingerprint"]:
            raise UserError(
                f"{_host()}: data: the images are others than the study's; give every node the same"
            )
        return _Placed(evaluator, self._elsewhere(evaluator))

    def _elsewhere(self, evaluator: Evaluator) -> list[str]:
        if not self.timed:
            return []
        here = dict(fingerprint(evaluator.device).model_dump())
        if "latency_predictor" in self.environment and evaluator.predictor:
            here["latency_predictor"] = evaluator.predictor.calibration.digest
        differing = differing_places(self.environment, here)
        if differing and not self.mix:
            raise UserError(
                f"{_host()}: latencies would not compare with the study's "
                f"({'; '.join(differing)}): use nodes that are alike, or mix them all the same "
                "with --mix-environments"
            )
        return differing


def _host() -> str:
    return f"node {get_node_ip_address()}"  # type: ignore[no-untyped-call]
