"""The files that an evaluation writes: their names, and the error if one cannot be written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiling import files
from search_spaces.errors import UserError

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
"""The state of an unfinished training, and the weights of its best epoch."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def write_or_refuse(path: Path, content: bytes) -> None:
    """Write a file as `profiling.files.write_whole` does, with an error for the user if it fails.

    Raises:
        UserError: the file cannot be written; an earlier file of that name is unchanged.
    """
    try:
        files.write_whole(path, content)
    except OSError as error:
        raise _refusal(path, error) from None


@contextmanager
def full_disk_refused(where: Path) -> Iterator[None]:
    """Raise `UserError` with the remedy if the body fails on a full or read-only disk.

    Args:
        where: The path to name if the error names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _refusal(Path(error.filename or where), error) from None


def _refusal(path: Path, error: OSError) -> UserError:
    remedy = "; make room and run the same command again: nothing finished is lost"
    return UserError(
        f"{path}: cannot be written ({error.strerror}){remedy if error.errno in _FULL else ''}"
    )
