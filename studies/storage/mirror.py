"""Artefacts beyond the study's folder: copied to a store that every driver and reader reaches.

The folder stays what evaluations write and reports read. A store is anything fsspec knows: a folder
(`file:///mnt/share/x`), S3 and what speaks it (`s3://bucket/x`), and others by their own packages.
Its credentials come from where its package looks for them, never from the address.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs

from profiling.files import replacing
from search_spaces.errors import UserError
from studies.storage.addresses import masked


class Mirror:
    """A store beside a study's folder of artefacts.

    Args:
        folder: The folder; below it, one folder for each architecture.
        url: The store's address.

    Raises:
        UserError: fsspec does not know such a store, or its package is missing.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self.url = folder, url
        try:
            found = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"--artefacts {masked(url)}: {masked(str(error))}") from None
        self._store: fsspec.AbstractFileSystem = found[0]
        self._root: str = found[1].rstrip("/")
        self._pushed: dict[Path, tuple[int, int]] = {}

    def push(self, name: str) -> None:
        """Copy what is new in one architecture's folder, or one file; drop what is gone there.

        What cannot be copied now is said, and copied at the next push.
        """
        try:
            here = self._files(name)
            for path in here:
                self._push(path)
            kept = {self._there(path) for path in here}
            for there in self._stored(name):
                if there not in kept:
                    self._store.rm_file(there)
        except OSError as error:
            print(f"{masked(self.url)}: {name} was not copied ({error})", file=sys.stderr)

    def pull(self, name: str = "", only: str | None = None) -> None:
        """Copy what is not here: all below a name, or the files called `only`."""
        try:
            for path in self._stored(name):
                local = self._folder / path.removeprefix(self._root).lstrip("/")
                if local.exists() or only not in (None, local.name):
                    continue
                self._pull(path, local)
        except OSError as error:
            raise UserError(f"{masked(self.url)}: cannot be read ({error})") from None

    def _push(self, path: Path) -> None:
        status = path.stat()
        version = status.st_mtime_ns, status.st_size
        if self._pushed.get(path) == version:
            return
        there = self._there(path)
        self._store.makedirs(there.rpartition("/")[0], exist_ok=True)
        self._store.put_file(str(path), there)
        self._pushed[path] = version

    def _pull(self, path: str, local: Path) -> None:
        if not local.resolve().is_relative_to(self._folder.resolve()):
            return  # a store's names are not to be trusted with where files go
        local.parent.mkdir(parents=True, exist_ok=True)
        with replacing(local) as partial:
            self._store.get_file(path, str(partial))

    def _files(self, name: str) -> list[Path]:
        top = self._folder / name
        found = [top] if top.is_file() else sorted(top.rglob("*"))
        return [path for path in found if path.is_file() and not path.name.startswith(".")]

    def _stored(self, name: str) -> list[str]:
        self._store.invalidate_cache()
        top = f"{self._root}/{name}".rstrip("/")
        found: list[str] = self._store.find(top) if self._store.exists(top) else []
        return found

    def _there(self, path: Path) -> str:
        return f"{self._root}/{path.relative_to(self._folder).as_posix()}"
