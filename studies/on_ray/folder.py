"""The folder of a Tune run, through which the files of Ray workers reach the driver."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.tune.experiment import Trial

from studies.store.others import Others

_PREFIX = "tune-"

_REMOVALS = 5
"""Number of attempts to remove a folder."""


class TuneFolder:
    """The folder of one run, below a folder or URI that every node can reach.

    Nothing in it is needed after the run. Its name is unique, so that a run that ends late does not
    remove the folder of the next run.

    Args:
        storage: The folder or URI that contains it.
    """

    def __init__(self, storage: str) -> None:
        self.storage, self.name = storage, f"{_PREFIX}{uuid.uuid4().hex[:8]}"

    def take(self, others: Others) -> None:
        """Name the folder after this driver, if it has a name; remove folders of ended drivers."""
        if others.me:
            self.name = f"{_PREFIX}{others.me}"
        alive = others.alive()
        for name in _folders_in(self.storage):
            if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in alive:
                _remove(f"{self.storage}/{name}")

    def remove(self) -> None:
        """Remove the folder, if it exists."""
        _remove(f"{self.storage}/{self.name}")

    def hand_over(self, checkpoint: Path) -> str:
        """Copy a checkpoint, `<digest>/<name>`, into the folder; return its path or URI there."""
        target = f"{self.storage}/{self.name}/resumed/{checkpoint.parent.name}"
        filesystem, inner = pyarrow.fs.FileSystem.from_uri(target)
        filesystem.create_dir(inner)
        pyarrow.fs.copy_files(
            str(checkpoint),
            f"{inner}/{checkpoint.name}",
            source_filesystem=pyarrow.fs.LocalFileSystem(),
            destination_filesystem=filesystem,
        )
        return target


def remove_trial(trial: Trial) -> None:
    """Remove the files of a Tune trial, in the storage and on the driver's host."""
    storage = trial.storage
    if storage is not None:
        _remove(storage.trial_fs_path, storage.storage_filesystem)
        staging = Path(storage.trial_driver_staging_path)
        shutil.rmtree(staging, ignore_errors=True)
        # If the worker dies now, before its next trial, Tune writes the error into this folder.
        staging.mkdir(parents=True, exist_ok=True)


def _folders_in(path: str) -> list[str]:
    filesystem, inner = pyarrow.fs.FileSystem.from_uri(path)
    found = filesystem.get_file_info(pyarrow.fs.FileSelector(inner, allow_not_found=True))
    return [info.base_name for info in found if info.type == pyarrow.fs.FileType.Directory]


def _remove(path: str, filesystem: Any = None) -> None:
    for _ in range(_REMOVALS):
        try:
            if filesystem is None:
                filesystem, path = pyarrow.fs.FileSystem.from_uri(path)
            filesystem.delete_dir(path)
        except FileNotFoundError:
            return
        except OSError:  # an ending worker may still write there; files that stay do no harm
            time.sleep(0.2)
        else:
            return
