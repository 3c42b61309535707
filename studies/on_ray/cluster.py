"""Connect to a Ray cluster: to a running one, or to one that is started on this machine only."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from profiling.openmp import PASSIVE_WAITING
from search_spaces.errors import UserError
from search_spaces.numbers import at_most
from studies.config.study import RayConfig
from studies.on_ray.local import local_settings, sigterm_kept, started_here

_GB = 1_000_000_000

_LOOK_AGAIN_S = 2.0
"""Seconds for which the known list of nodes is used before it is read again."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # prints a banner also at verbose=0
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the Optuna storage is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are handled as in a local run
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # Tune's own record of the study is never read
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the runner starts no more trials than fit
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without GPUs sees none
}

ANSWER_S = 20.0
"""Seconds in which a cluster must answer; `ray.init` itself tries for many minutes."""

_PROBE = """
import socket, sys
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient
address = canonicalize_bootstrap_address_or_die(sys.argv[1])
host, _, port = address.rpartition(":")
socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
GcsClient(address=address)
"""
"""A program that ends with an error if no Ray answers at the address of its argument."""


class Cluster:
    """A Ray cluster, and how many trials of a study it can run.

    Args:
        need: Resources of one trial, by Ray's name.

    Raises:
        UserError: no node has the resources of one trial.
    """

    def __init__(self, need: Mapping[str, float]) -> None:
        self.need = {name: amount for name, amount in need.items() if amount}
        self._seen: tuple[float, int] = (0.0, 0)
        if not self.room:
            asked = ", ".join(_amount(name, amount) for name, amount in self.need.items())
            nodes = [
                ", ".join(_amount(name, node.get(name, 0)) for name in self.need)
                for node in _nodes()
            ]
            if not nodes:
                raise UserError("ray: the cluster has no living node; start one")
            raise UserError(
                f"ray: no node has room for a trial, which needs {asked}; the nodes have "
                f"{'; '.join(nodes)}: "
                "lower ray.cpus_per_trial, ray.gpus_per_trial or ray.memory_gb_per_trial"
            )

    @property
    def room(self) -> int:
        """Number of trials that the living nodes can run at a time."""
        at, room = self._seen
        if time.monotonic() - at > _LOOK_AGAIN_S:
            room = sum(_fitting(node, self.need) for node in _nodes())
            self._seen = time.monotonic(), room
        return room

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on a node with the resources of a trial, and return its result.

        Raises:
            Exception: the function's own exception.
        """
        import ray
        from ray.exceptions import RayTaskError

        options = {"num_cpus": self.need.get("CPU", 0), "num_gpus": self.need.get("GPU", 0)}
        if "memory" in self.need:
            options["memory"] = self.need["memory"]
        try:
            return ray.get(ray.remote(function).options(**options).remote(*args))
        except RayTaskError as error:
            raise _cause(error) from None


def _cause(error: Any) -> Exception:
    cause: Exception = error.cause
    if isinstance(cause, ModuleNotFoundError):
        return UserError(f"ray: a node lacks this package ({cause}); install it on every node")
    return cause


@contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Connect to the cluster of `config.address`, or start one; disconnect at the end.

    An existing connection of this process is used and kept.

    Raises:
        UserError: there is no such cluster, or the connection fails.
    """
    local = config.address is None
    with _environment(_SETTINGS | (local_settings() if local else {})):
        import ray

        with _silent():
            if ray.is_initialized():
                yield
            elif local:
                with started_here(config):
                    yield
            else:
                with _connected(str(config.address)):
                    yield


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress Ray's messages about workers that died: the runner handles and reports these."""
    from ray._private import worker

    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    # Ray has no public option for it: `log_to_driver=False` only covers the output of workers.
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = True
        logger.setLevel(level)


def _require_answer(address: str) -> None:
    """Raise `UserError` if no cluster answers; another process asks, because it may hang."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _PROBE, address],
            check=False,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no cluster answered within {ANSWER_S:g} s") from None
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise _unreachable(address, last.partition(": ")[2] or last)


def _unreachable(address: str, reason: str) -> UserError:
    return UserError(
        f"--address {address}: the connection failed ({reason}); start a cluster with: "
        "ray start --head"
    )


@contextmanager
def _connected(address: str) -> Iterator[None]:
    import ray

    _require_answer(address)
    try:
        with sigterm_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env={"env_vars": {**PASSIVE_WAITING}},
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error))
        raise _unreachable(address, str(first)) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set yet; remove them at the end."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def largest_memory_bytes() -> float:
    """Return the memory in bytes that Ray manages on the node with the most memory."""
    return max((node.get("memory", 0.0) for node in _nodes()), default=0.0)


def _nodes() -> list[dict[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _fitting(node: Mapping[str, float], need: Mapping[str, float]) -> int:
    return min(_times(node.get(name, 0), amount) for name, amount in need.items())


def _times(available: float, amount: float) -> int:
    """Return how often an amount fits; a fraction of a GPU comes from one GPU."""
    if amount < 1:
        return int(available) * int(1 / amount + 1e-9)
    return int(available / amount + 1e-9)


def _amount(name: str, amount: float) -> str:
    return (
        f"{at_most(amount / _GB, 3)} GB of memory"
        if name == "memory"
        else f"{at_most(amount)} {name}"
    )
