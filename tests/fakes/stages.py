"""Made-up records of the stages of a compression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studies.compress.folder import stage_name
from studies.confirm.evaluator import renamed
from studies.record.compressed import Costs, Stage, Training
from tests.fakes.findings import quality
from tests.helpers.small_networks import described

SMALL = described(12)


def training(role: str, seed: int, loss: float, **changes: Any) -> Training:
    """Return a training of three epochs, whose loss on the test images is 0.1 higher."""
    found = Training(
        role=role,
        seed=seed,
        epochs=3,
        trained=3,
        best_epoch=2,
        duration_s=6.0,
        validation=renamed(quality(loss).values),
        test=renamed(quality(loss + 0.1).values),
    )
    return found.model_copy(update=changes)


def stage(
    losses: Mapping[str, list[float]], kind: str = "prune", settings: Any = None, **changes: Any
) -> Stage:
    """Return a stage with trainings of these losses, by role."""
    settings = settings or {"teachers_s": 12.0}
    found = Stage(
        kind=kind,
        name=stage_name(4, kind, settings),
        title="#4 made smaller",
        trial=4,
        architecture=SMALL,
        settings=settings,
        source=Costs(values={"params": 2e6, "macs": 2e7, "latency_ms": 4.0}),
        costs=Costs(
            values={"params": 1e6, "macs": 1e7, "latency_ms": 3.0},
            intervals={"latency_ms": (2.9, 3.1)},
            over_source={"latency_ms": (0.75, 0.74, 0.76)},
        ),
        trainings=tuple(
            training(role, seed, loss)
            for role, values in losses.items()
            for seed, loss in enumerate(values)
        ),
    )
    return found.model_copy(update=changes)
