"""The code of a Ray worker: evaluate architectures as trials of Ray Tune."""

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
from nas.setups import runtimes
from profiling.environment import fingerprint
from profiling.errors import ProfilingError
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.trial_limits import UNLIMITED, TrialLimits
from studies.on_ray.watchdog import Watchdog
from studies.run.crew import Evaluate
from studies.store.agreement import environment_differences

if TYPE_CHECKING:
    from studies.run.evaluators import EvaluatorMaker

NOTE_EVERY_S = 1.0
"""Seconds between two reports of a worker's progress within an epoch."""

REPORT = "report"
"""Key of a Tune result that holds the `WorkerReport`."""

Make = Callable[[OnBatch, Path], Evaluate]
"""Makes a worker's evaluator from a callback for batches and a folder for artefacts."""


@dataclass(frozen=True)
class Start:
    """The input of a Tune trial.

    Attributes:
        number: The trial's number in the study.
        architecture: The candidate.
        known: Findings of an earlier evaluation that did not finish.
        checkpoint: Path or URI of a Tune checkpoint from which the training resumes.
    """

    number: int
    architecture: Architecture
    known: Findings | None = None
    checkpoint: str | None = None

    def __str__(self) -> str:
        return str(self.number)  # Tune uses it in the trial's tag


@dataclass(frozen=True)
class WorkerReport:
    """A worker's report to the driver.

    Attributes:
        kind: `found`: there are new findings. `ended`: the evaluation is over. `failed`: the
            candidate cannot be evaluated. `refused`: the worker does not suit the study. `broken`:
            an unexpected error.
        findings: All findings so far, with `found`.
        reason: The reason, with `failed`, `refused` and `broken`.
        elsewhere: Differences between the worker's environment and the study's, if allowed.
    """

    kind: Literal["found", "ended", "failed", "refused", "broken"]
    findings: Findings | None = None
    reason: str | None = None
    elsewhere: Sequence[str] = ()


class EvaluationTrainable(Trainable):
    """Evaluates one architecture after another in one process, which keeps the images loaded.

    Each step yields the next findings. The files of the evaluation reach the study through Tune's
    checkpoints, which are taken whenever a file is new or has changed.
    """

    def setup(
        self,
        config: dict[str, Any],
        make: Make | None = None,
        objectives: Sequence[str] = (),
        status: Any = None,
        limits: TrialLimits = UNLIMITED,
    ) -> None:
        """Prepare the first evaluation; all slow work happens in its first step."""
        assert make is not None
        self._watchdog = Watchdog(limits, status)
        self._make, self._objectives, self._status = make, objectives, status
        self._scratch = Path(self.logdir) / "artefacts"
        self._evaluate: Evaluate | None = None
        self._reported = 0.0
        self._saved: dict[str, int] = {}
        self._begin(config["start"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare another evaluation in the same process."""
        self._begin(new_config["start"])
        return True

    def step(self) -> dict[str, Any]:
        """Evaluate until the next findings. Objectives that are not known yet are NaN."""
        with self._watchdog.watching(self._start.number):
            report = next(self._stream)
        known = report.findings.objectives if report.findings else {}
        values = {name: known.get(name, math.nan) for name in self._objectives}
        return {**values, REPORT: report, SHOULD_CHECKPOINT: self._written() != self._saved}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copy the files of the evaluation."""
        self._saved = self._written()
        shutil.copytree(self._folder, checkpoint_dir, dirs_exist_ok=True)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Restore the files of an earlier evaluation."""
        shutil.copytree(checkpoint, self._folder, dirs_exist_ok=True)
        self._saved = self._written()

    def _begin(self, start: Start) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._watchdog.forget()
        self._start, self._folder = start, self._scratch / start.architecture.digest
        self._saved = {}
        self._stream = self._evaluation(start)  # closes the previous one

    def _evaluation(self, start: Start) -> Iterator[WorkerReport]:
        """Yield reports, also on errors: Tune is to see an error only if the process ends."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if start.checkpoint:
                with Checkpoint(start.checkpoint).as_directory() as folder:
                    self.load_checkpoint(folder)
            if self._evaluate is None:
                self._evaluate = self._make(self._on_batch, self._scratch)
            self._watchdog.begin()
            elsewhere = getattr(self._evaluate, "elsewhere", ())
            for findings in self._evaluate(start.architecture, start.known):
                yield WorkerReport("found", findings, elsewhere=elsewhere)
            yield WorkerReport("ended")
        except CandidateFailed as failure:
            yield WorkerReport("failed", reason=str(failure))
        except (UserError, ProfilingError) as error:
            yield WorkerReport("refused", reason=str(error))
        except Exception:
            yield WorkerReport("broken", reason=traceback.format_exc())

    def _written(self) -> dict[str, int]:
        if not self._folder.is_dir():
            return {}
        return {path.name: path.stat().st_mtime_ns for path in self._folder.iterdir()}

    def _on_batch(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._status is not None and now - self._reported >= NOTE_EVERY_S:
            self._reported = now
            self._status.note.remote(self._start.number, done, total)


@dataclass
class _Placed:
    """A worker's evaluator, and the differences of its environment from the study's."""

    evaluator: Evaluator
    elsewhere: Sequence[str]

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        return self.evaluator(architecture, known)


@dataclass(frozen=True)
class RemoteMaker:
    """Makes a study's evaluator on a Ray worker, if images and environment are the study's.

    Attributes:
        make: The study's maker; its folder of artefacts is replaced.
        environment: The recorded description of the study's environment and images.
        timed: Whether a latency is wanted, so that the environment must agree.
        mix: Whether another environment is allowed; the study then records it.
    """

    make: EvaluatorMaker
    environment: Mapping[str, Any]
    timed: bool
    mix: bool

    def __call__(self, on_batch: OnBatch, folder: Path) -> Evaluate:
        """Return the evaluator.

        Raises:
            UserError: images or environment differ from the study's.
        """
        evaluator = replace(self.make, artefacts=folder)(on_batch)
        images = evaluator.dataset.fingerprint if evaluator.dataset else None
        if images != self.environment["data_fingerprint"]:
            raise UserError(
                f"{_host()}: data: this node's images differ from the study's; "
                "give every node the same"
            )
        return _Placed(evaluator, self._elsewhere(evaluator))

    def _elsewhere(self, evaluator: Evaluator) -> list[str]:
        if not self.timed:
            return []
        here = dict(fingerprint(evaluator.device).model_dump())
        here["runtime"] = runtimes(self.make.config.all_setups.values())
        # The images are the study's, as checked before. Targets are checked at each connection.
        same = ("timed_on", "targets")
        here |= {name: self.environment[name] for name in same if name in self.environment}
        if "latency_predictor" in self.environment and evaluator.predictor:
            here["latency_predictor"] = evaluator.predictor.calibration.digest
        differing = environment_differences(self.environment, here)
        if differing and not self.mix:
            raise UserError(
                f"{_host()}: latencies would not be comparable with the study's "
                f"({'; '.join(differing)}): use equal nodes, or accept the difference "
                "with --mix-environments"
            )
        return differing


def _host() -> str:
    return f"node {get_node_ip_address()}"  # type: ignore[no-untyped-call]
