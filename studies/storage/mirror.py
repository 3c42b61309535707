"""Copy artefacts to a store that every driver and reader can reach.

Evaluations still write the study's folder, and reports read it. A store is any file system of
fsspec: a folder (`file:///mnt/share/x`), S3 and compatible servers (`s3://bucket/x`), and others
through their own packages. Its package finds the credentials; they are never in the address.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from profiling.files import replacing
from search_spaces.errors import UserError
from search_spaces.visible import visible
from studies.storage.addresses import masked


def store_url(asked: str) -> str:
    """Return the address of a store of artefacts from an option: an address, or a folder.

    Raises:
        UserError: it is neither, or `Mirror` refuses it.
    """
    kind, separator, place = asked.partition("://")
    if separator and not (kind.isascii() and kind.replace("+", "").isalnum() and place.strip("/")):
        raise UserError(
            f"--artefacts {masked(asked)}: names no place; give a folder or KIND://PLACE"
        )
    url = asked if separator else Path(asked).absolute().as_uri()
    try:
        Mirror(Path(), url)
        if not separator:
            Path(asked).exists()  # raises for a name that is too long
    except OSError as error:
        raise UserError(f"--artefacts {masked(asked)}: {error.strerror or error}") from None
    return url


class Mirror:
    """A store that holds copies of a study's artefacts.

    Args:
        folder: The study's folder of artefacts, with one folder for each architecture.
        url: Address of the store.

    Raises:
        UserError: fsspec does not know this kind of store, or its package is missing.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self.url = folder, url
        try:
            found = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UserError(f"--artefacts {masked(url)}: {masked(str(error))}") from None
        self._store: fsspec.AbstractFileSystem = found[0]
        self._root: str = found[1].rstrip("/")
        local = isinstance(self._store, LocalFileSystem)
        if local and self._store.exists(self._root) and not self._store.isdir(self._root):
            raise UserError(f"--artefacts {masked(url)}: is a file; give the folder of the store")
        self._pushed: dict[Path, tuple[int, int]] = {}

    def push(self, name: str) -> None:
        """Copy new files of one architecture's folder, or one file, to the store.

        Files that were deleted in the folder are deleted in the store. A failure is printed, and
        the next push copies the files.
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
            text = f"{masked(self.url)}: {name} was not copied ({error})"
            print(visible(text), file=sys.stderr)

    def pull(self, name: str = "", only: tuple[str, ...] | None = None) -> None:
        """Copy missing files from the store: all below `name`, or only those with a name in `only`.

        Raises:
            UserError: the store cannot be read.
        """
        try:
            for path in self._stored(name):
                local = self._folder / path.removeprefix(self._root).lstrip("/")
                if local.exists() or (only is not None and local.name not in only):
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
            return  # a name in the store must not lead to a file outside the folder
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
