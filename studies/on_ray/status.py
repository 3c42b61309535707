"""What Ray workers report to the driver beside their findings: progress and exceeded limits."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ANSWER_S = 10.0
"""Seconds in which the actor must answer."""


class WorkerStatus:
    """A Ray actor that keeps the progress of workers, and the limits that trials exceeded."""

    def __init__(self) -> None:
        self._batches: dict[int, tuple[int, int]] = {}
        self._reasons: dict[int, str] = {}

    @classmethod
    def on_this_node(cls) -> Any:
        """Start an actor on the driver's node, which the loss of other nodes does not affect.

        Returns:
            Its handle.
        """
        node = ray.get_runtime_context().get_node_id()
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": strategy}
        return ray.remote(cls).options(**options).remote()

    def note(self, number: int, done: int, total: int) -> None:
        """Record the number of batches done and total of a trial's current epoch."""
        self._batches[number] = done, total

    def read(self) -> dict[int, tuple[int, int]]:
        """Return (done, total) by trial number, as recorded since the last call."""
        read, self._batches = self._batches, {}
        return read

    def exceeded(self, number: int, reason: str) -> None:
        """Record which limit a trial exceeded, just before its process ends itself."""
        self._reasons[number] = reason

    def excess(self, number: int) -> str | None:
        """Return which limit a trial exceeded, and forget it; None if it exceeded none."""
        return self._reasons.pop(number, None)
