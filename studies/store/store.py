"""The persistent state of a study: an Optuna storage for the record, a folder for artefacts.

All tables and figures can be rebuilt from the two. A file with studies (a journal, SQLite) has one
driver at a time, ensured by a lock beside it. A study in a database may have several drivers: each
trial names its owner, and only the holder of the lock of `studies.storage.locks` begins a trial,
takes one over or ends one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from optuna.storages import BaseStorage

from nas.artefacts import CHECKPOINT, WEIGHTS, folder_or_refuse, write_or_refuse
from nas.floors import Floors
from nas.search.samplers import quiet_optuna
from search_spaces.errors import UserError, nearest
from search_spaces.space import SearchSpace
from search_spaces.visible import visible
from studies.record.names import HEAD, require_name, studies_in
from studies.record.records import FinalLatency, SeedRun, StudyRecord, TrialRecord
from studies.storage.addresses import file_of, masked, portable, shared, shown
from studies.storage.files import lock_of, only_driver
from studies.storage.journal import mend_journal
from studies.storage.locks import driver_lock
from studies.storage.mirror import Mirror, store_url
from studies.storage.opening import engine_options, open_storage, reason_of
from studies.storage.patience import retrying
from studies.store import agreement
from studies.store.attributes import CONFIRMED
from studies.store.dashboard import Shown, show
from studies.store.opened import OpenedStudy, address_of
from studies.store.others import Exclusive, NoOthers, OtherDrivers, Others
from studies.store.reading import (
    FORMAT,
    anchors_ms,
    final_latencies,
    further_runs,
    read_study,
    with_final_latencies,
    with_runs,
)
from studies.store.trials import Trials

if TYPE_CHECKING:  # reading a study needs no torch, which this imports
    from studies.config.study import StudyConfig

LARGEST_COUNTED_SPACE = 1000
"""Distinct architectures are counted in spaces up to this many assignments."""


class StudyStore:
    """A study, open for reading and, inside `writing()`, for running.

    Args:
        folder: Contains the journal (by default), `study.yaml`, artefacts and the report.
        storage: An Optuna URL, `journal:PATH`, `grpc://HOST:PORT`, or None for the journal in the
            folder.

    Attributes:
        trials: Reads and writes the study's trials one at a time.
    """

    def __init__(self, folder: Path, storage: str | None = None) -> None:
        self.folder = folder
        self._opened = OpenedStudy(folder, address_of(folder, storage))
        self.trials = Trials(self._opened)
        self._writes = False
        self._storage: BaseStorage | None = None  # open for writing

    @classmethod
    def open(cls, root: Path, name: str) -> StudyStore:
        """Open an existing study for reading.

        Args:
            root: Folder of all studies.
            name: The study's name; a path is refused.

        Raises:
            UserError: there is no such study; the message suggests the most similar name.
        """
        require_name(name)
        if not (root / name / HEAD).is_file():
            names = list_studies(root)
            have = f"there are {', '.join(names)}" if names else "there are none yet"
            raise UserError(f"no study {name!r} in {root}: {have}{nearest(name, names)}")
        return cls(root / name)

    @property
    def study(self) -> optuna.Study:
        """The Optuna study underneath; raises `UserError` if there is none yet."""
        return self._opened.study

    @property
    def address(self) -> str:
        """The absolute address of the storage, with its password."""
        return self._opened.address

    @property
    def where(self) -> str:
        """The address of the storage for messages, without its password."""
        return self._opened.where

    @property
    def others(self) -> Others:
        """The study's other drivers."""
        return self.trials.others

    # -- Beginning and ending a run -------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open the study for a run; a storage in a file is locked until the block ends.

        The storage is read first: if it is refused, nothing has been written.

        Raises:
            UserError: the storage is damaged or holds something else, the folder cannot be written,
                or another process holds the lock.
        """
        retrying(self._opened.look, self._opened.where)
        new = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        with self._alone():
            self._writes = True
            try:
                yield
            finally:
                self._writes, self._storage = False, None
                self._leave()
                if new and not (self.folder / HEAD).exists():
                    self._remove_unbegun(new)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Create the folder and hold the lock of a storage in a file, which is repaired."""
        path = file_of(self._opened.address)
        if self.artefacts.exists():  # before anything is written
            folder_or_refuse(self.artefacts)
        if path is None:  # before the folder is created
            self._storage = open_storage(self._opened.address)
        with ExitStack() as held:
            try:
                if path is None or path.parent == self.folder.absolute():
                    self.folder.mkdir(parents=True, exist_ok=True)
                if path is not None:
                    held.enter_context(only_driver(path))
            except OSError as error:
                raise UserError(
                    f"{error.filename or self.folder}: cannot be written ({error.strerror}); "
                    "choose another --root or --storage"
                ) from None
            folder_or_refuse(self.artefacts)
            # Again: another driver may have ended meanwhile.
            retrying(self._opened.look, self._opened.where)
            if path is not None and self._opened.address.startswith("journal:"):
                mend_journal(path)
            yield

    def _remove_unbegun(self, new: Sequence[Path]) -> None:
        """Remove the empty new folders, innermost first, of a study refused before it began."""
        path = file_of(self._opened.address)
        with suppress(OSError):  # something is in it
            self.artefacts.rmdir()
            if path is not None and path.parent == self.folder.absolute() and not path.exists():
                lock_of(path).unlink(missing_ok=True)
            for folder in new:
                folder.rmdir()

    def _leave(self) -> None:
        others, self.trials.others = self.others, NoOthers(self._opened.where)
        try:
            others.leave()
        except Exception as error:  # others notice the missing heartbeat
            missed = f"the end of this driver was not recorded ({reason_of(error)})"
            print(visible(f"{self._opened.where}: {missed}"), file=sys.stderr)

    def create(
        self,
        config: StudyConfig,
        space: SearchSpace,
        environment: Mapping[str, Any],
        mix: bool = False,
        artefacts: str | None = None,
    ) -> None:
        """Create the study, or check that the existing one has the same configuration.

        Where several drivers share the study, the recorded environment is that of the first, with
        its latency of `original`.

        Args:
            config: The study's configuration.
            space: The search space.
            environment: Description of environment and images.
            mix: Whether to accept, and record, that latencies are measured in another environment.
            artefacts: Address of a store that artefacts are copied to from now on.

        Raises:
            UserError: the stored study differs from this one; the message names the differences.
        """
        address, where = self._opened.address, self._opened.where
        address_of(self.folder, address)  # another driver may have created a study here meanwhile
        folder_or_refuse(self.artefacts)
        storage = self._storage or open_storage(address)
        lock = driver_lock(address, config.name, storage, engine_options())
        exclusively = Exclusive(lock, where)  # `OtherDrivers` needs the study
        exclusively(lambda: self._create(storage, config, space, environment, mix))
        exclusively(lambda: self._settle_mirror(artefacts))
        if shared(address) and self._writes:
            self.trials.others = OtherDrivers(storage, self._opened.study_id, where, lock)

    def _create(
        self,
        storage: BaseStorage,
        config: StudyConfig,
        space: SearchSpace,
        environment: Mapping[str, Any],
        mix: bool,
    ) -> None:
        if config.name not in {one.study_name for one in storage.get_all_studies()}:
            self._opened.require_new()
        study = self._opened.create(storage, config.name, config.objectives)
        stored = self._opened.attributes
        if "format" in stored:
            agreement.require_same_question(stored, config, space, environment, self.folder)
            self._require_intact()
        elif study.get_trials(deepcopy=False):
            raise UserError(
                f"{shown(self._opened.address)}: contains a study {config.name!r} that nas did "
                "not create; choose another --name or --storage"
            )
        before = stored.get("environment", environment)
        mixed = agreement.mixed_environments(before, config, environment, mix)
        kept = {**environment, **before} if shared(self._opened.address) else dict(environment)
        self._write_head(config, space, {**kept, **({"mixed": mixed} if mixed else {})})

    def _require_intact(self) -> None:
        """Refuse to continue a study with damaged trials, before anything is written."""
        if damaged := read_study(self._opened).damaged:
            raise UserError(
                f"{self._opened.where}: study {self.folder.name!r} cannot continue: {damaged[0]}; "
                "restore the storage from a copy, or give this run another --name"
            )

    def _settle_mirror(self, asked: str | None) -> None:
        stored = self._opened.attributes.get("artefacts")
        if asked is None:
            return
        if masked(asked) != asked:
            raise UserError(
                f"--artefacts {masked(asked)}: the address would be stored with its password; give "
                "it by the environment"
            )
        url = store_url(asked)
        if stored not in (None, url):
            raise UserError(
                f"--artefacts {masked(asked)}: study {self.folder.name!r} copies its artefacts to "
                f"{masked(stored)}; leave the option out"
            )
        Mirror(self.artefacts, url)  # refuses an unknown kind of address
        self.study.set_user_attr("artefacts", url)

    def _write_head(
        self, config: StudyConfig, space: SearchSpace, environment: Mapping[str, Any]
    ) -> None:
        head = {
            "config": config.to_dict(),
            "space": space.to_dict(),
            "space_digest": space.digest,
            "space_size": space.size if space.size < 2**53 else float(space.size),
            "space_distinct": space.distinct(limit=LARGEST_COUNTED_SPACE),
            "environment": dict(environment),
            **({"own": config.describe_own()} if config.own_parts else {}),
            "format": FORMAT,  # last: without it a study counts as not created
        }
        stored = self._opened.attributes
        for key, value in head.items():
            if stored.get(key) != value:
                self.study.set_user_attr(key, value)
        with quiet_optuna():
            self.study.set_metric_names(list(config.objectives))
        written = {
            "storage": portable(self._opened.address, self.folder),
            "config": config.to_dict(),
            **({"space": space.to_dict()} if config.space_in_file else {}),
        }
        write_head(self.folder, written)

    # -- Reading and recording ------------------------------------------------------------------

    @property
    def artefacts(self) -> Path:
        """Folder of weights, checkpoints and reconstructions, one per architecture digest."""
        return self._opened.artefacts

    @property
    def confirmed(self) -> Path:
        """Folder of the further trainings: one folder per seed, in it one per architecture."""
        return self.folder / "confirmed"

    @property
    def mirror(self) -> Mirror | None:
        """The store that artefacts are copied to; None if the study has none."""
        return self._opened.mirror

    def fetch(self, name: str = "", only: tuple[str, ...] | None = None) -> None:
        """Copy artefacts of other drivers into the study's folder.

        Args:
            name: Digest of the architecture; empty for all.
            only: Names of the files to copy; None for all.

        Raises:
            UserError: the store of artefacts cannot be read.
        """
        if self.mirror is not None:
            self.mirror.pull(name, only)

    def remove_checkpoint(self, digest: str) -> None:
        """Remove the checkpoint of a trial whose end is recorded, also from the artefact store."""
        (self.artefacts / digest / CHECKPOINT).unlink(missing_ok=True)
        if self.mirror is not None:
            self.mirror.push(digest)

    def remove_leftovers(self) -> None:
        """Remove the checkpoints of ended trials, whose driver died before it removed them."""
        left = {path.parent.name for path in self.artefacts.glob(f"*/{CHECKPOINT}")}
        for digest in left & self.trials.ended() if left else ():
            self.remove_checkpoint(digest)

    @property
    def space_distinct(self) -> int | None:
        """Distinct architectures of a small space; None where they were not counted."""
        return self._opened.attributes.get("space_distinct")

    @property
    def anchors_ms(self) -> dict[str, float]:
        """Latency of `original` by set-up, by which ratios are multiplied to get ms."""
        try:
            return anchors_ms(self._opened.attributes.get("environment", {}))
        except UserError:  # there is no study yet
            return {}

    @property
    def limits(self) -> Mapping[str, float] | None:
        """The hard limits of the study's last run, by objective; None before its first run."""
        try:
            config = self._opened.attributes.get("config")
        except UserError:  # there is no study yet
            return None
        return None if config is None else config.get("limits") or {}

    def require_comparable(self, config: StudyConfig, space: SearchSpace, data: str | None) -> None:
        """Check that another study may learn from this one; raise `UserError` otherwise."""
        agreement.require_comparable(self._opened.attributes, self.folder.name, config, space, data)

    def record(self) -> StudyRecord:
        """Read the whole study."""
        return retrying(lambda: read_study(self._opened), self._opened.where)

    def trial(self, number: int) -> TrialRecord:
        """Read one trial."""
        trial = self.trials.record(number)
        if trial.state != "complete":
            return trial
        return retrying(lambda: self._as_known_last(trial), self._opened.where)

    def _as_known_last(self, trial: TrialRecord) -> TrialRecord:
        anchors = self.anchors_ms
        final = {name: self.final_latency(name) for name in anchors}
        trial = with_final_latencies(trial, final, anchors)
        return with_runs(trial, further_runs(self._opened.attributes))

    def final_latency(self, setup: str = "") -> dict[str, FinalLatency]:
        """Return the latencies of the last measurement of front and references, by digest."""
        return retrying(lambda: final_latencies(self._opened.attributes, setup), self._opened.where)

    @property
    def floors_source(self) -> Mapping[str, Any] | None:
        """What the recorded floors were computed from; None if there are none."""
        stored = self._opened.attributes.get("floors")
        return None if stored is None else stored["source"]

    def set_floors(self, source: Mapping[str, Any], floors: Floors) -> None:
        """Record the floors, and what they were computed from."""
        stored = {"source": dict(source), **floors.to_dict()}
        where = self._opened.where
        retrying(lambda: self.study.set_user_attr("floors", stored), where)

    def mark_mixed(self, differing: Sequence[str]) -> None:
        """Record that latencies were measured in an environment with these differences."""
        environment = self._opened.attributes["environment"]
        mixed = list(dict.fromkeys([*environment.get("mixed", ()), *differing]))
        if mixed != environment.get("mixed"):
            self.study.set_user_attr("environment", {**environment, "mixed": mixed})

    def set_final_latency(self, found: Mapping[str, FinalLatency], setup: str = "") -> None:
        """Record the latencies of the last measurement of front and references, by digest."""
        where, before = self._opened.where, self._opened.attributes.get("final_latency", {})
        others = {key: one for key, one in before.items() if key.partition(":")[2] != setup}
        end = f":{setup}" if setup else ""
        stored = {**others, **{f"{digest}{end}": asdict(one) for digest, one in found.items()}}
        retrying(lambda: self.study.set_user_attr("final_latency", stored), where)

    def add_run(self, digest: str, run: SeedRun) -> None:
        """Record a further training of an architecture; one write stores it whole."""
        key, stored = f"{CONFIRMED}{digest}:{run.seed}", asdict(run)
        retrying(lambda: self.study.set_user_attr(key, stored), self._opened.where)

    def confirmed_weights(self, digest: str, seed: int) -> Path:
        """Return the path of the weights of a further training."""
        return self.confirmed / str(seed) / digest / WEIGHTS

    def show_in_dashboard(self, everything: Sequence[Shown]) -> None:
        """Record notes and pictures for optuna-dashboard."""
        retrying(lambda: show(self._opened, everything), self._opened.where)

    def push_confirmed(self, digest: str, seed: int) -> None:
        """Copy the files of a further training to the store of artefacts, if there is one."""
        if mirror := self._confirmed_mirror:
            mirror.push(f"{seed}/{digest}")

    def fetch_confirmed(self, digest: str, seed: int) -> None:
        """Copy the files of a further training, which another driver did, to this folder."""
        if mirror := self._confirmed_mirror:
            mirror.pull(f"{seed}/{digest}")

    @property
    def _confirmed_mirror(self) -> Mirror | None:
        """The copy of `confirmed`: it stands beside that of the artefacts."""
        mirror = self.mirror
        return None if mirror is None else Mirror(self.confirmed, f"{mirror.url}-confirmed")


def write_head(folder: Path, written: Mapping[str, Any]) -> None:
    """Write the file of a study's folder that names its storage and its configuration."""
    text = yaml.safe_dump(dict(written), sort_keys=False, allow_unicode=True)
    write_or_refuse(folder / HEAD, text.encode())


def list_studies(root: Path) -> list[str]:
    """Return the names of the studies in `root`, sorted."""
    return studies_in(root)
