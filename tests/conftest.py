"""Settings of all tests: one thread per process, shared servers, slow files first."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from unittest import mock

import psutil
import pytest

from profiling.openmp import wait_passively
from profiling.resources import logical_cpus
from search_spaces.references import REFERENCES
from tests.helpers.forks import forked_instead_of_spawned
from tests.helpers.narrow import NARROW
from tests.helpers.postgres import Server, running_server
from tests.helpers.processes import descendants, mark_descendants

for _name, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    # A shell that starts tests in the background, or nohup, has them ignored, and every process
    # below too. Windows has no SIGHUP.
    if (_signal := getattr(signal, _name, None)) and signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests share the cores among themselves
wait_passively()  # as in the command; torch is not imported yet
os.environ.setdefault("RAY_worker_niceness", "0")  # or Ray's workers wait for all other tests
os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="nas-tests-")
os.environ["NAS_LANE_DIR"] = f"{tempfile.tempdir}/lanes"  # not that of real measurements
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
mark_descendants()

NEEDS = {"nodes": ("ray", "slow"), "server": ("postgres", "slow")}
"""Markers of tests that use a fixture."""

END_S = 30.0
"""Seconds in which processes may end after the last test."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server, and begin with the files that take longest."""
    for item in items:
        for name in NEEDS.keys() & set(getattr(item, "fixturenames", ())):
            for marker in NEEDS[name]:
                item.add_marker(marker)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: (item.path not in ray, -slow[item.path]))


def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` means: one more than cores, since many tests wait for processes."""
    return logical_cpus() + 1


@pytest.fixture(scope="module")
def untrained_counts() -> Iterator[None]:
    """Count every model as having learned, for studies that train for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.record.learning._reasons", lambda trial, floors: iter(()))
        yield


@pytest.fixture(scope="module")
def narrow_references() -> Iterator[None]:
    """Let studies of this process train narrow models in the place of both references."""
    with mock.patch.dict(REFERENCES, NARROW):
        yield


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_tests() -> Iterator[None]:
    """Fail when a process that a test has started is left at the end, and end it."""
    yield
    left = psutil.wait_procs(descendants(), timeout=END_S)[1]
    told = [str(process) for process in left]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    assert told == []


@pytest.fixture(scope="session", autouse=True)
def processes_start_at_once() -> Iterator[None]:
    """Spare each process that a test starts in Python the seconds of its imports."""
    with forked_instead_of_spawned():
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server that all tests of this process share; who stops it starts it again."""
    with running_server() as running:
        yield running
