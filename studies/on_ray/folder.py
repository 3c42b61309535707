"""Where Ray workers put what they write, for the driver to fetch: Tune's folder in the storage."""

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
"""Times that removing a folder is tried."""


class TuneFolder:
    """One run's folder, below a folder or URI that every node can reach.

    Nothing in it is needed after the run. Its name is the run's alone, so that one that ends late
    does not remove that of the next.

    Args:
        storage: The folder or URI that it is in.
    """

    def __init__(self, storage: str) -> None:
        self.storage, self.name = storage, f"{_PREFIX}{uuid.uuid4().hex[:8]}"

    def take(self, others: Others) -> None:
        """Name it after the driver, if that has a name; remove those of drivers that are gone."""
        if others.me:
            self.name = f"{_PREFIX}{others.me}"
        alive = others.alive()
        for name in _folders_in(self.storage):
            if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in alive:
                _remove(f"{self.storage}/{name}")

    def remove(self) -> None:
        """Remove it, if it is there."""
        _remove(f"{self.storage}/{self.name}")

    def hand_over(self, checkpoint: Path) -> str:
        """Copy a checkpoint, `<digest>/<name>`, to where workers find it; return its folder."""
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
    """Remove what a Tune trial has left, there and here."""
    storage = trial.storage
    if storage is not None:
        _remove(storage.trial_fs_path, storage.storage_filesystem)
        staging = Path(storage.trial_driver_staging_path)
        shutil.rmtree(staging, ignore_errors=True)
        # If the worker dies now, before it is given something else, Tune writes its error there.
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
        except OSError:  # a worker that is just ending still writes there; else no harm is left
            time.sleep(0.2)
        else:
            return
