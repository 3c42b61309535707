"""Let Tune handle workers that Ray itself ends, like any other worker that died."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)

_REASONS: dict[type[RayError], str] = {
    OutOfMemoryError: "Ray ended its process because the memory of its node ran low",
    NodeDiedError: "its node is lost",
    WorkerCrashedError: "its process ended",
    ObjectLostError: "its findings were lost with their node",
}
"""Ray's errors for the loss of a worker, besides `RayActorError`, and the reason each means."""


@contextmanager
def lost_workers_as_dead(on_loss: Callable[[str | None], None]) -> Iterator[None]:
    """Let Tune treat each loss of a worker as the death of its actor, inside the block.

    Tune handles only `RayActorError`: any other error of `_REASONS` would end the whole study with
    a `RuntimeError`. Tune has no public interface to change this, so the block replaces a method of
    Tune's actor manager.

    Args:
        on_loss: Called with the reason just before Tune reports the trial's error, and with None
            afterwards.
    """
    before = RayActorManager._actor_task_failed

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        for kind, reason in _REASONS.items():
            if isinstance(exception, kind):
                on_loss(reason)
                exception = RayActorError(error_msg=str(exception))
                break
        try:
            before(manager, tracked_actor_task, exception)
        finally:
            on_loss(None)  # Tune need not have reported it: its trial may have ended before

    setattr(RayActorManager, before.__name__, failed)
    try:
        yield
    finally:
        setattr(RayActorManager, before.__name__, before)
