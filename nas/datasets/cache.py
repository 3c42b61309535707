"""A disk cache of images that is safe under interruption and concurrent use.

A finished entry is a pair of `.npy` files that readers memory-map. An unfinished entry is the same
pair under other names, with one flag per row that marks finished rows, so an interrupted build is
resumed. A lock per entry lets one process build while others wait, and an entry becomes visible
only by a rename, which is atomic.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from profiling.locks import lock
from profiling.progress import Progress
from search_spaces.errors import UserError

Images = NDArray[np.uint8]
Labels = NDArray[np.bool_]
Fill = Callable[[int, int], tuple[Images, Labels]]
"""Returns rows `start` to `stop`: images uint8 `(n, 3, size, size)`, labels bool `(n, labels)`."""


def cache_directory() -> Path:
    """Return the folder of all caches: `$NAS_CACHE_DIR`, or the platform's user cache folder.

    Raises:
        UserError: it is in the user's home folder, and the user has none.
    """
    from platformdirs import user_cache_dir

    override = os.environ.get("NAS_CACHE_DIR")
    try:
        return Path(override).expanduser() if override else Path(user_cache_dir("vae-nas"))
    except RuntimeError:  # an account without a home folder, as containers and clusters have them
        raise UserError(
            "NAS_CACHE_DIR: this user has no home folder for the cache; set NAS_CACHE_DIR to a "
            "folder that can be written"
        ) from None


@dataclass(frozen=True)
class Entry:
    """One cached set of images, in which a row does not depend on the number of rows.

    Attributes:
        stem: Stem of the file names; it must identify everything that a row depends on.
        size: Width and height of the images in pixels.
        labels: Number of boolean labels per image.
    """

    stem: str
    size: int
    labels: int

    def load(
        self,
        count: int,
        fill: Fill,
        *,
        threads: int,
        chunk: int,
        progress: Progress | None = None,
    ) -> tuple[Images, Labels]:
        """Return the first `count` images and labels, memory-mapped; build missing rows first.

        `fill` is called from `threads` threads for runs of at most `chunk` rows.

        Raises:
            UserError: the cache folder cannot be written or has too little space.
        """
        if (found := self._open(count)) is not None:
            return found
        with self._locked():
            if (found := self._open(count)) is None:
                self._build(count, fill, threads, chunk, progress)
                found = self._open(count)
        assert found is not None
        return found

    def companion(self, suffix: str) -> Path:
        """Return the path of a small file next to this entry."""
        return self._folder / f"{self.stem}.{suffix}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self.companion("lock").open("a")
        except OSError as error:
            raise UserError(
                f"{self._folder}: cannot be written ({error.strerror or error}); set NAS_CACHE_DIR "
                "to a writable folder"
            ) from error
        with file:
            lock(file)
            yield

    @property
    def _folder(self) -> Path:
        return cache_directory() / "datasets"

    def _file(self, count: int, part: str) -> Path:
        return self._folder / f"{self.stem}-{count}.{part}.npy"

    def _finished(self) -> list[int]:
        """Return the row counts of the finished entries, smallest first."""
        pattern = re.compile(re.escape(self.stem) + r"-(\d+)\.images\.npy")
        if not self._folder.is_dir():
            return []
        matches = (pattern.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _open(self, count: int) -> tuple[Images, Labels] | None:
        enough = [finished for finished in self._finished() if finished >= count]
        if not enough:
            return None
        images = np.load(self._file(enough[0], "images"), mmap_mode="r")
        labels = np.load(self._file(enough[0], "labels"), mmap_mode="r")
        return images[:count], labels[:count]

    def _build(
        self, count: int, fill: Fill, threads: int, chunk: int, progress: Progress | None
    ) -> None:
        self._require_space(count)
        images, labels, done = self._partial(count)
        if (smaller := self._finished()) and not done.any():
            self._copy(smaller[-1], images, labels, done)
        runs = list(_missing(done, chunk))
        pool = ThreadPoolExecutor(max_workers=max(1, min(threads, len(runs))))
        try:
            pending = {pool.submit(fill, start, stop): slice(start, stop) for start, stop in runs}
            for future in as_completed(pending):
                rows = pending.pop(future)
                images[rows], labels[rows] = future.result()
                done[rows] = True
                if progress is not None:
                    progress(int(done.sum()), count)
        finally:
            pool.shutdown(cancel_futures=True)
        del images, labels, done
        # Readers look for the images file, so it is renamed last.
        for part in ("labels", "images"):
            self._file(count, f"unfinished-{part}").replace(self._file(count, part))
        self._file(count, "unfinished-done").unlink()

    def _partial(self, count: int) -> tuple[Images, Labels, Labels]:
        """Open the unfinished files, or create new ones if they are missing or damaged."""
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "images": ((count, 3, self.size, self.size), np.uint8),
            "labels": ((count, self.labels), np.bool_),
            "done": ((count,), np.bool_),
        }
        paths = {part: self._file(count, f"unfinished-{part}") for part in shapes}
        try:
            arrays = {part: open_memmap(path, mode="r+") for part, path in paths.items()}
        except (OSError, ValueError):
            arrays = {
                part: open_memmap(paths[part], mode="w+", shape=shape, dtype=dtype)
                for part, (shape, dtype) in shapes.items()
            }
        return arrays["images"], arrays["labels"], arrays["done"]

    def _require_space(self, count: int) -> None:
        """Check the free space first: a full disk would kill the process without a message."""
        needed = count * (3 * self.size**2 + self.labels + 1)
        present = self._file(count, "unfinished-images")
        if present.is_file():
            needed -= 512 * getattr(present.stat(), "st_blocks", 0)
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"{self._folder}: {count} images need {needed / 1e9:.1f} GB, but only "
                f"{free / 1e9:.1f} GB are free; use fewer or smaller images, or set NAS_CACHE_DIR "
                "to a larger disk"
            )

    def _copy(self, finished: int, images: Images, labels: Labels, done: Labels) -> None:
        """Copy the rows of a smaller finished entry."""
        known = self._open(finished)
        assert known is not None
        images[:finished], labels[:finished] = known
        done[:finished] = True


def _missing(done: Labels, chunk: int) -> Iterator[tuple[int, int]]:
    """Yield runs of rows that are not done, each at most `chunk` rows long."""
    start: int | None = None
    for row, finished in enumerate([*done.tolist(), True]):
        if start is not None and (finished or row - start == chunk):
            yield start, row
            start = None
        if start is None and not finished:
            start = row
