"""A disk cache of images that is safe under interruption, loss of power and concurrent use.

A finished entry is a pair of `.npy` files that readers memory-map, and a seal: a file with their
checksums, which is written after the pair has reached the disk. A pair without a seal, or with
other checksums, is not used but built again. The checksums are compared once for each state of the
files (length, times, inode), since reading 20,000 images of 144 pixels takes a second.

An unfinished entry is the same pair under other names, with a checksum per finished row, so an
interrupted build is resumed. A lock per entry lets one process build while others wait.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.datasets.array_file import ArrayFile, digest
from nas.datasets.in_use import release_with, share
from profiling.files import write_whole
from profiling.locks import lock, open_lock
from profiling.progress import Progress
from search_spaces.errors import UserError
from search_spaces.sizes import Size, area, sides
from search_spaces.visible import visible

Images = NDArray[np.uint8]
Labels = NDArray[np.bool_]
Marks = NDArray[np.uint64]
"""A checksum for each finished row; 0 for others."""
Rows = tuple[Images, Labels]
"""uint8 `(n, channels, height, width)` and bool `(n, labels)`."""
Fill = Callable[[int, int], Rows]
"""Returns rows `start` to `stop`."""

_PARTS = ("labels", "images")  # readers look for the images file, so it is renamed last
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
        size: Size of the images in pixels.
        labels: Number of boolean labels per image.
        channels: Number of channels of the images.
    """

    stem: str
    size: Size
    labels: int
    channels: int = 3

    def load(
        self,
        count: int,
        fill: Fill,
        *,
        threads: int,
        chunk: int,
        progress: Progress | None = None,
    ) -> Rows:
        """Return the first `count` images and labels, memory-mapped; build missing rows first.

        `fill` is called from `threads` threads for runs of at most `chunk` rows. A damaged entry is
        built again; one line on standard error says so. The entry stays in the cache while the
        images or views of them exist.

        Raises:
            UserError: the cache folder cannot be written or has too little space.
        """
        with ExitStack() as stack:
            using = share(cache_directory(), self.stem)
            if using is not None:
                stack.enter_context(using)
            found = self._open(count) or self._made(count, fill, threads, chunk, progress)
            stack.pop_all()
        release_with(found[0], using)
        return found

    def _made(
        self, count: int, fill: Fill, threads: int, chunk: int, progress: Progress | None
    ) -> Rows:
        def fill_all(start: int, stop: int) -> Sequence[Rows]:
            return [fill(start, stop)]

        build_together([self], count, fill_all, threads=threads, chunk=chunk, progress=progress)
        if (found := self._open(count)) is None:
            raise UserError(
                f"{self._folder}: the images just written cannot be read back; check the disk, or "
                "set NAS_CACHE_DIR to another folder"
            )
        return found

    def holds(self, count: int) -> bool:
        """Return whether the first `count` images are cached."""
        return self._open(count) is not None

    def largest(self) -> Rows | None:
        """Return all finished rows, memory-mapped, without building any; None if there are none."""
        for finished in reversed(self._finished()):
            if (found := self._intact(finished)) is not None:
                return found
        return None

    def digest(self, images: Images) -> str:
        """Return the SHA-256 of loaded images, from the seal where it covers exactly these."""
        sealed = self._seal(len(images))
        return str(sealed["images"]) if sealed else digest(images)

    @contextmanager
    def _building(self, count: int) -> Iterator[bool]:
        """Lock the entry, so that nobody builds or removes it; yield whether it has to be built."""
        with share(cache_directory(), self.stem) or nullcontext(), self._locked():
            if missing := not self.holds(count):
                self._remove_damaged(count)
            yield missing

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = open_lock(self._folder / f"{self.stem}.lock")
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

    def _file(self, count: int, part: str) -> ArrayFile:
        kind = part.removeprefix("unfinished-")
        shape, dtype = {
            "images": ((count, self.channels, *sides(self.size)), np.uint8),
            "labels": ((count, self.labels), np.bool_),
            "done": ((count,), np.uint64),
        }[kind]
        return ArrayFile(self._folder / f"{self.stem}-{count}.{part}.npy", shape, dtype)

    def _seal_path(self, count: int) -> Path:
        return self._folder / f"{self.stem}-{count}.seal.json"

    def _finished(self) -> list[int]:
        """Return the row counts of the finished entries, smallest first."""
        pattern = re.compile(re.escape(self.stem) + r"-([1-9]\d{0,11})\.images\.npy")
        if not self._folder.is_dir():
            return []
        matches = (pattern.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _open(self, count: int) -> Rows | None:
        for finished in self._finished():
            if finished >= count and (found := self._intact(finished)) is not None:
                return found[0][:count], found[1][:count]
        return None

    def _intact(self, count: int) -> Rows | None:
        """Return a finished entry; None if it is missing or damaged."""
        files = [self._file(count, part) for part in _PARTS]
        labels, images = (file.open() for file in files)
        sealed = self._seal(count)
        if sealed is None or images is None or labels is None:
            return None
        try:
            state = [file.state() for file in files]
        except OSError:  # removed by another process
            return None
        if sealed.get("state") != state:
            if (sealed["labels"], sealed["images"]) != (digest(labels), digest(images)):
                return None
            with suppress(OSError):  # without it the next process compares the checksums again
                self._write_seal(count, {**sealed, "state": state})
        return images, labels

    def _write_seal(self, count: int, sealed: Mapping[str, object]) -> None:
        write_whole(self._seal_path(count), json.dumps(sealed).encode())

    def _seal(self, count: int) -> dict[str, Any] | None:
        """Return the content of an entry's seal; None if it is missing or damaged."""
        path = self._seal_path(count)
        try:
            read = json.loads(path.read_bytes()) if path.is_file() else None
        except (OSError, ValueError, RecursionError):
            return None
        right = isinstance(read, dict) and all(_is_digest(read.get(part)) for part in _PARTS)
        return read if right else None

    def _remove_damaged(self, count: int) -> None:
        """Remove finished files that `_open` did not accept, and print one line about them."""
        damaged = [finished for finished in self._finished() if finished >= count]
        if damaged:
            path = self._file(damaged[0], "images").path
            print(visible(f"{path}: damaged, or without checksum; made again"), file=sys.stderr)
        for finished in damaged:
            files = [self._file(finished, part).path for part in _PARTS]
            for path in (*files, self._seal_path(finished)):
                with suppress(OSError):
                    path.unlink()

    def _begun(self, count: int) -> tuple[Images, Labels, Marks]:
        """Open the unfinished files, with the rows that they or a smaller entry have."""
        images, labels, done = self._partial(count)
        if not done.any():
            self._copy(count, images, labels, done)
        return images, labels, done

    def _finish(self, count: int, images: Images, labels: Labels) -> None:
        """Flush the files, give them their names, then write the seal."""
        sealed = {"images": digest(images), "labels": digest(labels)}
        for part in _PARTS:
            unfinished = self._file(count, f"unfinished-{part}")
            unfinished.flush()
            unfinished.path.replace(self._file(count, part).path)
        state = [self._file(count, part).state() for part in _PARTS]
        self._write_seal(count, {**sealed, "state": state})
        self._file(count, "unfinished-done").path.unlink()

    def _partial(self, count: int) -> tuple[Images, Labels, Marks]:
        """Open the unfinished files, or create new ones if they are missing or damaged.

        A mark that does not fit its row is removed: a loss of power may have kept only the mark.
        """
        files = [self._file(count, f"unfinished-{part}") for part in (*_PARTS, "done")]
        labels, images, done = (file.open("r+") for file in files)
        if images is None or labels is None or done is None:
            self._require_space(count)
            labels, images, done = (file.create() for file in files)
        for start, stop in _missing(done == 0, 512):
            marks = _marks(images[start:stop], labels[start:stop])
            done[start:stop] = np.where(done[start:stop] == marks, marks, 0)
        return images, labels, done

    def _require_space(self, count: int) -> None:
        """Check the free space, since the file system may be unable to reserve it.

        Raises:
            OSError: there is too little.
        """
        if self._needed(count) > shutil.disk_usage(self._folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _needed(self, count: int) -> int:
        return count * (self.channels * area(self.size) + self.labels + 8)

    def _remove_unfinished(self, count: int) -> None:
        for part in (*_PARTS, "done"):
            with suppress(OSError):
                self._file(count, f"unfinished-{part}").path.unlink()

    def _copy(self, count: int, images: Images, labels: Labels, done: Marks) -> None:
        """Copy the rows of the largest smaller entry that is intact."""
        for finished in reversed([known for known in self._finished() if known < count]):
            if (known := self._intact(finished)) is not None:
                images[:finished], labels[:finished] = known
                done[:finished] = _marks(*known)
                return


@contextmanager
def _refusing_a_full_disk(entries: Sequence[Entry], count: int) -> Iterator[None]:
    """Turn errors of writing into errors for the user; a full disk keeps no unfinished file."""
    folder = cache_directory() / "datasets"
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            for entry in entries:
                entry._remove_unfinished(count)
        if error.errno not in _FULL or error.errno == errno.EFBIG:
            where, remedy = error.filename2 or error.filename, "remove it, or "
            raise UserError(
                f"{where or folder}: cannot be written ({error.strerror or error}); "
                f"{remedy if where else ''}set NAS_CACHE_DIR to another folder"
            ) from None
        needed, free = sum(one._needed(count) for one in entries), shutil.disk_usage(folder).free
        raise UserError(
            f"{folder}: {count} images need {needed / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB "
            "are free; use fewer or smaller images, or set NAS_CACHE_DIR to a larger disk"
        ) from None


def build_together(
    entries: Sequence[Entry],
    count: int,
    fill: Callable[[int, int], Sequence[Rows]],
    *,
    threads: int,
    chunk: int,
    progress: Progress | None = None,
) -> None:
    """Build the first `count` rows of several entries, where one of them lacks any.

    Args:
        entries: Entries whose rows are made from the same files.
        count: Number of rows.
        fill: Returns the rows `start` to `stop` of each entry. It is called from `threads` threads.
        threads: Number of threads.
        chunk: Largest number of rows of one call.
        progress: Called with (done, total) rows.

    Raises:
        UserError: the cache folder cannot be written or has too little space.
    """
    with ExitStack() as stack:
        by_stem = sorted(entries, key=lambda entry: entry.stem)  # one order: no deadlock
        building = {one.stem: stack.enter_context(one._building(count)) for one in by_stem}
        missing = [one for one in by_stem if building[one.stem]]
        stack.enter_context(_refusing_a_full_disk(missing, count))
        begun = {
            place: one._begun(count) for place, one in enumerate(entries) if building[one.stem]
        }
        if not begun:
            return
        finished = np.logical_and.reduce([done != 0 for *_, done in begun.values()])
        runs = list(_missing(finished, chunk))
        pool = ThreadPoolExecutor(max_workers=max(1, min(threads, len(runs))))
        try:
            pending = {pool.submit(fill, start, stop): slice(start, stop) for start, stop in runs}
            for future in as_completed(pending):
                rows, found = pending.pop(future), future.result()
                for place, (images, labels, done) in begun.items():
                    images[rows], labels[rows] = found[place]
                    done[rows] = _marks(images[rows], labels[rows])
                finished[rows] = True
                if progress is not None:
                    progress(int(finished.sum()), count)
        finally:
            pool.shutdown(cancel_futures=True)
        for place, (images, labels, _) in begun.items():
            entries[place]._finish(count, images, labels)


def _is_digest(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) is not None


def _marks(images: Images, labels: Labels) -> Marks:
    """Return for each row the CRC-32 of image and labels plus 1, which is never 0."""
    checks = [
        zlib.crc32(label.tobytes(), zlib.crc32(image.tobytes())) + 1
        for image, label in zip(images, labels, strict=True)
    ]
    return np.array(checks, np.uint64)


def _missing(done: Labels, chunk: int) -> Iterator[tuple[int, int]]:
    """Yield runs of rows that are not done, each at most `chunk` rows long."""
    start: int | None = None
    for row, finished in enumerate([*done.tolist(), True]):
        if start is not None and (finished or row - start == chunk):
            yield start, row
            start = None
        if start is None and not finished:
            start = row
