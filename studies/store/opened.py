"""A study in its Optuna storage, which is opened at the first access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from nas.objectives import declare, sign_of
from nas.search.samplers import quiet_optuna
from search_spaces.errors import UserError
from search_spaces.yaml_file import read_yaml
from studies.record.names import HEAD
from studies.storage.addresses import absolute, file_of, shown, without_password
from studies.storage.files import holds_studies
from studies.storage.mirror import Mirror
from studies.storage.opening import open_storage, reason_of
from studies.store.attributes import own_definitions, study_attributes


class NoStudyError(UserError):
    """The storage can be read, but it contains no study of this name."""


class OpenedStudy:
    """A study in its storage, and the folder of its artefacts.

    Args:
        folder: The study's folder; it has the study's name.
        address: The storage's address.

    Attributes:
        where: The address for messages, without its password.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self.where = shown(address)
        self._found: tuple[BaseStorage, optuna.Study] | None = None

    def create(self, storage: BaseStorage, name: str, objectives: Sequence[str]) -> optuna.Study:
        """Create the study in an open storage, or open the existing one, for writing."""
        kinds = {1: StudyDirection.MINIMIZE, -1: StudyDirection.MAXIMIZE}
        with quiet_optuna():
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                directions=[kinds[sign_of(objective)] for objective in objectives],
                sampler=RandomSampler(),
                load_if_exists=True,
            )
        self._found = storage, study
        return study

    @property
    def storage(self) -> BaseStorage:
        """The storage; raises `UserError` if the study is not there."""
        return self._open()[0]

    @property
    def study(self) -> optuna.Study:
        """The Optuna study; raises `UserError` if there is none yet."""
        with self._damage_refused():
            return self._open()[1]

    @cached_property
    def study_id(self) -> int:
        """The study's number in its storage."""
        storage, study = self._open()
        return storage.get_study_id_from_name(study.study_name)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The study's own user attributes, by name; raises `UserError` if one is damaged."""
        study = self.study
        with self._damage_refused():
            stored = study.user_attrs
        try:
            definitions = own_definitions(stored)
        except UserError as error:
            raise self._damage(str(error)) from None
        for definition in definitions:
            declare(definition)
        try:
            return study_attributes(stored)
        except UserError as error:
            raise self._damage(str(error)) from None

    def trials(self) -> list[FrozenTrial]:
        """Return all trials as stored; raises `UserError` if the storage cannot make sense of one.

        Their attributes are not validated yet: see `studies.store.frozen.record_of`.
        """
        study = self.study
        with self._damage_refused():
            return study.get_trials(deepcopy=False)

    @contextmanager
    def _damage_refused(self) -> Iterator[None]:
        """Turn errors of content, not those of a connection, into errors for the user."""
        try:
            yield
        except UserError:
            raise
        except (LookupError, ValueError, TypeError, RecursionError) as error:
            raise self._damage(f"damaged ({reason_of(error)})") from None

    def _damage(self, reason: str) -> UserError:
        where = f"{shown(self.address)}: study {self.folder.name!r}"
        return UserError(f"{where}: {reason}; restore the storage from a copy")

    @property
    def artefacts(self) -> Path:
        """Folder of weights, checkpoints and reconstructions, one per architecture digest."""
        return self.folder / "artefacts"

    @cached_property
    def mirror(self) -> Mirror | None:
        """The store that artefacts are copied to; None if the study has none."""
        url = self.attributes.get("artefacts")
        return None if url is None else Mirror(self.artefacts, url)

    def look(self) -> None:
        """Read the storage before anything is written, if it is a file.

        Raises:
            UserError: the file is damaged or holds something else, or the study has been lost from
                it: its folder shows that there was one.
        """
        path = file_of(self.address)
        if path is None:
            return
        if not path.parent.is_dir() and path.parent != self.folder.absolute():
            raise UserError(f"{path.parent}: is not a folder; create it, or give another --storage")
        try:
            if holds_studies(self.address):
                self._open()[0].get_all_studies()  # what was written since the last look
                return
        except NoStudyError:
            pass
        self.require_new()

    def require_new(self) -> None:
        """Refuse to create a study if the folder shows that one has been lost.

        Raises:
            UserError: the folder has the files of a study.
        """
        if (self.folder / HEAD).is_file() or any(self.artefacts.glob("*/")):
            raise UserError(
                f"{self.where}: contains no study {self.folder.name!r}, but {self.folder} has the "
                "files of one: restore the storage from a copy, or remove that folder to start anew"
            )

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
                raise NoStudyError(f"{shown(self.address)}: contains no study {name!r}") from None
            self._found = storage, study
        return self._found


def address_of(folder: Path, storage: str | None) -> str:
    """Return the address of a study's storage; an existing study keeps its storage.

    No password is written to a file: it comes with `storage`, or by PostgreSQL's own means.

    Args:
        folder: The study's folder.
        storage: The address that the user gave; None is the journal in the folder.

    Raises:
        UserError: the study is recorded in another storage, or its `study.yaml` is damaged.
    """
    known = _known_address(folder)
    try:
        asked = known if known and storage is None else absolute(storage, folder)
    except UserError as error:
        raise UserError(f"--{error}") from None
    if known and without_password(asked) != without_password(known):
        raise UserError(
            f"--storage {shown(asked)}: study {folder.name!r} is recorded in {shown(known)}; leave "
            "the option out, or give this one another --name"
        )
    return asked


def _known_address(folder: Path) -> str | None:
    head = folder / HEAD
    if not head.is_file():
        return None
    written = read_yaml(head)
    if not isinstance(written, dict) or not isinstance(written.get("storage"), str):
        raise UserError(
            f"{head}: damaged (it names no storage); restore it or remove {head.parent}"
        )
    try:
        return absolute(written["storage"], folder)
    except UserError as error:
        raise UserError(f"{head}: {error}") from None
