"""A Ray of this process's own, on this machine only."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from profiling.resources import logical_cpus
from search_spaces.errors import UserError
from studies.config.study import RayConfig

_FOLDER = "nas-ray-"

_TEMPORARY = Path("/tmp" if os.name == "posix" else tempfile.gettempdir())
"""Where the folder of a local Ray is made: the paths of Ray's sockets must be short."""

_SHUTDOWN_S = 3.0
"""Seconds that the processes of a local Ray have to end by themselves."""


def local_settings() -> dict[str, str]:
    """Return the environment variables with which Ray must be imported and started.

    Ray listens on 127.0.0.1 only, and its connections need this process's token.
    """
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_TOKEN": _token()}


@cache
def _token() -> str:
    """Return the token of this process's own Ray.

    Without it, Ray would write one to `~/.ray/auth_token`, which other users can often read: with
    it they could run code in the study. An environment is private to its user. Ray reads the token
    once per process.
    """
    return secrets.token_hex(32)


@contextmanager
def started_here(config: RayConfig) -> Iterator[None]:
    """Start a Ray for this process only; end it, and remove its files, at the end."""
    import ray

    _remove_left_behind()
    # A separate folder, so that all files of Ray can be removed.
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=_TEMPORARY))
    try:
        _start(config, folder)
        yield
    finally:
        started = _started_in(folder)
        ray.shutdown()
        for process in psutil.wait_procs(started, timeout=_SHUTDOWN_S)[1]:
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _start(config: RayConfig, folder: Path) -> None:
    import ray

    try:
        with sigterm_kept(), _hangups_ignored(), _without_monitors(config.dashboard):
            ray.init(
                address="local",  # also if RAY_ADDRESS is set
                num_cpus=logical_cpus(),  # Ray does not see the affinity and nested quotas
                include_dashboard=config.dashboard,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                _temp_dir=str(folder),
            )
    except Exception as error:  # Ray raises errors of every kind
        first = next((line for line in str(error).splitlines() if line.strip()), type(error))
        remedy = ': install "ray[default]", or leave out ray.dashboard' if config.dashboard else ""
        raise UserError(f"ray: no Ray started on this machine ({first}){remedy}") from None


def _started_in(folder: Path) -> list[psutil.Process]:
    """Return the processes of the local Ray in a folder, and all their descendants."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(str(folder) in word for word in child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return found


def _remove_left_behind() -> None:
    """Remove the folders of killed drivers, and Ray's agents that still use them.

    The other processes of a local Ray end with its driver; its two agents keep trying to connect
    for minutes.
    """
    for folder in _TEMPORARY.glob(f"{_FOLDER}*-*"):
        owner = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if owner.isdigit() and _is_mine(folder) and not psutil.pid_exists(int(owner)):
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                        process.kill()
            shutil.rmtree(folder, ignore_errors=True)


def _is_mine(folder: Path) -> bool:
    """Return whether it is a folder of this user: others can make folders and links in /tmp."""
    if not hasattr(os, "getuid"):  # on Windows
        return folder.is_dir()
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


@contextmanager
def _without_monitors(dashboard: bool) -> Iterator[None]:
    """Start no processes that only serve people and autoscalers: it takes half of the time.

    They are the autoscaler's monitor, the log monitor and, without a dashboard, its server.
    `ray.init` has no options for them.
    """
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    make, serve = RayParams.__init__, Node.start_api_server

    def without(params: RayParams, *args: Any, **kwargs: Any) -> None:
        make(params, *args, **{**kwargs, "no_monitor": True, "include_log_monitor": False})

    def no_server(node: Node, **_: Any) -> None:
        node._webui_url = None

    setattr(RayParams, make.__name__, without)
    if not dashboard:
        setattr(Node, serve.__name__, no_server)
    try:
        yield
    finally:
        setattr(RayParams, make.__name__, make)
        setattr(Node, serve.__name__, serve)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces at its start with a silent exit.

    A SIGTERM that comes inside the block is raised again at its end.
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
def _hangups_ignored() -> Iterator[None]:
    """Let the processes started inside ignore SIGHUP, which a closed terminal sends to all.

    They end with this process, which handles the signal.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
