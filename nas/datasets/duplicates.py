"""Find pictures of validation and test that are also in another part, exactly or nearly.

Exact duplicates have equal pixels at the data set's size. Near duplicates have perceptual hashes
(pHash, 64 signs of a discrete cosine transform; Zauner 2010) that differ in at most
`NEAR` bits, upright or mirrored. On 1,870 photographs of faces all pairs at 4 bits show one
photograph, at 6 bits three of four.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.datasets.cache import Images, cache_directory
from nas.datasets.dataset import ImageDataset, ImageIndices
from profiling.files import write_whole
from profiling.resources import logical_cpus

NEAR = 4
"""Largest number of differing bits of near duplicates."""
_FLAT = 5.0  # standard deviation in levels: below it a perceptual hash says nothing
_CHECK = 32  # bytes of the checksum in a file
_BLOCK = 1 << 24  # pairs that are compared at a time

Hashes = NDArray[np.uint64]
"""`(images, 4)`: of pixels, perceptual, perceptual of the mirror image, 1 if these say little."""


@dataclass(frozen=True)
class Duplicates:
    """Pictures of validation and test that another part has too.

    A picture of the test part is compared with training and validation, one of the validation part
    with training.

    Attributes:
        exact: Row numbers of those with equal pixels, by part.
        near: Row numbers of the others that are nearly equal, by part.
    """

    exact: Mapping[str, ImageIndices]
    near: Mapping[str, ImageIndices]

    @property
    def words(self) -> str:
        """How many there are, or empty if there are none."""
        counts = {
            name: sum(len(rows) for rows in found.values())
            for name, found in (("exact", self.exact), ("near", self.near))
        }
        if not any(counts.values()):
            return ""
        listed = " and ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        by_part = ", ".join(
            f"{len(self.exact[part]) + len(self.near[part]):,} in {part}" for part in self.exact
        )
        return f"{listed} duplicates of images of another part ({by_part})"


def duplicates_in_words(dataset: ImageDataset) -> list[str]:
    """Say how many pictures of validation and test another part has too; nothing if none.

    Rendered images have no duplicates.
    """
    if not dataset.digest:
        return []
    hashes = hashes_of(dataset.images, dataset.digest)
    words = find_duplicates(hashes, dataset.train, dataset.validation, dataset.test).words
    return [f"{words}; data.duplicates=drop leaves them out"] if words else []


def find_duplicates(
    hashes: Hashes, train: ImageIndices, validation: ImageIndices, test: ImageIndices
) -> Duplicates:
    """Return the pictures of validation and test that another part has too."""
    parts = {"validation": (validation, train), "test": (test, np.r_[train, validation])}
    exact, near = {}, {}
    for part, (rows, others) in parts.items():
        equal = np.isin(hashes[rows, 0], hashes[others, 0])
        exact[part] = rows[equal]
        near[part] = rows[~equal & _nearly_in(hashes[rows], hashes[others])]
    return Duplicates(exact, near)


def _nearly_in(hashes: Hashes, others: Hashes) -> NDArray[np.bool_]:
    """Return for each of `hashes` whether one of `others` is near, upright or mirrored."""
    known = np.unique(others[others[:, 3] == 0, 1])
    found = np.zeros(len(hashes), np.bool_)
    step = max(1, _BLOCK // max(1, len(known)))
    for start in range(0, len(hashes), step):
        for column in (1, 2):
            block = hashes[start : start + step, column, None]
            differing = np.bitwise_count(block ^ known[None])
            found[start : start + step] |= (differing <= NEAR).any(axis=1)
    varied: NDArray[np.bool_] = hashes[:, 3] == 0
    return found & varied


def hashes_of(images: Images, digest: str) -> Hashes:
    """Return the hashes of images, from the cache if they are there.

    Args:
        images: uint8, `(images, channels, height, width)`.
        digest: SHA-256 of the images, which identifies them in the cache.
    """
    path = cache_directory() / "datasets" / f"hashes-v1-{digest[:32]}.bin"
    known = _read(path, len(images))
    if known is not None:
        return known
    with ThreadPoolExecutor(logical_cpus()) as pool:
        found = np.array(list(pool.map(_hashes_of_one, images)), np.uint64)
    content = found.astype("<u8").tobytes()
    with suppress(OSError):  # the hashes are computed again next time
        write_whole(path, hashlib.sha256(content).digest() + content)
    return found


def _read(path: Path, count: int) -> Hashes | None:
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError:
        return None
    check, rest = content[:_CHECK], content[_CHECK:]
    if len(rest) != count * 4 * 8 or hashlib.sha256(rest).digest() != check:
        return None
    return np.frombuffer(rest, "<u8").reshape(count, 4).astype(np.uint64)


def _hashes_of_one(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    exact = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
    upright, mirrored = _perceptual(image), _perceptual(image[..., ::-1])
    return int.from_bytes(exact, "big"), upright, mirrored, int(image.std() < _FLAT)


def _perceptual(image: NDArray[np.uint8]) -> int:
    from imagehash import phash
    from PIL import Image

    pixels = np.ascontiguousarray(image.transpose(1, 2, 0)).squeeze()
    bits = phash(Image.fromarray(pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
