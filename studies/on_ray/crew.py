"""Run a study on Ray Tune: Tune has the loop, the study's own runner makes the decisions.

Tune's searcher gets architectures from the runner. Tune's scheduler passes findings to the runner
and gets its decision. Each start of an evaluation is one Tune trial. The files of workers come
through Tune's checkpoints into the study's folder, where a local run writes them: so a local run
can resume a study on Ray, and the other way round. The Optuna storage is the only record.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.artefacts import CHECKPOINT
from nas.findings import Findings
from profiling.files import replacing
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.trial_limits import UNLIMITED, TrialLimits
from studies.on_ray.cluster import Cluster
from studies.on_ray.folder import TuneFolder, remove_trial
from studies.on_ray.lost_workers import lost_workers_as_dead
from studies.on_ray.status import ANSWER_S, WorkerStatus
from studies.on_ray.trial import REPORT, EvaluationTrainable, Make, Start, WorkerReport
from studies.record.records import StudyRecord
from studies.run.crew import TrialEvent
from studies.run.interruption import Interruption
from studies.run.runner import Runner

_GONE = "its process ended"

_READ_S = 0.5
"""Seconds between two reads of the workers' progress."""

_FEED_S = 1.0
"""Seconds after which the runner is asked for work again, even without an event."""


class TuneCrew:
    """The executor of a `Runner` on Ray: it keeps the starts and answers that Tune carries out.

    Args:
        make: Makes the evaluator of each worker; it is pickled and sent there.
        objectives: Names of the study's objectives; every result holds all of them.
        cluster: The cluster that runs the trials.
        artefacts: The study's folder of artefacts.
        folder: Folder for the files of workers; the caller removes it.
        most: Largest number of evaluations at a time; None for as many as the cluster can run.
        on_elsewhere: Called with the differences between a worker's environment and the study's.
        limits: Limits of one trial; a process that exceeds one is killed.
    """

    apart = True

    def __init__(
        self,
        make: Make,
        objectives: Sequence[str],
        cluster: Cluster,
        artefacts: Path,
        folder: TuneFolder,
        most: int | None = None,
        on_elsewhere: Callable[[Sequence[str]], None] | None = None,
        limits: TrialLimits = UNLIMITED,
    ) -> None:
        self._make, self._objectives, self._cluster = make, tuple(objectives), cluster
        self._artefacts, self._folder, self._most = artefacts, folder, most
        self._on_elsewhere, self.limits = on_elsewhere, limits
        self._asked: list[Start] = []
        self._goes_on = True

    @property
    def size(self) -> int:
        """Number of trials that the cluster can run; at least one, because nodes may come back."""
        return max(1, min(self._cluster.room, self._most or self._cluster.room))

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Request an evaluation, which resumes from the checkpoint if there is one."""
        path = self._artefacts / architecture.digest / CHECKPOINT
        checkpoint = self._folder.hand_over(path) if path.exists() else None
        self._asked.append(Start(number, architecture, known, checkpoint))

    def answer(self, number: int, go_on: bool) -> None:
        """Set the scheduler's decision on the findings that are being handled."""
        self._goes_on = go_on

    def run(
        self, runner: Runner[TuneCrew], interruption: Interruption | None = None
    ) -> StudyRecord:
        """Run Tune until the runner has no more trials.

        Raises:
            Interrupted: the user stops the study; the running trials can be resumed.
        """
        interruption = interruption or Interruption()
        self._folder.take(runner.store.others)
        callbacks = _Callbacks(self, runner, interruption)
        try:
            lost = lost_workers_as_dead(callbacks.lost)
            with runner.blameless(), interruption.held(), lost:
                self._tuner(callbacks).fit()
        finally:
            callbacks.close()
        return runner.close()

    def _tuner(self, callbacks: _Callbacks) -> tune.Tuner:
        trainable = tune.with_parameters(
            EvaluationTrainable,
            make=self._make,
            objectives=self._objectives,
            status=callbacks.status,
            limits=self.limits,
        )
        return tune.Tuner(
            tune.with_resources(trainable, self._cluster.need),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(callbacks),
                scheduler=_Scheduler(callbacks),
                num_samples=-1,
                # Where memory is limited, memory left by one trial must not count for the next.
                reuse_actors=self.limits.memory_bytes is None,
                trial_name_creator=_name,
                trial_dirname_creator=_folder_name,
            ),
            run_config=tune.RunConfig(
                name=self._folder.name,
                storage_path=self._folder.storage,
                verbose=0,
                callbacks=[_Watcher(callbacks)],
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),  # the runner starts it again
            ),
        )

    def take(self) -> Start | None:
        """Return the next requested start; None if there is none."""
        return self._asked.pop(0) if self._asked else None

    def goes_on(self) -> bool:
        """Return the last answer: whether to continue."""
        answer, self._goes_on = self._goes_on, True
        return answer

    def elsewhere(self, differing: Sequence[str]) -> None:
        """Report the differences of a worker's environment, if there are any."""
        if differing and self._on_elsewhere:
            self._on_elsewhere(differing)

    def receive(self, digest: str, checkpoint: tune.Checkpoint) -> None:
        """Copy a worker's files into the study's folder, each in one step."""
        folder = self._artefacts / digest
        folder.mkdir(parents=True, exist_ok=True)
        with checkpoint.as_directory() as arrived:
            received = list(Path(arrived).iterdir())
            for path in received:
                with replacing(folder / path.name) as partial:
                    shutil.copyfile(path, partial)
        if CHECKPOINT not in {path.name for path in received}:  # the training has ended
            self.forget(digest)

    def forget(self, digest: str) -> None:
        """Remove the checkpoint of a training that has ended."""
        (self._artefacts / digest / CHECKPOINT).unlink(missing_ok=True)


class _Callbacks:
    """Passes Tune's callbacks to the runner.

    The first error in a callback ends the run. It is raised from `suggest`, which Tune calls
    repeatedly: Tune takes an error of any other callback for the failure of one trial.
    """

    def __init__(
        self, crew: TuneCrew, runner: Runner[TuneCrew], interruption: Interruption
    ) -> None:
        self._crew, self._runner, self._interruption = crew, runner, interruption
        self._running: set[int] = set()
        self._error: Exception | None = None
        self._loss = _GONE
        self._feed_at = 0.0
        self._status = WorkerStatus.on_this_node()
        self._reading: Any = None
        self._read = time.monotonic()

    @property
    def status(self) -> Any:
        """Handle of the actor to which workers report progress and exceeded limits."""
        return self._status

    def close(self) -> None:
        """End the status actor: the connection to Ray, and all its actors, may outlive the run."""
        with suppress(RayError):
            ray.kill(self._status)

    def suggest(self) -> dict[str, Start] | str | None:
        """Return the next start; None while there is none, `FINISHED` at the end."""
        if self._error:
            raise self._error
        if time.monotonic() < self._feed_at:
            return None
        going_on, start = self._runner.feed(), self._crew.take()
        if start is not None:
            self._running.add(start.number)
            return {"start": start}
        if going_on or self._runner.store.others.wait():
            self._feed_at = time.monotonic() + _FEED_S
            return None
        return Searcher.FINISHED

    def result(self, start: Start, report: WorkerReport) -> str:
        """Pass findings to the runner; return its decision as Tune's constant."""
        self._crew.elsewhere(report.elsewhere)
        if report.findings is None:
            return TrialScheduler.STOP
        self._handle(TrialEvent(start.number, "found", findings=report.findings))
        over = report.findings.step == "done" or self._error or not self._crew.goes_on()
        return TrialScheduler.STOP if over else TrialScheduler.CONTINUE

    def received(self, start: Start, checkpoint: tune.Checkpoint) -> None:
        """Copy a worker's files into the study's folder."""
        try:
            self._crew.receive(start.architecture.digest, checkpoint)
            self._runner.store.trials.push(start.number)
        except OSError as error:
            self._error = self._error or UserError(f"{error.filename}: {error.strerror}")

    def ended(self, start: Start, report: WorkerReport) -> None:
        """Report the end of an evaluation, whose last checkpoint has been received."""
        if report.kind == "refused":
            self._error = self._error or UserError(str(report.reason))
        elif report.kind == "broken":
            self._error = self._error or RuntimeError(
                f"a worker raised an unexpected error:\n{report.reason}"
            )
        elif report.kind == "failed":
            self._crew.forget(start.architecture.digest)
        self._running.discard(start.number)
        kind: Literal["failed", "ended"] = "failed" if report.kind == "failed" else "ended"
        self._handle(TrialEvent(start.number, kind, reason=report.reason))

    def lost(self, reason: str | None) -> None:
        """Keep the reason for the loss of a worker while `died` may be called; None forgets it."""
        self._loss = reason or _GONE

    def died(self, start: Start) -> None:
        """Report the loss of a worker; its trial starts again unless it exceeded a limit."""
        self._running.discard(start.number)
        if reason := self._excess(start.number):
            self._crew.forget(start.architecture.digest)
            self._handle(TrialEvent(start.number, "failed", reason=reason))
        else:
            self._handle(TrialEvent(start.number, "died", reason=self._loss))

    def _excess(self, number: int) -> str | None:
        if self._crew.limits:
            with suppress(RayError):
                found: str | None = ray.get(self._status.excess.remote(number), timeout=ANSWER_S)
                return found
        return None

    def between_events(self) -> None:
        """Stop here if a signal has come: nothing is being written."""
        self._interruption.check()
        self._read_progress()

    def _read_progress(self) -> None:
        """Report the progress of epochs, without waiting for the actor's answer."""
        if self._reading is None:
            if time.monotonic() - self._read >= _READ_S:
                self._reading, self._read = self._status.read.remote(), time.monotonic()
            return
        if ray.wait([self._reading], timeout=0)[0]:
            with suppress(RayError):  # its process was killed, also for memory; Ray restarts it
                for number, batches in ray.get(self._reading).items():
                    if number in self._running:
                        self._handle(TrialEvent(number, "batch", batches=batches))
            self._reading = None

    def _handle(self, event: TrialEvent) -> None:
        if self._error:
            return
        if event.kind != "batch":
            self._feed_at = 0.0
        try:
            self._runner.handle(event)
        except Exception as error:
            self._error = error


class _Unpickled:
    """Pickled as an empty object: Tune pickles its callbacks for a `restore` that is never used."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())


class _Searcher(_Unpickled, Searcher):
    def __init__(self, callbacks: _Callbacks) -> None:
        super().__init__()
        self._callbacks = callbacks

    def suggest(self, trial_id: str) -> Any:
        return self._callbacks.suggest()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        pass  # the scheduler gets the trial itself

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Scheduler(_Unpickled, FIFOScheduler):
    def __init__(self, callbacks: _Callbacks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._callbacks = callbacks

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        return self._callbacks.result(trial.config["start"], result[REPORT])

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._callbacks.ended(trial.config["start"], result[REPORT])
        remove_trial(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._callbacks.died(trial.config["start"])
        remove_trial(trial)


class _Watcher(_Unpickled, tune.Callback):
    def __init__(self, callbacks: _Callbacks) -> None:
        self._callbacks = callbacks

    def on_checkpoint(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        checkpoint: tune.Checkpoint,
        **info: Any,
    ) -> None:
        self._callbacks.received(trial.config["start"], checkpoint)

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._callbacks.between_events()


def _name(trial: Trial) -> str:
    return f"trial-{trial.config['start'].number}"


def _folder_name(trial: Trial) -> str:
    return f"{_name(trial)}-{trial.trial_id}"
