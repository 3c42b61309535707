"""Number of faces that one thread renders per second: `python -m benchmarks.renderer`."""

from __future__ import annotations

import statistics
import time

from nas.faces.render import render_faces

RUNS = 7


def images_per_second(size: int, images: int) -> tuple[list[float], list[float]]:
    """Return rates in wall-clock time and in processor time, one of each per run.

    All runs draw the same images, after a first run that builds the shared textures. The two rates
    differ where other processes use the core.
    """
    render_faces(0, 0, 4, size)
    clock, processor = [], []
    for _ in range(RUNS):
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        render_faces(0, 0, images, size)
        clock.append(images / (time.perf_counter() - start_s))
        processor.append(images / (time.process_time() - start_cpu_s))
    return clock, processor


def main() -> None:
    """Print the median, the slowest and the fastest run at 144 and 64 pixels.

    The renderer uses element-wise numpy only, which runs in one thread.
    """
    for size, images in ((144, 100), (64, 200)):
        for name, rates in zip(
            ("clock", "processor"), images_per_second(size, images), strict=True
        ):
            print(
                f"{size:3d} x {size:<3d} {statistics.median(rates):6.0f} images/s, one thread, by "
                f"{name} time (median of {RUNS}; {min(rates):.0f} to {max(rates):.0f})"
            )


if __name__ == "__main__":
    main()
