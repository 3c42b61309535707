"""Run `nas` in a child process that is forked, with limits on time and memory.

The parent has imported everything, so that an input takes a tenth of a second instead of three.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CPU_S = 1.5
"""A command that has computed for so long was accepted."""
WALL_S = 40.0
"""So has one that has run for so long, although it computes little."""
IDLE_S = 8.0
"""A command that has not computed for so long hangs."""
MEMORY_BYTES = 4_000_000_000
GRACE_S = 3.0
"""Seconds that processes have to follow their command's end."""

_SET_CHILD_SUBREAPER = 36  # of prctl(2)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code, negative for a signal; None if it was stopped at a limit.
        limit: The limit at which it was stopped: `time`, `hangs` or `memory`.
        output, errors: What it wrote to standard output and standard error.
        left: The command lines of processes that outlived it.
    """

    code: int | None
    limit: str | None
    output: str
    errors: str
    left: tuple[str, ...]


def adopt_orphans() -> None:
    """Make this process the parent of processes whose own parent ends, so that they are seen."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def preload() -> None:
    """Import what the commands import."""
    import importlib

    from studies.cli.main import GROUPS

    for module in (
        *(place.partition(":")[0] for place, _ in GROUPS.values()),
        *("torch", "pandas", "optuna", "sqlalchemy", "rich.progress", "safetensors.torch"),
        *("studies.launch", "studies.report.report", "studies.paper.redraw", "studies.run.display"),
        *("nas.explain.measure", "nas.predict.predictor", "profiling.onnx_export"),
        *(
            "profiling.trace",
            "profiling.layers",
            "studies.bench.write",
            "studies.confirm.retraining",
        ),
    ):
        importlib.import_module(module)


def run_nas(
    arguments: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    *,
    cpu_s: float = CPU_S,
    wall_s: float = WALL_S,
) -> Ended:
    """Run `nas` with these arguments in `folder`."""

    def work() -> None:
        from studies.cli.main import main

        sys.argv = ["nas", *arguments]
        main(list(arguments))

    return forked(work, folder, variables, cpu_s=cpu_s, wall_s=wall_s)


def forked(
    work: Callable[[], None],
    folder: Path,
    variables: Mapping[str, str],
    *,
    cpu_s: float,
    wall_s: float,
) -> Ended:
    """Call `work` in a child process in `folder`; return how it ended."""
    streams = [os.memfd_create(name) for name in ("output", "errors")]
    sys.stdout.flush()
    sys.stderr.flush()
    earlier = set(_family())  # such as multiprocessing's own servers
    pid = os.fork()
    if pid == 0:
        _be_the_child(work, folder, variables, streams)
    code, limit = _wait(pid, cpu_s, wall_s, earlier)
    left = _left_running(GRACE_S if limit is None else 0, earlier)
    texts = [_read(stream) for stream in streams]
    return Ended(code, limit, texts[0], texts[1], left if limit is None else ())


def _be_the_child(
    work: Callable[[], None], folder: Path, variables: Mapping[str, str], streams: Sequence[int]
) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(variables)
        os.environ.pop("NAS_STUDIES", None)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in zip((nothing, *streams), range(3), strict=True):
            os.dup2(source, target)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        # What the parent does at its end, such as removing folders, is not the child's to do.
        atexit._clear()
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        try:
            work()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        _leave()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _leave() -> None:
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


def _wait(
    pid: int, cpu_s: float, wall_s: float, earlier: Set[psutil.Process]
) -> tuple[int | None, str | None]:
    start = progressed = time.monotonic()
    spent = 0.0
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), None
        family, now = _family(earlier), time.monotonic()
        if (now_spent := sum(map(_cpu_s, family))) > spent + 0.02:
            spent, progressed = now_spent, now
        limit = "hangs" if now - progressed > IDLE_S else None
        if any(_memory_bytes(process) > MEMORY_BYTES for process in family):
            limit = "memory"
        elif spent > cpu_s or now - start > wall_s:
            limit = "time"
        if limit:
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            os.waitpid(pid, 0)
            return None, limit
        time.sleep(0.01)


def _memory_bytes(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def _cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _family(earlier: Set[psutil.Process] = frozenset()) -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if one not in earlier]


def _left_running(grace_s: float, earlier: Set[psutil.Process]) -> tuple[str, ...]:
    """Return the processes that are left after `grace_s`, and end them."""
    _gone, alive = psutil.wait_procs(_family(earlier), timeout=grace_s)
    found = []
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            found.append(" ".join(process.cmdline()) or process.name())
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(alive, timeout=5)
    return tuple(found)


def _read(stream: int) -> str:
    with os.fdopen(stream, "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", errors="backslashreplace")
