"""Rendered faces, the default data set: any number, reproducible by seed, without a download."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from nas.datasets.cache import Entry, Images, Labels
from nas.datasets.dataset import (
    DataConfig,
    ImageDataset,
    fingerprint_of,
    split_indices,
)
from nas.datasets.decoding import as_channels
from nas.faces.attributes import ATTRIBUTE_NAMES, attributes_of
from nas.faces.render import RENDERER_VERSION, render_faces
from nas.faces.sample import sample_scene
from profiling.progress import Progress
from profiling.resources import logical_cpus
from search_spaces.errors import UserError
from search_spaces.sizes import Size, sides, size_in_words

DEFAULT_COUNT = 20_000
_PROCESS_CHUNK = 500  # seconds of work, because a process takes a fraction of a second to start


def load_faces(
    config: DataConfig, image_size: Size, channels: int, progress: Progress | None
) -> ImageDataset:
    """Return `config.count` faces (default 20,000), rendered or memory-mapped from the cache.

    Images that are not square are the central part of square ones.
    """
    count = config.count or DEFAULT_COUNT
    grey = "" if channels == 3 else "-grey"
    stem = f"faces-v{RENDERER_VERSION}-seed{config.seed}-{size_in_words(image_size)}px{grey}"
    entry = Entry(stem=stem, size=image_size, labels=len(ATTRIBUTE_NAMES), channels=channels)
    workers = logical_cpus() if count > _PROCESS_CHUNK else 1

    def fill(start: int, stop: int) -> tuple[Images, Labels]:
        draw = _render_in_process if workers > 1 else render_faces
        faces = draw(config.seed, start, stop, max(sides(image_size)))
        return as_channels(_central(faces, image_size), channels), _labels(config.seed, start, stop)

    chunk = _PROCESS_CHUNK if workers > 1 else 50
    images, labels = entry.load(count, fill, threads=workers, chunk=chunk, progress=progress)
    train, validation, test = split_indices(count, config.split_seed)
    return ImageDataset(
        name="faces",
        images=images,
        attribute_names=ATTRIBUTE_NAMES,
        attributes=np.asarray(labels),
        train=train,
        validation=validation,
        test=test,
        skipped=(),
        fingerprint=fingerprint_of(stem=stem, count=count, split_seed=config.split_seed),
        found=count,
        about=(f"{count:,} rendered faces", f"split at random, seed {config.split_seed}"),
    )


def _central(faces: Images, size: Size) -> Images:
    height, width = sides(size)
    top, left = (faces.shape[2] - height) // 2, (faces.shape[3] - width) // 2
    return faces[:, :, top : top + height, left : left + width]


def _labels(seed: int, start: int, stop: int) -> Labels:
    rows = [attributes_of(sample_scene(seed, index)) for index in range(start, stop)]
    return np.array(rows, np.bool_)


def _render_in_process(seed: int, start: int, stop: int, size: int) -> Images:
    """Render in a child process, which the interpreter lock of this process does not slow down.

    Unlike `multiprocessing`, a plain child process needs no `__main__` guard in the caller's script
    and inherits none of its threads.
    """
    command = [sys.executable, "-c", "from nas.faces.render import main; main()"]
    arguments = [str(number) for number in (seed, start, stop, size)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise UserError(
            f"faces {start} to {stop}: their renderer ended with code {done.returncode}, as for "
            "lack of memory; free some memory and run the same command again"
        )
    return np.frombuffer(done.stdout, np.uint8).reshape(stop - start, 3, size, size)
