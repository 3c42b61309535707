"""Speed of decoding large JPEGs, compared with plain Pillow and with loading as torchvision does.

`python -m benchmarks.decoding` makes JPEGs of 4000 x 3000 pixels, or takes
`--folder`. In each round every way decodes all of them once in one thread, in random order. The
CPU time of a round over that of this project's decoder has a median and a 95 % interval.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.datasets.decoding import Shape, decoded, decoded_at, quiet_decoders
from profiling.intervals import median_interval

OURS = "this project"
SECOND = 64
"""Second size in pixels of a decoding that serves two."""
Way = Callable[[Path, int], NDArray[np.uint8]]
"""Returns the central square of a picture, uint8, (size, size, 3)."""


def main() -> None:
    """Print the time of each way and how its pixels differ from those of plain Pillow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="JPEGs to decode instead")
    parser.add_argument("--size", type=int, default=144, help="pixels of a side")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with TemporaryDirectory() as scratch, quiet_decoders():
        if options.folder:
            paths = sorted(options.folder.rglob("*.jpg"))[: options.files]
        else:
            paths = make_jpegs(Path(scratch), options.files)
        _print(measure(paths, options.size, options.rounds), paths, options.size)


def make_jpegs(folder: Path, count: int, width: int = 4000, height: int = 3000) -> list[Path]:
    """Write JPEGs of smooth areas, edges and grain, as a camera of 12 megapixels has them."""
    paths = []
    for number in range(count):
        draw = np.random.default_rng(number)
        coarse = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = draw.normal(0, 6, (height, width, 1))
        pixels = (np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number:03}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=92)
    return paths


def ours(path: Path, size: int) -> NDArray[np.uint8]:
    """Decode at a reduced size where that suffices."""
    return decoded(path, Shape(size, fit="crop")).pixels.transpose(1, 2, 0)


def two_sizes(path: Path, size: int) -> NDArray[np.uint8]:
    """Do the same at a second size too, as `nas data cache fill` does."""
    shapes = [Shape(size, fit="crop"), Shape(SECOND, fit="crop")]
    return decoded_at(path, shapes)[0].pixels.transpose(1, 2, 0)


def plain_pillow(path: Path, size: int) -> NDArray[np.uint8]:
    """Decode all pixels, then resize the central square."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = left, top, left + side, top + side
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def like_torchvision(path: Path, size: int) -> NDArray[np.uint8]:
    """Do what `ImageFolder`, `Resize` and `CenterCrop` of torchvision do to a file."""
    with path.open("rb") as file:
        image = Image.open(file).convert("RGB")
    scale = size / min(image.size)
    shape = max(size, int(image.width * scale)), max(size, int(image.height * scale))
    resized = image.resize(shape, Image.Resampling.BILINEAR)
    left, top = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


WAYS: dict[str, Way] = {
    OURS: ours,
    f"and at {SECOND} px": two_sizes,
    "plain Pillow": plain_pillow,
    "as torchvision": like_torchvision,
}


def measure(paths: Sequence[Path], size: int, rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds per picture of each way, one for each round."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    order, draw = list(WAYS), random.Random(0)
    for way in WAYS.values():  # a first call imports decoders
        way(paths[0], size)
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            start = time.process_time()
            for path in paths:
                WAYS[name](path, size)
            found[name].append((time.process_time() - start) / len(paths))
    return found


def _print(found: dict[str, list[float]], paths: Sequence[Path], size: int) -> None:
    plain = [plain_pillow(path, size).astype(float) for path in paths]
    print(f"{len(paths)} pictures to {size} x {size} pixels, CPU time, {len(found[OURS])} rounds")
    print(f"{'way':16}{'ms':>8}{'times':>8}{'95 %':>16}{'difference of 255':>20}")
    for name, seconds in found.items():
        ratios = [one / ours for one, ours in zip(seconds, found[OURS], strict=True)]
        low, high = median_interval(ratios)
        interval = f"{low:.2f} to {high:.2f}" if name != OURS else ""
        seen = [WAYS[name](path, size) for path in paths]
        apart = [np.abs(one - whole).mean() for one, whole in zip(seen, plain, strict=True)]
        print(
            f"{name:16}{1e3 * median(seconds):8.1f}{median(ratios):8.2f}{interval:>16}"
            f"{np.mean(apart):20.2f}"
        )


if __name__ == "__main__":
    main()
