"""Where a study lives: an Optuna storage for the record, a folder for what does not fit in it.

Everything a table or figure needs can be rebuilt from the two. A study in a file (a journal,
SQLite) has one driver at a time, which a lock in its folder sees to. One in a database may have
several: each trial names its owner, and only who holds the lock (`studies.storage.locks`) begins a
trial, takes one over or ends one.
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage

from nas.artefacts import write_whole
from nas.objectives import select_objectives
from nas.search.samplers import quiet_optuna
from search_spaces.errors import UserError, nearest
from search_spaces.space import SearchSpace
from search_spaces.yaml_file import read_yaml
from studies.record.records import NAME, NAME_RULE, FinalLatency, StudyRecord, TrialRecord
from studies.storage.addresses import absolute, masked, portable, shared, without_password
from studies.storage.locks import driver_lock
from studies.storage.mirror import Mirror
from studies.storage.opening import engine_options, mend_journal, open_storage, reason_of
from studies.storage.patience import patiently
from studies.store import agreement
from studies.store.frozen import record_of
from studies.store.others import Others
from studies.store.trials import Trials

if TYPE_CHECKING:  # reading a study needs no torch, which this imports
    from studies.config.study import StudyConfig

COUNTED = 1000
"""Spaces up to this many assignments have their distinct architectures counted."""

FORMAT = 1
"""Version of what is written to trial and study attributes."""

HEAD = "study.yaml"
"""The file in a study's folder that says where its storage is, and repeats its configuration."""


class StudyStore(Trials):
    """One study, open for reading and, inside `writing()`, for running.

    Args:
        folder: Holds the journal (by default), `study.yaml`, artefacts and the report.
        storage: An Optuna URL, `journal:PATH`, `grpc://HOST:PORT`, or None for the journal in the
            folder.
    """

    def __init__(self, folder: Path, storage: str | None = None) -> None:
        self.folder = folder
        self.address = self._address(storage)
        self.where = without_password(self.address)
        self.others = Others()
        self._found: tuple[BaseStorage, optuna.Study] | None = None
        self._writes = False

    def _open(self) -> tuple[BaseStorage, optuna.Study]:
        if self._found is None:
            name = self.folder.name
            try:
                storage = open_storage(self.address, reading=True)
                with quiet_optuna():
                    study = optuna.load_study(
                        study_name=name, storage=storage, sampler=RandomSampler()
                    )
            except KeyError:
                raise UserError(f"{masked(self.address)}: holds no study {name!r}") from None
            self._found = storage, study
        return self._found

    @classmethod
    def open(cls, root: Path, name: str) -> StudyStore:
        """Open an existing study for reading; raise `UserError` naming the nearest one.

        Only a study's name names one, never a path.
        """
        if not re.fullmatch(NAME, name):
            raise UserError(f"{name[:80]!r} cannot name a study: {NAME_RULE}")
        if not (root / name / HEAD).is_file():
            names = list_studies(root)
            have = f"there are {', '.join(names)}" if names else "there are none yet"
            raise UserError(f"no study {name!r} in {root}: {have}{nearest(name, names)}")
        return cls(root / name)

    def _address(self, storage: str | None) -> str:
        """Return where the study is or shall be; an existing one stays where it is.

        A password is not written down: it comes with `storage`, or by PostgreSQL's own means.
        """
        head = self.folder / HEAD
        if not head.is_file():
            return absolute(storage, self.folder)
        written = read_yaml(head)
        if not isinstance(written, dict) or not isinstance(written.get("storage"), str):
            raise UserError(
                f"{head}: damaged (it names no storage); restore it or remove {head.parent}"
            )
        known = absolute(written["storage"], self.folder)
        asked = known if storage is None else absolute(storage, self.folder)
        if without_password(asked) != without_password(known):
            raise UserError(
                f"--storage {masked(str(storage))}: study {self.folder.name!r} is recorded in "
                f"{masked(known)}; leave the option out, or give this one another --name"
            )
        return asked

    # -- Beginning and ending a run -------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open the study for a run. In a file, it is this process's alone until it ends.

        Raises:
            UserError: the folder cannot be written, or another process runs the study in its file.
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
            if not shared(self.address):
                self._lock(handle)
                mend_journal(self.address)
            self._writes = True
            try:
                yield
            finally:
                self._writes = False
                self._leave()

    def _lock(self, handle: Any) -> None:
        try:  # the kernel releases the lock when its holder dies
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise UserError(
                f"study {self.folder.name!r} is being run by process {handle.read().strip()}, and "
                "a journal has one driver: wait for it, stop it, give this run another --name, or "
                "let several drivers share a PostgreSQL --storage"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()

    def _leave(self) -> None:
        try:
            self.others.leave()
        except Exception as error:  # they will find out by themselves
            print(f"{self.where}: not told of the end ({reason_of(error)})", file=sys.stderr)

    def create(
        self,
        config: StudyConfig,
        space: SearchSpace,
        environment: Mapping[str, Any],
        mix: bool = False,
        artefacts: str | None = None,
    ) -> None:
        """Create the study, or check that the existing one asks the same question.

        `artefacts` is the address of a store that artefacts are copied to, for good. `mix` accepts
        that latencies were measured in another environment, and records it. Where several drivers
        work, the environment is that of the first, with its latency of `original`.

        Raises:
            UserError: the stored study differs in what must agree.
        """
        self.artefacts.mkdir(parents=True, exist_ok=True)
        storage = open_storage(self.address)
        turn = driver_lock(self.address, config.name, storage, engine_options())
        alone = Others(where=self.where, turn=turn)  # there is no study yet to meet others in
        alone.in_turn(lambda: self._create(storage, config, space, environment, mix))
        alone.in_turn(lambda: self._settle_mirror(artefacts))
        if shared(self.address):
            study_id = storage.get_study_id_from_name(config.name)
            self.others = Others(storage, study_id, self.where, turn)
        if self._writes:
            self.others.join()

    def _create(
        self,
        storage: BaseStorage,
        config: StudyConfig,
        space: SearchSpace,
        environment: Mapping[str, Any],
        mix: bool,
    ) -> None:
        with quiet_optuna():
            study = optuna.create_study(
                study_name=config.name,
                storage=storage,
                directions=["minimize"] * len(config.objectives),
                sampler=RandomSampler(),
                load_if_exists=True,
            )
        self._found = storage, study
        stored = study.user_attrs
        if "format" in stored:
            agreement.require_same_question(stored, config, space, environment, self.folder)
        elif self._trials():
            raise UserError(
                f"{masked(self.address)}: a study {config.name!r} that nas did not make is "
                "there already; choose another --name or --storage"
            )
        before = stored.get("environment", environment)
        mixed = agreement.mixed_places(before, config, environment, mix)
        told = {**environment, **before} if shared(self.address) else dict(environment)
        self._write_head(config, space, {**told, **({"mixed": mixed} if mixed else {})})

    def _settle_mirror(self, asked: str | None) -> None:
        stored = self.study.user_attrs.get("artefacts")
        if asked is None:
            return
        url = asked if "://" in asked else Path(asked).absolute().as_uri()
        if stored not in (None, url):
            raise UserError(
                f"--artefacts {masked(asked)}: study {self.folder.name!r} keeps them at "
                f"{masked(stored)}; leave the option out"
            )
        Mirror(self.artefacts, url)  # refuses what it does not know
        self.study.set_user_attr("artefacts", url)

    @cached_property
    def mirror(self) -> Mirror | None:
        """Where artefacts are copied to, if the study has such a place."""
        url = self.study.user_attrs.get("artefacts")
        return None if url is None else Mirror(self.artefacts, url)

    def _write_head(
        self, config: StudyConfig, space: SearchSpace, environment: Mapping[str, Any]
    ) -> None:
        head = {
            "config": config.to_dict(),
            "space": space.to_dict(),
            "space_digest": space.digest,
            "space_size": space.size if space.size < 2**53 else float(space.size),
            "space_distinct": space.distinct(limit=COUNTED),
            "environment": dict(environment),
            "format": FORMAT,  # last: a study that was killed before this was not created
        }
        stored = self.study.user_attrs
        for key, value in head.items():
            if stored.get(key) != value:
                self.study.set_user_attr(key, value)
        with quiet_optuna():
            self.study.set_metric_names(list(config.objectives))
        written = {"storage": portable(self.address, self.folder), "config": config.to_dict()}
        text = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
        write_whole(self.folder / HEAD, text.encode())

    # -- What a study holds ---------------------------------------------------------------------

    @property
    def artefacts(self) -> Path:
        """Folder of weights, checkpoints and reconstructions, one per architecture digest."""
        return self.folder / "artefacts"

    @property
    def space_distinct(self) -> int | None:
        """Distinct architectures of a small space; None where they were not counted."""
        return self.study.user_attrs.get("space_distinct")

    @property
    def anchor_ms(self) -> float | None:
        """Latency of `original` that the study's latencies are told in; None if not measured."""
        try:
            environment = self.study.user_attrs.get("environment", {})
        except UserError:  # there is no study yet
            return None
        return environment.get("original_latency_ms")  # type: ignore[no-any-return]

    def require_alike(self, config: StudyConfig, space: SearchSpace, data: str | None) -> None:
        """Check that another study may learn from this one; raise `UserError` if not."""
        agreement.require_alike(self.study.user_attrs, self.folder.name, config, space, data)

    def record(self) -> StudyRecord:
        """Read the whole study."""
        with _collecting_no_garbage():
            return patiently(self._record, self.where)

    def _record(self) -> StudyRecord:
        attributes = self.study.user_attrs
        if attributes.get("format") != FORMAT:
            raise UserError(
                f"{masked(self.address)}: study {self.study.study_name!r} was not made by nas"
            )
        environment, final = attributes["environment"], _final(attributes)
        anchor_ms = environment.get("original_latency_ms")
        return StudyRecord(
            name=self.study.study_name,
            objectives=select_objectives(attributes["config"]["objectives"]),
            trials=tuple(
                _told_last(record_of(trial), final, anchor_ms)
                for trial in self._trials()
                if "candidate" in trial.user_attrs
            ),
            config=attributes["config"],
            environment=environment,
            folder=self.folder,
            space_size=attributes["space_size"],
            space_distinct=self.space_distinct,
            measured_together=bool(final),
            mixed=tuple(environment.get("mixed", ())),
        )

    def trial(self, number: int) -> TrialRecord:
        """Read one trial."""
        return patiently(lambda: self._trial_record(number), self.where)

    def _trial_record(self, number: int) -> TrialRecord:
        trial = record_of(self._frozen(number))
        if trial.state != "complete":
            return trial
        return _told_last(trial, self.final_latency(), self.anchor_ms)

    def final_latency(self) -> dict[str, FinalLatency]:
        """Return what the last measurement of front and references found, by digest."""
        return patiently(lambda: _final(self.study.user_attrs), self.where)

    def mark_mixed(self, differing: Sequence[str]) -> None:
        """Record that latencies were measured in an environment that differs so."""
        environment = self.study.user_attrs["environment"]
        mixed = list(dict.fromkeys([*environment.get("mixed", ()), *differing]))
        if mixed != environment.get("mixed"):
            self.study.set_user_attr("environment", {**environment, "mixed": mixed})

    def set_final_latency(self, found: Mapping[str, FinalLatency]) -> None:
        """Record what the last measurement of front and references found, by digest."""
        told = {digest: asdict(one) for digest, one in found.items()}
        patiently(lambda: self.study.set_user_attr("final_latency", told), self.where)


def list_studies(root: Path) -> list[str]:
    """Return the names of the studies in `root`, sorted."""
    return sorted(path.parent.name for path in root.glob(f"*/{HEAD}"))


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """Keep Python from looking for garbage again and again while a record grows in memory."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what was read is old at once, without being looked through
            gc.freeze()
            gc.unfreeze()
        if was:
            gc.enable()


def _final(attributes: Mapping[str, Any]) -> dict[str, FinalLatency]:
    return {
        digest: FinalLatency(
            over={name: (m, low, high) for name, (m, low, high) in one["over"].items()},
            contended=one["contended"],
        )
        for digest, one in attributes.get("final_latency", {}).items()
    }


def _told_last(
    trial: TrialRecord, final: Mapping[str, FinalLatency], anchor_ms: float | None
) -> TrialRecord:
    if trial.state != "complete" or trial.digest not in final or anchor_ms is None:
        return trial
    return trial.with_latency(final[trial.digest], anchor_ms)
