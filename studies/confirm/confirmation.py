"""Train the models that may be best again with further seeds, and record each training.

A search trains each candidate once and chooses by that one loss, so its best models are partly the
luckiest. The further trainings have the study's own budget; each is stored in the study as soon as
it is finished, and from them follow the seed noise, the confirmed losses and all claims about them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nas.artefacts import CHECKPOINT, folder_or_refuse, full_disk_refused
from nas.datasets import ImageDataset
from profiling.files import sweep
from profiling.locks import open_lock, try_lock
from profiling.resources import cores
from search_spaces.errors import UserError
from studies.config.parts import sources_of
from studies.config.study import StudyConfig
from studies.confirm.evaluator import SeedEvaluatorMaker, asked, run_of
from studies.confirm.plan import Plan, Training
from studies.record.formats import format_duration
from studies.record.records import SeedRun, StudyRecord, TrialRecord
from studies.run.crew import Alone, Crew, TrialEvent, Workers
from studies.run.evaluators import ProgressBar, default_workers
from studies.run.interruption import Interruptible, Interruption
from studies.store.store import StudyStore

_MOST_DEATHS = 3
"""A training has failed after this many of its processes have died."""


@dataclass(frozen=True)
class Shown:
    """How a confirmation is shown and interrupted.

    Attributes:
        say: Prints a line, one for each finished training.
        progress_bar: Makes a progress bar from a label.
        interruption: Handles signals.
    """

    say: Callable[[str], None]
    progress_bar: ProgressBar
    interruption: Interruption


def confirm(
    store: StudyStore,
    config: StudyConfig,
    plan: Plan,
    dataset: ImageDataset,
    device: torch.device,
    shown: Shown,
) -> StudyRecord:
    """Do the trainings of a plan that are missing, and return the study's record.

    An interrupted training resumes from its last epoch.

    Args:
        store: The study, open for writing.
        config: Its configuration: data, training, workers and threads.
        plan: Which trainings to do.
        dataset: Its images.
        device: Device of the trainings.
        shown: How it is shown and interrupted.

    Raises:
        UserError: another process confirms this study, or a file cannot be written.
        Interrupted: a signal came; the trainings can be resumed.
    """
    record = store.record()
    if plan.next(record) is None:
        return record
    size = record.image_size
    workers = config.workers or default_workers(config, size, str(device))
    thread_count = config.threads or max(1, cores() // workers)
    sources = sources_of(config)
    maker = SeedEvaluatorMaker(config, size, str(device), store.confirmed, thread_count, sources)
    with (
        _alone(store),
        full_disk_refused(store.confirmed),
        shown.progress_bar("confirming the best models, epochs") as progress,
    ):
        ongoing = _Ongoing(store, plan, config.training.epochs, shown.say, progress)
        with (
            _crew(maker, workers, config, dataset) as crew,
            shown.interruption.held(),
        ):
            ongoing.run(Interruptible(crew, shown.interruption))
    return store.record()


@contextmanager
def alone_in(folder: Path, doing: str = "confirming") -> Iterator[None]:
    """Hold the lock of a folder of further trainings, which is created if necessary.

    Args:
        folder: The folder.
        doing: What the message says of another process, followed by "this study".

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    folder_or_refuse(folder)
    with open_lock(folder / "lock") as file:
        if not try_lock(file):
            raise UserError(
                f"{folder}: another process is {doing} this study; wait for it or stop it"
            )
        yield


@contextmanager
def _alone(store: StudyStore) -> Iterator[None]:
    """Hold the lock of the confirmation; remove partial files that killed processes have left."""
    with alone_in(store.confirmed):
        _sweep(store)
        try:
            yield
        finally:
            _sweep(store)


def _sweep(store: StudyStore) -> None:
    for of_seed in store.confirmed.glob("*/"):
        sweep(of_seed)


@contextmanager
def _crew(
    maker: SeedEvaluatorMaker,
    workers: int,
    config: StudyConfig,
    dataset: ImageDataset,
) -> Iterator[Crew]:
    # A process that exceeds a limit is killed, so it must not be this one.
    if workers == 1 and not config.trial_limits:
        yield Alone(maker.make(lambda done, total: None, dataset))
    else:
        with Workers(workers, maker, config.trial_limits) as crew:
            yield crew


@dataclass
class _Begun:
    """A training that has begun: its trial, its seed, epochs done, whether it is recorded."""

    trial: TrialRecord
    seed: int
    epochs: int = 0
    recorded: bool = False


@dataclass
class _Ongoing:
    """The trainings of a confirmation, as they begin and end."""

    store: StudyStore
    plan: Plan
    epochs: int
    say: Callable[[str], None]
    progress: Callable[[int, int], None]
    begun: dict[int, _Begun] = field(default_factory=dict)
    deaths: Counter[Training] = field(default_factory=Counter)
    ended: int = 0
    number: int = 0

    def run(self, crew: Crew) -> None:
        """Do the missing trainings."""
        record = self.store.record()
        recorded = [(trial, run) for trial in record.trials for run in trial.runs]
        self.ended = len(recorded)
        for trial, run in recorded:  # whose process may have died before it removed it
            self._remove_checkpoint(trial, run.seed)
        self._fill(crew, record)
        self._report(record)
        while self.begun:
            event = crew.next()
            if self._handle(crew, event):
                self._fill(crew, self.store.record())
            self._report(record)

    def _fill(self, crew: Crew, record: StudyRecord) -> None:
        running = {(one.trial.digest, one.seed) for one in self.begun.values()}
        while len(self.begun) < crew.size and (found := self.plan.next(record, running)):
            trial, seed = found
            running.add((trial.digest, seed))
            self._start(crew, _Begun(trial, seed))

    def _start(self, crew: Crew, one: _Begun) -> None:
        self.number += 1
        self.begun[self.number] = one
        crew.start(self.number, one.trial.architecture, asked(one.seed))

    def _handle(self, crew: Crew, event: TrialEvent) -> bool:
        """Handle an event; return whether a training has ended."""
        one = self.begun[event.number]
        if event.kind == "found":
            assert event.findings is not None
            one.epochs = len(event.findings.history)
            if event.findings.step == "done":
                self._record(one, run_of(event.findings, one.seed))
            crew.answer(event.number, True)
        elif event.kind == "warned":
            self.say(f"{one.trial.name}, seed {one.seed}: {event.reason}")
        elif event.kind in ("ended", "failed", "died"):
            del self.begun[event.number]
            if event.kind == "ended" or one.recorded:
                return True
            if event.kind == "died" and self._again(one):
                self._start(crew, _Begun(one.trial, one.seed))
                return False
            self._record(one, SeedRun(one.seed, reason=event.reason or "no reason recorded"))
            return True
        return False

    def _again(self, one: _Begun) -> bool:
        key = one.trial.digest, one.seed
        self.deaths[key] += 1
        return self.deaths[key] < _MOST_DEATHS

    def _record(self, one: _Begun, run: SeedRun) -> None:
        self.store.add_run(one.trial.digest, run)
        self.ended, one.epochs, one.recorded = self.ended + 1, 0, True
        self._remove_checkpoint(one.trial, one.seed)
        self.store.push_confirmed(one.trial.digest, one.seed)
        self.say(f"confirming: {one.trial.name}, seed {one.seed}: {_told(one.trial, run)}")

    def _remove_checkpoint(self, trial: TrialRecord, seed: int) -> None:
        folder = self.store.confirmed_weights(trial.digest, seed).parent
        (folder / CHECKPOINT).unlink(missing_ok=True)

    def _report(self, record: StudyRecord) -> None:
        done = self.ended * self.epochs + sum(one.epochs for one in self.begun.values())
        self.progress(done, max(done, self.plan.most(record) * self.epochs))


def _told(trial: TrialRecord, run: SeedRun) -> str:
    """Return the result of a training in words: its loss beside that of the search."""
    if run.reason is not None:
        return f"failed ({run.reason})"
    name = next(name for name in run.validation if name in trial.objectives)
    return (
        f"{name} {run.validation[name]:.4f} (the search saw {trial.observed(name):.4f}), "
        f"{format_duration(run.duration_s)}"
    )
