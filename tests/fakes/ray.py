"""Evaluators for Ray workers that take no time, keep checkpoints in files, and may fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from nas.protocol import OnBatch
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.study import RayConfig, StudyConfig
from studies.config.trial_limits import UNLIMITED, TrialLimits
from studies.on_ray.cluster import Cluster, ray_session
from studies.on_ray.crew import TuneCrew
from studies.on_ray.folder import TuneFolder
from studies.record.records import StudyRecord
from studies.run.crew import Alone, Evaluate
from studies.run.runner import Runner
from studies.store.store import StudyStore
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import Learner
from tests.fakes.runs import stopping_config


@dataclass(frozen=True)
class RayMaker:
    """Makes a worker's evaluator.

    `folder` holds a log of trained epochs, and files named after a kind of trouble with the number
    of times it shall still befall somebody; `epoch_s` is how long an epoch takes.
    """

    folder: Path
    epoch_s: float = 0.0

    def __call__(self, on_batch: OnBatch, scratch: Path) -> Evaluate:
        return FiledLearner(self, on_batch, scratch)

    @property
    def log(self) -> list[list[str]]:
        """Digest, epoch, process and node of every epoch that was trained."""
        path = self.folder / "log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def befalls(self, trouble: str) -> bool:
        path = self.folder / trouble
        left = int(path.read_text()) if path.exists() else 0
        if left > 0:
            path.write_text(str(left - 1))
        return left > 0


class FiledLearner:
    """A `Learner` whose checkpoints are files where a real evaluator has them."""

    def __init__(self, maker: RayMaker, on_batch: OnBatch, scratch: Path) -> None:
        self.maker, self.on_batch, self.scratch = maker, on_batch, scratch

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        folder = self.scratch / architecture.digest
        folder.mkdir(parents=True, exist_ok=True)
        for findings in Learner(_Files(self, folder))(architecture, known):
            if findings.step == "done":
                (folder / "checkpoint.safetensors").unlink()
                (folder / "weights.safetensors").write_text(architecture.digest)
                if self.maker.befalls("nan"):
                    yield replace(findings, objectives={"reconstruction_loss": float("nan")})
                    return
            yield findings


class _Files(dict[str, int]):
    """Epochs done by digest, in a file."""

    def __init__(self, learner: FiledLearner, folder: Path) -> None:
        super().__init__()
        self.learner, self.path = learner, folder / "checkpoint.safetensors"

    def get(self, digest: str, default: int = 0) -> int:  # type: ignore[override]
        return int(self.path.read_text()) if self.path.exists() else default

    def __setitem__(self, digest: str, epoch: int) -> None:
        maker = self.learner.maker
        if epoch == 3 and maker.befalls("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch == 3 and maker.befalls("hung"):
            time.sleep(600)
        if epoch == 3 and maker.befalls("greedy"):
            self.eaten = os.urandom(1) * 1_600_000_000
            time.sleep(600)
        if epoch == 2 and maker.befalls("failed"):
            raise CandidateFailed("training diverged at epoch 2")
        if maker.befalls("refused"):
            raise UserError("disk: full; make room")
        if maker.befalls("broken"):
            raise ZeroDivisionError("a fault of ours")
        time.sleep(maker.epoch_s)
        self.learner.on_batch(1, 1)
        self.path.write_text(str(epoch))
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
        with (maker.folder / "log").open("a") as log:
            log.write(f"{digest} {epoch} {os.getpid()} {node}\n")


def run_on_ray(
    root: Path,
    wanted: StudyConfig,
    maker: RayMaker,
    most: int | None = None,
    cpus: float = 1,
    address: str | None = None,
    limits: TrialLimits = UNLIMITED,
    artefacts: str | None = None,
) -> StudyRecord:
    store, space = StudyStore(root / wanted.name), wanted.load_space()
    with ray_session(RayConfig(address=address)), store.writing():
        store.create(wanted, space, ENVIRONMENT, artefacts=artefacts)
        folder = TuneFolder(str(store.folder))
        crew = TuneCrew(
            maker,
            wanted.objectives,
            Cluster({"CPU": cpus}),
            store.artefacts,
            folder,
            most,
            limits=limits,
        )
        try:
            return crew.run(Runner(wanted, space, store, crew))
        finally:
            folder.remove()


def run_here(root: Path, wanted: StudyConfig, maker: RayMaker) -> StudyRecord:
    store, space = StudyStore(root / wanted.name), wanted.load_space()
    with store.writing():
        store.create(wanted, space, ENVIRONMENT)
        learner = FiledLearner(maker, lambda done, total: None, store.artefacts)
        return Runner(wanted, space, store, Alone(learner)).run()


KILLED = stopping_config(search={"sampler": "random", "trials": 4})
"""What a driver is asked for that is to be killed."""


def drive(folder: str, address: str) -> None:
    """Be a driver that is to be killed."""
    root = Path(folder)
    run_on_ray(root, KILLED, RayMaker(root, epoch_s=0.05), most=2, address=address)
