"""Where a study lives: an Optuna storage for the record, a folder for what does not fit in it.

Everything a table or figure needs can be rebuilt from the two. One process at a time writes.
"""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.objectives import select_objectives
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError, nearest
from search_spaces.space import SearchSpace
from studies.records import State, StudyRecord, TrialRecord

if TYPE_CHECKING:  # reading a study needs no torch, which these import
    from nas.evaluate import Findings
    from studies.config import StudyConfig

FORMAT = 1
"""Version of what is written to trial and study attributes."""

IDENTITY = ("space", "data", "objectives", "training", "latency")
"""What must not change between two runs of one study: values would no longer be comparable."""


class StudyStore:
    """One study, open for reading and, inside `writing()`, for running.

    Args:
        folder: Holds the journal (by default), `study.yaml`, artefacts and the report.
        storage: An Optuna URL, `journal:PATH`, or None for the journal in the folder.
    """

    def __init__(self, folder: Path, storage: str | None = None) -> None:
        self.folder = folder
        self.url = storage or f"journal:{folder / 'journal.log'}"
        self._study: optuna.Study | None = None

    @property
    def study(self) -> optuna.Study:
        """The Optuna study underneath; raises `UserError` if there is none yet."""
        if self._study is None:
            self._study = _load(self.url, self.folder.name)
        return self._study

    @classmethod
    def open(cls, root: Path, name: str) -> StudyStore:
        """Open an existing study for reading; raise `UserError` naming the nearest one."""
        path = root / name / "study.yaml"
        if not path.is_file():
            names = list_studies(root)
            have = f"there are {', '.join(names)}" if names else "there are none yet"
            raise UserError(f"no study {name!r} in {root}: {have}{nearest(name, names)}")
        return cls(path.parent, yaml.safe_load(path.read_text(encoding="utf-8"))["storage"])

    def create(
        self, config: StudyConfig, space: SearchSpace, environment: Mapping[str, Any]
    ) -> None:
        """Create the study, or check that the existing one asks the same question.

        Raises:
            UserError: the folder cannot be written, or the stored study differs in what must agree.
        """
        try:
            self.artefacts.mkdir(parents=True, exist_ok=True)
            storage = _storage(self.url)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another --root"
            ) from None
        with quiet_optuna():
            self._study = optuna.create_study(
                study_name=config.name,
                storage=storage,
                directions=["minimize"] * len(config.objectives),
                load_if_exists=True,
            )
        self._check_identity(config, space, environment["data_fingerprint"])
        self._write_head(config, space, environment)

    @property
    def artefacts(self) -> Path:
        """Folder of weights, checkpoints and reconstructions, one per architecture digest."""
        return self.folder / "artefacts"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the study for one process; raise `UserError` if another one has it.

        The kernel releases the lock when its holder dies.
        """
        path = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another --root"
            ) from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                raise UserError(
                    f"study {self.folder.name!r} is being run by process {handle.read().strip()}; "
                    "wait for it, stop it, or give this run another --name"
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def begin(
        self,
        architecture: Architecture,
        assignment: Mapping[str, Any] | None,
        space: SearchSpace,
        reference: str | None = None,
        repeats: int = 0,
    ) -> int:
        """Record that an architecture is being evaluated; return its trial number."""
        params = space.to_optuna(dict(assignment)) if assignment else {}
        distributions = space.distributions(dict(assignment)) if assignment else {}
        with quiet_optuna():
            self.study.sampler = PartialFixedSampler(params, RandomSampler())
            trial = self.study.ask(fixed_distributions=distributions)
        trial.set_user_attr(
            "candidate",
            {
                "digest": architecture.digest,
                "architecture": architecture.to_dict(),
                "assignment": dict(assignment or {}),
                "reference": reference,
                "repeats": repeats,
            },
        )
        return trial.number

    def finish(
        self,
        number: int,
        state: State,
        findings: Findings,
        reason: str | None = None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Record how a trial ended. What the trial found is written before its state."""
        trial = self._trial(number)
        trial.set_user_attr("findings", asdict(findings))
        if reason:
            trial.set_user_attr("reason", reason)
        for key, violation in (violations or {}).items():
            trial.set_constraint(key, violation)
        names = self.study.user_attrs["config"]["objectives"]
        with quiet_optuna():
            if state == "complete":
                self.study.tell(number, [findings.objectives[name] for name in names])
            else:
                told = TrialState.PRUNED if state == "rejected" else TrialState.FAIL
                self.study.tell(number, state=told)

    def record(self) -> StudyRecord:
        """Read the whole study."""
        attributes = self.study.user_attrs
        if attributes.get("format") != FORMAT:
            raise UserError(f"{self.url}: study {self.study.study_name!r} was not made by nas")
        return StudyRecord(
            name=self.study.study_name,
            objectives=select_objectives(attributes["config"]["objectives"]),
            trials=tuple(
                _record(trial) for trial in self._trials() if "candidate" in trial.user_attrs
            ),
            config=attributes["config"],
            environment=attributes["environment"],
            folder=self.folder,
            space_size=attributes["space_size"],
        )

    def trial(self, number: int) -> TrialRecord:
        """Read one trial."""
        return _record(self._trials()[number])

    def unfinished(self) -> list[TrialRecord]:
        """Return the trials a killed run left behind; those killed before a start are failed."""
        left = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        for trial in left:
            if "candidate" not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
        return [_record(trial) for trial in left if "candidate" in trial.user_attrs]

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _trial(self, number: int) -> Trial:
        # The public way back to a trial that an earlier process began.
        return Trial(self.study, self._trials()[number]._trial_id)

    def _check_identity(self, config: StudyConfig, space: SearchSpace, data: str) -> None:
        stored = self.study.user_attrs.get("config")
        if stored is None:
            if self._trials():
                raise UserError(
                    f"{self.url}: a study {config.name!r} that nas did not make is there already; "
                    "choose another --name or --storage"
                )
            return
        current = config.to_dict()
        differing = [key for key in IDENTITY if current[key] != stored[key]]
        if self.study.user_attrs["space_digest"] != space.digest and "space" not in differing:
            differing.insert(0, "space")
        if not differing and self.study.user_attrs["environment"]["data_fingerprint"] != data:
            differing = ["data"]
        if differing:
            parts = "; ".join(_difference(key, stored[key], current[key]) for key in differing)
            raise UserError(
                f"study {config.name!r} exists with other settings ({parts}): "
                "give this one another --name, or remove the folder "
                f"{self.folder} to start again"
            )

    def _write_head(
        self, config: StudyConfig, space: SearchSpace, environment: Mapping[str, Any]
    ) -> None:
        head = {
            "format": FORMAT,
            "config": config.to_dict(),
            "space": space.to_dict(),
            "space_digest": space.digest,
            "space_size": space.size if space.size < 2**53 else float(space.size),
            "environment": dict(environment),
        }
        for key, value in head.items():
            if self.study.user_attrs.get(key) != value:
                self.study.set_user_attr(key, value)
        with quiet_optuna():
            self.study.set_metric_names(list(config.objectives))
        text = yaml.safe_dump(
            {"storage": self.url, "config": config.to_dict()}, sort_keys=False, allow_unicode=True
        )
        write_atomically(self.folder / "study.yaml", text.encode())


def list_studies(root: Path) -> list[str]:
    """Return the names of the studies in `root`, sorted."""
    return sorted(path.parent.name for path in root.glob("*/study.yaml"))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` with `content`; a reader or a crash sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own log lines and notes on experimental features off the user's screen."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _storage(url: str) -> BaseStorage:
    if url.startswith("journal:"):
        path = url.removeprefix("journal:")
        return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    try:
        return RDBStorage(url)
    except Exception as error:  # any driver's own error: the user has to act on the URL
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--storage: {reason}; write journal:PATH, sqlite:///PATH or postgresql+psycopg://..."
        ) from None


def _load(url: str, name: str) -> optuna.Study:
    try:
        with quiet_optuna():
            return optuna.load_study(study_name=name, storage=_storage(url))
    except KeyError:
        raise UserError(f"{url}: holds no study {name!r}") from None


def _record(trial: FrozenTrial) -> TrialRecord:
    candidate, found = trial.user_attrs["candidate"], trial.user_attrs.get("findings", {})
    states: dict[TrialState, State] = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "rejected",
        TrialState.FAIL: "failed",
    }
    return TrialRecord(
        number=trial.number,
        state=states.get(trial.state, "running"),
        digest=candidate["digest"],
        architecture=Architecture.model_validate(candidate["architecture"]),
        assignment=candidate["assignment"],
        reference=candidate["reference"],
        repeats=candidate["repeats"],
        reason=trial.user_attrs.get("reason"),
        objectives=found.get("objectives", {}),
        metrics=found.get("metrics", {}),
        intervals={name: (low, high) for name, (low, high) in found.get("intervals", {}).items()},
        contended=found.get("contended", False),
        history=found.get("history", ()),
        timings_s=found.get("timings_s", {}),
    )


def _difference(key: str, stored: Any, current: Any) -> str:
    if isinstance(stored, dict) and isinstance(current, dict):
        inner = [
            _difference(f"{key}.{name}", stored.get(name), current.get(name))
            for name in sorted({*stored, *current})
            if stored.get(name) != current.get(name)
        ]
        if inner:
            return "; ".join(inner)
    if stored == current:
        return f"{key} is described as before but its content changed"
    return f"{key} was {json.dumps(stored)}, now {json.dumps(current)}"
