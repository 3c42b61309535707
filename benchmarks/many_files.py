"""Loading a folder of very many images: `python -m benchmarks.many_files --files 200000`.

Makes a folder of small JPEGs in class folders (kept in `--folder`, for another run), then loads it
in a process of its own: first decoding all files, then from the cache, then after one file was
added. Prints the seconds of each and the largest memory of the process, without mapped files (the
images themselves are one, which the system drops from memory when it needs the space).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from nas.datasets import DataConfig, load_dataset
from studies.cli.options import progress_bar

CLASSES = 10
DIFFERENT = 500
"""Number of different pictures; a comment in each file makes all contents differ."""


def make(folder: Path, count: int) -> None:
    """Write `count` JPEGs of 96 x 96 pixels in class folders; existing ones are kept."""
    contents = []
    for number in range(min(count, DIFFERENT)):
        draw = np.random.default_rng(number)
        coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        with io.BytesIO() as file:
            coarse.resize((96, 96), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
            contents.append(file.getvalue())
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
    with progress_bar("writing files") as progress:
        for number in range(count):
            path = folder / f"class{number % CLASSES}" / f"{number:06}.jpg"
            if not path.exists():
                path.write_bytes(contents[number % len(contents)] + f"{number}".encode())
            if number % 1000 == 999:
                progress(number + 1, count)


def load(folder: Path, size: int, what: str) -> None:
    """Load all images in this process, and print what it took as JSON."""
    start, seen_mb, done = time.monotonic(), list[float](), threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen_mb.append(anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with progress_bar(what) as progress:
        dataset = load_dataset(DataConfig(kind="folder", path=folder), size, progress)
    seconds = round(time.monotonic() - start, 1)
    done.set()
    watcher.join()
    peak_mb = round(max(seen_mb, default=0.0))
    print(json.dumps({"images": len(dataset), "seconds": seconds, "peak_mb": peak_mb}))


def anonymous_mb() -> float:
    """Return the resident memory of this process that no file holds, in MB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def main() -> None:
    """Make the folder, load it three times, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.folder, options.size, options.load)
        return
    with TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "images"
        make(folder, options.files)
        environment = {**os.environ, "NAS_CACHE_DIR": f"{scratch}/cache"}
        command = [sys.executable, "-m", "benchmarks.many_files", "--folder", str(folder)]
        command += ["--size", str(options.size)]
        for what in ("decoding", "from the cache", "one file added"):
            if what == "one file added":
                added = folder / "class0" / "zzz.jpg"
                Image.new("RGB", (96, 96), "red").save(added)
            run = [*command, "--load", what]
            found = subprocess.run(run, env=environment, stdout=subprocess.PIPE, check=True)
            print(f"{what:16}{found.stdout.decode().strip()}", flush=True)
        added.unlink()


if __name__ == "__main__":
    main()
