"""This process as it would be on Windows or macOS: what only Linux has is hidden.

It is hidden from the project's own modules alone, because the libraries installed here need it.
"""

from __future__ import annotations

import builtins
import io
import os
import platform
import re
import signal
import types
from typing import Any

import psutil

PACKAGES = ("nas", "profiling", "search_spaces", "studies")

MODULES = {
    *("curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog"),
    *("termios", "tty"),
}
"""Modules that Windows does not have."""

SIGNALS = {"SIGABRT", "SIGBREAK", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
"""The signals of Windows."""

_SIGNAL = re.compile(r"alarm|pause|pthread_\w+|[gs]etitimer|sig(interrupt|pending|\w*wait\w*)")
_OS = re.compile(
    r"[fl]?chown|fch(dir|mod)|chroot|fork(pty)?|f?statvfs|(get|set)(e|re|res)?[ug]id|"
    r"[gs]et(pgid|pgrp|sid|priority|groups)|getgrouplist|initgroups|getloadavg|killpg|"
    r"mk(fifo|nod)|nice|posix_\w+|p?(read|write)v|pread|pwrite|sched_\w+|sendfile|wait[34]?|"
    r"waitid|W[A-Z]+|(sys|path|f?path)conf|confstr|uname|\w+xattr|lockf|sync|fdatasync|openpty|"
    r"pipe2|register_at_fork|ttyname|tc[gs]etpgrp|ctermid|memfd_create|pidfd_open|eventfd\w*|"
    r"splice|copy_file_range|O_(CLOEXEC|DIRECTORY|DSYNC|NOCTTY|NOFOLLOW|NONBLOCK|SYNC)"
)
"""Names of `signal` and `os` that Windows or macOS does not have."""

_FILES = ("/proc/", "/sys/")


def hide() -> None:
    """Hide modules, names and files of Linux from the project's modules, before their import."""
    hidden = {name for name in dir(os) if _OS.fullmatch(name)}
    signals = {name for name in dir(signal) if re.match("SIG[A-Z]", name)} - SIGNALS
    calls = {name for name in dir(signal) if _SIGNAL.fullmatch(name)}
    less = {"os": _without(os, hidden), "signal": _without(signal, signals | calls)}
    less["os"].name = "nt"  # type: ignore[attr-defined]
    real_import, real_open = builtins.__import__, io.open

    def imported(
        name: str,
        globals: Any = None,  # noqa: A002 - the signature of `__import__`
        locals: Any = None,  # noqa: A002
        fromlist: Any = (),
        level: int = 0,
    ) -> Any:
        importer = str((globals or {}).get("__name__")).partition(".")[0]
        if level or importer not in PACKAGES:
            return real_import(name, globals, locals, fromlist, level)
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        found = real_import(name, globals, locals, fromlist, level)
        return less.get(name, found)

    def opened(file: Any, *args: Any, **more: Any) -> Any:
        if str(file).startswith(_FILES):
            raise FileNotFoundError(2, "No such file or directory", str(file))
        return real_open(file, *args, **more)

    builtins.__import__ = imported
    io.open = opened  # `pathlib` calls it
    platform.libc_ver = lambda *_, **__: ("", "")
    del psutil.Process.cpu_affinity


def _without(module: types.ModuleType, names: set[str]) -> types.ModuleType:
    """Return a copy of a module that lacks these names."""
    less = types.ModuleType(module.__name__)
    less.__dict__.update({key: one for key, one in vars(module).items() if key not in names})
    return less
