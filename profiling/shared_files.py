"""Files that processes of all users of a host lock, in one folder such as `/tmp/nas-lanes`.

A lock needs a file that can be read, so nobody can write these files. Folders and files get their
permissions before they get their names, whatever the umask. Another user's link, pipe or device of
such a name is neither followed nor waited for.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

_FOLDER_MODE, _FILE_MODE = 0o1777, 0o444
_CAREFULLY = ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC")  # not all on Windows
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in _CAREFULLY)


def make_shared_folder(folder: Path) -> None:
    """Make a folder in which every user can make files, but remove only their own.

    Raises:
        OSError: it cannot be made, or what has this name is no folder.
    """
    if not os.path.lexists(folder):
        partial = Path(tempfile.mkdtemp(prefix=".nas-", dir=folder.parent))
        partial.chmod(_FOLDER_MODE)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            partial.rmdir()
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise NotADirectoryError(0, "not a folder", str(folder))


def open_shared_file(path: Path) -> IO[bytes]:
    """Open an empty file that every user can lock, and make it if it does not exist.

    It is never opened for making: Linux refuses this for other users' files in such a folder
    (`fs.protected_regular`).

    Raises:
        OSError: it cannot be made or read, or it is no regular file.
    """
    if not os.path.lexists(path):
        _make(path)
    file = os.fdopen(os.open(path, _FLAGS), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "not a regular file", str(path))
    return file


def _make(path: Path) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".nas-", dir=path.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        if os.name == "posix":  # elsewhere the file could not be removed
            partial.chmod(_FILE_MODE)
        with suppress(FileExistsError):  # another process was faster
            path.hardlink_to(partial)
    finally:
        partial.unlink()
