"""A Ray cluster to work on: one that runs already, or a small one on this machine alone."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from profiling.openmp import PASSIVE_WAITING
from search_spaces.errors import UserError
from studies.config.study import RayConfig

_GB = 1_000_000_000

_FOLDER = "nas-ray-"

_SHUTDOWN_S = 3.0
"""Seconds in which what a local Ray started may end by itself."""

_LOOK_AGAIN_S = 2.0
"""Nodes come and go: this long what was seen of them is believed."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # prints a banner, however quiet Tune is told to be
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the Optuna storage is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # an interruption means what it means locally
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # Tune's own account of the study is never read
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the runner asks for no more than there is room for
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial that asked for no GPU sees none
}

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes Ray listen on 127.0.0.1 alone. Must be set before Ray is imported."""


class Cluster:
    """What a study needs to know of a Ray cluster.

    Args:
        need: What one trial takes, by Ray's name of the resource.

    Raises:
        UserError: no node has room for one trial.
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
                raise UserError("ray: the cluster has no node that is alive; start one")
            raise UserError(
                f"ray: no node has room for a trial, which takes {asked}; the nodes have "
                f"{'; '.join(nodes)}: "
                "lower ray.cpus_per_trial, ray.gpus_per_trial or ray.memory_gb_per_trial"
            )

    @property
    def room(self) -> int:
        """How many trials the nodes that are alive have room for."""
        at, room = self._seen
        if time.monotonic() - at > _LOOK_AGAIN_S:
            room = sum(_fitting(node, self.need) for node in _nodes())
            self._seen = time.monotonic(), room
        return room

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function where a trial could run, and return its result.

        Raises:
            Exception: what the function raised.
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
    """Connect to the cluster that is named, or start one on this machine; leave it at the end.

    A connection that this process has already is used, and kept.

    Raises:
        UserError: there is no such cluster, or it cannot be used.
    """
    local = config.address is None
    with _environment(_SETTINGS | (_LOOPBACK if local else {})):
        import ray

        with _silent():
            if ray.is_initialized():
                yield
            elif local:
                with _started(config):
                    yield
            else:
                with _connected(str(config.address)):
                    yield


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Ray has to say of workers that die off the screen: the runner deals with it."""
    from ray._private import worker

    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    # There is no public way: `log_to_driver=False` leaves out what workers print, not this.
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = True
        logger.setLevel(level)


@contextmanager
def _started(config: RayConfig) -> Iterator[None]:
    import ray

    # A folder of our own, so that nothing of Ray's stays behind; its sockets allow no long path.
    _remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp"))
    try:
        with _sigterm_kept():
            ray.init(
                address="local",  # whatever RAY_ADDRESS says
                include_dashboard=config.dashboard,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                _temp_dir=str(folder),
            )
        yield
    finally:
        started = _started_in(folder)
        ray.shutdown()
        for process in psutil.wait_procs(started, timeout=_SHUTDOWN_S)[1]:
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _started_in(folder: Path) -> list[psutil.Process]:
    """Return the processes of the local Ray of a folder, and all below them."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(str(folder) in word for word in child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return found


def _remove_left_behind() -> None:
    """Remove what is left of drivers that were killed: folders, and Ray's agents that use them.

    All else of a local Ray ends with its driver; its two agents try for minutes to report that.
    """
    for folder in Path("/tmp").glob(f"{_FOLDER}*-*"):
        owner = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                        process.kill()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    import ray

    try:
        with _sigterm_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env={"env_vars": {**PASSIVE_WAITING}},
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error))
        raise UserError(
            f"--address {address}: cannot be connected to ({first}); start a cluster with: "
            "ray start --head"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Let SIGTERM mean what it meant before: Ray takes it when it starts, to exit without a word.

    One that comes meanwhile is raised again at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, came = signal.getsignal(signal.SIGTERM), False
    try:
        yield
    except SystemExit:
        came = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if came:
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set yet; take them back at the end."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def largest_memory_bytes() -> float:
    """Return the memory that Ray hands out on the node that has most of it."""
    return max((node.get("memory", 0.0) for node in _nodes()), default=0.0)


def _nodes() -> list[dict[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _fitting(node: Mapping[str, float], need: Mapping[str, float]) -> int:
    return min(_times(node.get(name, 0), amount) for name, amount in need.items())


def _times(there: float, amount: float) -> int:
    """How often an amount fits: parts of a GPU come from one GPU each."""
    if amount < 1:
        return int(there) * int(1 / amount + 1e-9)
    return int(there / amount + 1e-9)


def _amount(name: str, amount: float) -> str:
    return f"{amount / _GB:.1f} GB of memory" if name == "memory" else f"{amount:g} {name}"
