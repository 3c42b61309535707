"""Workers that Ray ends itself, so that Tune takes them for what they are: workers that died."""

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
    NodeDiedError: "its node is gone",
    WorkerCrashedError: "its process is gone",
    ObjectLostError: "what it had found was lost with its node",
}
"""How Ray names the loss of a worker, besides `RayActorError`; and what that means."""


@contextmanager
def lost_workers_as_dead(on_loss: Callable[[str], None]) -> Iterator[None]:
    """Let Tune treat each loss of a worker as the death of its actor, inside the block.

    Tune handles `RayActorError` alone: any other error of `_REASONS` would end the whole study as a
    `RuntimeError`. It offers no public place to change that, so a method of its actor manager is
    replaced meanwhile.

    Args:
        on_loss: Called with the reason just before Tune reports the trial's error.
    """
    before = RayActorManager._actor_task_failed

    def failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        for kind, reason in _REASONS.items():
            if isinstance(exception, kind):
                on_loss(reason)
                exception = RayActorError(error_msg=str(exception))
                break
        before(manager, tracked_actor_task, exception)

    setattr(RayActorManager, before.__name__, failed)
    try:
        yield
    finally:
        setattr(RayActorManager, before.__name__, before)
