"""Delete and rename whole studies: their folders and their entries in the storage.

Neither is done while a driver runs the study. A study of which the first step succeeded and the
second one failed is put back, so that it is changed as a whole or not at all; only a process that
is killed in between leaves one of the two undone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from nas.search.samplers import quiet_optuna
from profiling.files import behind_links, write_whole
from search_spaces.errors import UserError
from search_spaces.yaml_file import read_yaml
from studies.record.names import HEAD, require_name
from studies.storage.addresses import absolute, file_of, shared, shown
from studies.storage.files import only_driver
from studies.storage.locks import driver_lock
from studies.storage.opening import engine_options, open_storage
from studies.store.drivers import running_drivers
from studies.store.opened import NoStudyError
from studies.store.store import StudyStore, write_head


def delete_study(root: Path, name: str) -> None:
    """Delete a study: its folder, and its entry in a storage outside the folder.

    Copies in an artefact store are not deleted.

    Raises:
        UserError: there is no such study, it is being run, or it cannot be deleted as a whole.
    """
    store = StudyStore.open(root, name)
    folder = _own_folder(store)
    with _at_rest(store) as storage:
        trash = folder.with_name(f".{name}.deleted-{os.getpid()}")
        _move(folder, trash)
        try:
            if storage is not None and not _inside(store):
                _delete_entry(storage, name)
        except BaseException:
            trash.rename(folder)
            raise
    try:
        shutil.rmtree(trash)
    except OSError as error:
        raise UserError(
            f"{trash}: study {name!r} is deleted, but this rest of its folder cannot be removed "
            f"({error.strerror}); remove it by hand"
        ) from None


def rename_study(root: Path, old: str, new: str) -> None:
    """Rename a study: its folder, and its entry in the storage.

    Raises:
        UserError: there is no such study, the new name is taken or none, it is being run, or its
            storage cannot rename studies.
    """
    require_name(new)
    store = StudyStore.open(root, old)
    folder, there = _own_folder(store), root / new
    if os.path.lexists(there):
        raise UserError(f"{there}: exists already; give another name")
    with _at_rest(store) as storage:
        if storage is None:
            raise UserError(f"{store.where}: contains no study {old!r}, which could be renamed")
        if _inside(store) and store.address != absolute(None, folder):
            raise UserError(f"{store.where}: would move with the folder, and be lost")
        if new in {one.study_name for one in storage.get_all_studies()}:
            raise UserError(f"{store.where}: contains a study {new!r} already; give another name")
        _rename_entry(store.address, old, new)
        try:
            _move(folder, there)
        except BaseException:
            _rename_entry(store.address, new, old)
            raise
        _name_in_configuration(root, new)


def _name_in_configuration(root: Path, name: str) -> None:
    head = read_yaml(root / name / HEAD)
    if isinstance(config := head.get("config"), dict):
        write_head(root / name, {**head, "config": {**config, "name": name}})
    study = StudyStore.open(root, name).study
    if isinstance(config := study.user_attrs.get("config"), dict):
        study.set_user_attr("config", {**config, "name": name})


def _own_folder(store: StudyStore) -> Path:
    """Return the folder of a study; refuse one that is only a link to it."""
    if store.folder.is_symlink():
        raise UserError(
            f"{store.folder}: is a link to {store.folder.resolve()}; give --root the folder that "
            "this one is in"
        )
    return store.folder


def _inside(store: StudyStore) -> bool:
    """Return whether the storage is a file in the study's folder."""
    path = file_of(store.address)
    return path is not None and path.resolve().is_relative_to(store.folder.resolve())


@contextmanager
def _at_rest(store: StudyStore) -> Iterator[BaseStorage | None]:
    """Hold a study so that no driver runs it meanwhile, and yield its storage.

    Yields None where the storage has no such study.

    Raises:
        UserError: a driver runs it, its storage cannot be read, or a storage in its folder has
            other studies too.
    """
    path, known = file_of(store.address), False
    with suppress(NoStudyError):
        known = bool(path is None or path.exists()) and bool(store.study)
    if path is not None and not path.exists():
        yield None
    elif path is not None:
        with only_driver(path):
            storage = open_storage(store.address)
            _require_alone(store, storage)
            yield storage if known else None
    else:
        storage = open_storage(store.address)
        with driver_lock(store.address, store.folder.name, storage, engine_options())():
            if known:
                _require_no_driver(store, storage)
            yield storage if known else None


def _require_alone(store: StudyStore, storage: BaseStorage) -> None:
    others = {one.study_name for one in storage.get_all_studies()} - {store.folder.name}
    if others and _inside(store):
        raise UserError(
            f"{store.where}: holds other studies too ({', '.join(sorted(others)[:5])}), and would "
            f"move with the folder of {store.folder.name!r}; delete these first"
        )


def _require_no_driver(store: StudyStore, storage: BaseStorage) -> None:
    study_id = storage.get_study_id_from_name(store.folder.name)
    for driver in running_drivers(storage, study_id):
        raise UserError(
            f"{store.where}: study {store.folder.name!r} is being run by process {driver.pid} on "
            f"{driver.host}; wait for it, or stop it"
        )


def _move(folder: Path, there: Path) -> None:
    try:
        folder.rename(there)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be moved to {there.name} ({error.strerror}); nothing was changed"
        ) from None


def _delete_entry(storage: BaseStorage, name: str) -> None:
    with quiet_optuna():
        optuna.delete_study(study_name=name, storage=storage)


def _rename_entry(address: str, old: str, new: str) -> None:
    path = file_of(address)
    if path is not None and address.startswith("journal:"):
        _rename_in_journal(behind_links(path), old, new)
    elif address.startswith("grpc:"):
        raise UserError(
            f"{shown(address)}: a proxy cannot rename studies; do it where the database is"
        )
    else:
        _rename_in_database(address, old, new)


def _rename_in_journal(path: Path, old: str, new: str) -> None:
    """Write the new name into the lines that create the study: each of its runs has added one.

    Raises:
        UserError: the journal has had a study of the new name, which the lines could be confused
            with.
    """
    lines, found = path.read_bytes().splitlines(keepends=True), list[int]()
    for number, line in enumerate(lines):
        name = json.loads(line).get("study_name") if b'"study_name":' in line else None
        if name == new:
            raise UserError(f"{path}: has had a study {new!r} before; give another name")
        if name == old:
            found.append(number)
    for number in found:
        renamed = {**json.loads(lines[number]), "study_name": new}
        lines[number] = f"{json.dumps(renamed, separators=(',', ':'))}\n".encode()
    write_whole(path, b"".join(lines))


def _rename_in_database(address: str, old: str, new: str) -> None:
    from optuna.storages._rdb.models import StudyModel
    from sqlalchemy import create_engine, update

    engine = create_engine(address, **(engine_options() if shared(address) else {}))
    try:
        with engine.begin() as connection:
            named = update(StudyModel).where(StudyModel.study_name == old)
            connection.execute(named.values(study_name=new))
    finally:
        engine.dispose()
