"""Run the tests of one module on its mutants, each in a separate process.

The process is forked from one that has already imported the large libraries, which saves seconds
for every mutant; the project itself is imported again from a private copy of the tree.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

import pytest

_PACKAGES = ("search_spaces", "profiling", "nas", "studies", "benchmarks")
_LIBRARIES = (
    *("torch", "torch.utils.flop_counter", "fvcore.nn", "pytorch_msssim", "numpy", "scipy.special"),
    *("scipy.stats", "pandas", "moocore", "optuna", "pydantic", "sqlalchemy", "yaml", "psutil"),
)
# Left out to save time: they build networks or begin whole studies again and again.
_QUICK = "not printed_alike and not describe_no_network_twice and not an_interruption"
_NEVER_COPIED = shutil.ignore_patterns("__pycache__", "results", ".git", ".*_cache", ".hypothesis")


class Sandbox:
    """A private copy of the tree in which `module` is replaced and `tests` are run.

    Raises:
        RuntimeError: The tests fail on the unchanged module.
    """

    def __init__(self, module: str, tests: Sequence[str]) -> None:
        self._tests = list(tests)
        self._tree = Path(tempfile.mkdtemp(prefix="mutation-"))
        self._module = self._tree / module
        self._limit_s = 600.0

    def __enter__(self) -> Self:
        shutil.copytree(Path.cwd(), self._tree, ignore=_NEVER_COPIED, dirs_exist_ok=True)
        _prepare(self._tree)
        # As at Ctrl-C: otherwise a fault that runs for ever would outlive this process.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        began = time.monotonic()
        outcome, failed = self.outcome(self._module.read_text())
        if outcome != "survived":
            self.__exit__()
            raise RuntimeError(f"{self._module.name}: {outcome} without a change: {failed}")
        seconds = time.monotonic() - began
        self._limit_s = 30 + 4 * seconds  # generous: other programs may use the processor too
        print(f"{self._module.name}: its tests take {seconds:.1f} s", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._tree, ignore_errors=True)

    def outcome(self, source: str) -> tuple[str, str]:
        """Return `killed`, `survived` or `timeout` for this source, and the test that failed."""
        self._module.write_text(source)
        # Two faults of equal length within a second would share one compiled file.
        for compiled in self._module.parent.glob(f"__pycache__/{self._module.stem}.*"):
            compiled.unlink()
        fork = multiprocessing.get_context("fork")
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_test, args=(self._tree, self._tests, sender))
        process.start()
        sender.close()
        try:
            if not receiver.poll(self._limit_s):
                return "timeout", ""
            outcome, failed = receiver.recv()
            return outcome, failed
        except EOFError:
            return "killed", "the process ended"
        finally:
            _end(process)


def _end(process: BaseProcess) -> None:
    """End a process that leads its own process group, and the group."""
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()


def _prepare(tree: Path) -> None:
    """Import the libraries, and let every process write its files into `tree`."""
    scratch = tree / "scratch"
    scratch.mkdir()
    os.environ |= {"TMPDIR": str(scratch), "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    for name in _LIBRARIES:
        importlib.import_module(name)


def _test(tree: Path, tests: Sequence[str], sender: Connection) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    origin = Path.cwd()
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(origin)))]
    for name in [name for name in sys.modules if name.split(".")[0] in _PACKAGES]:
        del sys.modules[name]
    failures = _Failures()
    with (tree / "output.txt").open("w") as output, contextlib.redirect_stdout(output):
        options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "--hypothesis-seed=0"]
        options += ["-k", _QUICK]
        code = pytest.main([*options, *tests], plugins=[failures])
    killed_by = failures.first or f"pytest ended with {int(code)}"
    sender.send(("survived", "") if code == 0 else ("killed", killed_by))


class _Failures:
    """A pytest plugin that records the first test or file that failed."""

    first = ""

    def pytest_configure(self) -> None:
        import hypothesis  # only after pytest has loaded it as a plugin

        # One failing example is enough: the search for the smallest takes most of the time.
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("first failure", phases=phases)
        hypothesis.settings.load_profile("first failure")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.first = self.first or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.first = self.first or report.nodeid
