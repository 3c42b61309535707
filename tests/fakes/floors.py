"""Floors of a made-up data set."""

from __future__ import annotations

from collections.abc import Mapping

from nas.floors import Floor, Floors, PartFloors
from tests.fakes.findings import quality


def floor(loss: float) -> Floor:
    """Return the floor of this reconstruction loss."""
    made = quality(loss)
    return Floor(loss, made.ssim, made.l1, made.psnr_db, made.ms_ssim)


def floors(
    mean: float, pca: Mapping[int, float] | None = None, absent: Mapping[int, str] | None = None
) -> Floors:
    """Return floors with these reconstruction losses; on the test images they are 10 % higher."""

    def part(factor: float) -> PartFloors:
        sizes = {size: floor(factor * loss) for size, loss in (pca or {}).items()}
        return PartFloors(floor(factor * mean), sizes)

    return Floors(280, part(1.0), part(1.1), absent or {})
