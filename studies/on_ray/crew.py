"""A study on Ray Tune: Tune has the loop, the study's own runner asks, tells and decides.

Tune's searcher takes from the runner what to evaluate, its scheduler hands over what was found and
gets the decision. Each time an evaluation begins or begins again is one Tune trial. What workers
write comes through Tune's checkpoints into the study's folder, where a local run would have put it:
so either can go on with what the other began. The Optuna storage stays the only record.
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
from ray.exceptions import RayActorError, RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from nas.artefacts import CHECKPOINT
from nas.findings import Findings
from profiling.files import replacing
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.trial_limits import UNLIMITED, TrialLimits
from studies.on_ray.board import BOARD_S, Board
from studies.on_ray.cluster import Cluster
from studies.on_ray.folder import TuneFolder, remove_trial
from studies.on_ray.lost_workers import lost_workers_as_dead
from studies.on_ray.trial import TOLD, Evaluation, Make, Start, Told
from studies.record.records import StudyRecord
from studies.run.crew import TrialEvent
from studies.run.interruption import Interruption
from studies.run.runner import Runner

_GONE = "its process is gone"

_READ_S = 0.5
"""Seconds between two looks at how far the workers' epochs are."""

_FEED_S = 1.0
"""Seconds after which what there is to do is looked for again, though nothing happened here."""


class TuneCrew:
    """Hands of a `Runner`: what it wants to start, and what it answers, for Tune to carry out.

    Args:
        make: Makes the evaluator of each worker; sent there.
        objectives: Names of the study's objectives; every result holds all of them.
        cluster: Where trials run.
        artefacts: The study's folder of artefacts.
        folder: Where workers put what they write; whoever made it removes it.
        most: Evaluations at once, at most; None for as many as there is room for.
        on_elsewhere: Told in what the environment of a worker differs from the study's.
        limits: What a trial may take; the process of one that takes more is killed.
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
        """Trials that there is room for; at least one, since nodes may come back."""
        return max(1, min(self._cluster.room, self._most or self._cluster.room))

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Have it evaluated from where an earlier evaluation left its checkpoint."""
        path = self._artefacts / architecture.digest / CHECKPOINT
        checkpoint = self._folder.hand_over(path) if path.exists() else None
        self._asked.append(Start(number, architecture, known, checkpoint))

    def answer(self, number: int, go_on: bool) -> None:
        """Decide what the scheduler says of the finding that is being handled."""
        self._goes_on = go_on

    def run(
        self, runner: Runner[TuneCrew], interruption: Interruption | None = None
    ) -> StudyRecord:
        """Let Tune evaluate until the runner has no more.

        Raises:
            Interrupted: the user wants it to stop; what runs is left to be resumed.
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
            Evaluation,
            make=self._make,
            objectives=self._objectives,
            board=callbacks.board,
            limits=self.limits,
        )
        return tune.Tuner(
            tune.with_resources(trainable, self._cluster.need),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(callbacks),
                scheduler=_Scheduler(callbacks),
                num_samples=-1,
                # Where memory is limited, a trial is not to pay for what another left behind.
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
                failure_config=tune.FailureConfig(max_failures=0),  # the runner begins it again
            ),
        )

    def take(self) -> Start | None:
        """Return what to start next."""
        return self._asked.pop(0) if self._asked else None

    def goes_on(self) -> bool:
        """Return the last answer."""
        answer, self._goes_on = self._goes_on, True
        return answer

    def elsewhere(self, differing: Sequence[str]) -> None:
        """Take note of a worker in another environment."""
        if differing and self._on_elsewhere:
            self._on_elsewhere(differing)

    def receive(self, digest: str, checkpoint: tune.Checkpoint) -> None:
        """Put what a worker wrote into the study's folder; a reader sees old files or new ones."""
        folder = self._artefacts / digest
        folder.mkdir(parents=True, exist_ok=True)
        with checkpoint.as_directory() as arrived:
            received = list(Path(arrived).iterdir())
            for path in received:
                with replacing(folder / path.name) as partial:
                    shutil.copyfile(path, partial)
        if CHECKPOINT not in {path.name for path in received}:  # its training is over
            self.forget(digest)

    def forget(self, digest: str) -> None:
        """Remove the checkpoint of a training that needs none any more."""
        (self._artefacts / digest / CHECKPOINT).unlink(missing_ok=True)


class _Callbacks:
    """What Tune calls, told to the runner.

    The first error that happens there ends the run, but from `suggest`, which Tune calls again and
    again: an error in any other place it would take for a trial's.
    """

    def __init__(
        self, crew: TuneCrew, runner: Runner[TuneCrew], interruption: Interruption
    ) -> None:
        self._crew, self._runner, self._interruption = crew, runner, interruption
        self._running: set[int] = set()
        self._error: Exception | None = None
        self._loss = _GONE
        self._feed_at = 0.0
        self._board = Board.beside_the_driver()
        self._reading: Any = None
        self._read = time.monotonic()

    @property
    def board(self) -> Any:
        """Where workers write how far they are."""
        return self._board

    def close(self) -> None:
        """End the board: the connection to Ray, and with it all actors, may go on."""
        with suppress(RayError):
            ray.kill(self._board)

    def suggest(self) -> dict[str, Start] | str | None:
        """Return what to evaluate next, None while there is nothing, `FINISHED` at the end."""
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

    def result(self, start: Start, told: Told) -> str:
        """Hand a finding to the runner; return Tune's word for its decision."""
        self._crew.elsewhere(told.elsewhere)
        if told.findings is None:
            return TrialScheduler.STOP
        self._handle(TrialEvent(start.number, "found", findings=told.findings))
        over = told.findings.step == "done" or self._error or not self._crew.goes_on()
        return TrialScheduler.STOP if over else TrialScheduler.CONTINUE

    def received(self, start: Start, checkpoint: tune.Checkpoint) -> None:
        """Take over what a worker wrote."""
        try:
            self._crew.receive(start.architecture.digest, checkpoint)
            self._runner.store.trials.push(start.number)
        except OSError as error:
            self._error = self._error or UserError(f"{error.filename}: {error.strerror}")

    def ended(self, start: Start, told: Told) -> None:
        """Tell the runner that an evaluation is over; its last checkpoint has been received."""
        if told.kind == "refused":
            self._error = self._error or UserError(str(told.reason))
        elif told.kind == "broken":
            self._error = self._error or RuntimeError(f"a worker broke down:\n{told.reason}")
        elif told.kind == "failed":
            self._crew.forget(start.architecture.digest)
        self._running.discard(start.number)
        kind: Literal["failed", "ended"] = "failed" if told.kind == "failed" else "ended"
        self._handle(TrialEvent(start.number, kind, reason=told.reason))

    def lost(self, reason: str) -> None:
        """Keep why a worker is gone, for the call of `died` that follows."""
        self._loss = reason

    def died(self, start: Start) -> None:
        """Tell the runner that a worker is gone; unless a limit is why, its trial begins again."""
        self._running.discard(start.number)
        loss, self._loss = self._loss, _GONE
        if reason := self._excess(start.number):
            self._crew.forget(start.architecture.digest)
            self._handle(TrialEvent(start.number, "failed", reason=reason))
        else:
            self._handle(TrialEvent(start.number, "died", reason=loss))

    def _excess(self, number: int) -> str | None:
        if self._crew.limits:
            with suppress(RayError):
                found: str | None = ray.get(self._board.excess.remote(number), timeout=BOARD_S)
                return found
        return None

    def between_events(self) -> None:
        """Stop here if the user wants to: nothing is being written."""
        self._interruption.check()
        self._look_at_board()

    def _look_at_board(self) -> None:
        """Tell the runner how far epochs are, without waiting for the answer."""
        if self._reading is None:
            if time.monotonic() - self._read >= _READ_S:
                self._reading, self._read = self._board.read.remote(), time.monotonic()
            return
        if ray.wait([self._reading], timeout=0)[0]:
            with suppress(RayActorError):  # its process was killed; it starts anew
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
    """Tune pickles what it is given, for a `restore` that has no use: the storage is the record."""

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
        pass  # the scheduler knows the trial itself

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


class _Scheduler(_Unpickled, FIFOScheduler):
    def __init__(self, callbacks: _Callbacks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._callbacks = callbacks

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        return self._callbacks.result(trial.config["start"], result[TOLD])

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._callbacks.ended(trial.config["start"], result[TOLD])
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
