"""How the tests find and start processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys

import psutil
import pytest

from tests.helpers.processes import descendants

DETACH = (
    "import subprocess as s\n"
    "print(s.Popen(['sleep', '600'], stdout=s.DEVNULL, start_new_session=True).pid)"
)


def test_a_process_is_found_also_when_its_parent_has_ended() -> None:
    command = [sys.executable, "-c", DETACH]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    orphan = psutil.Process(int(said))
    try:
        assert orphan in descendants()
    finally:
        orphan.kill()
    psutil.wait_procs([orphan])
    assert orphan not in descendants()


def test_a_process_gets_the_environment_of_whoever_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = multiprocessing.get_context("spawn")
    for value in ("one", "two"):
        monkeypatch.setenv("NAS_CACHE_DIR", value)
        ours, theirs = context.Pipe()
        process = context.Process(target=_tell, args=(theirs, "NAS_CACHE_DIR"))
        process.start()
        assert ours.poll(60)
        assert ours.recv() == value
        process.join()


def _tell(pipe: multiprocessing.connection.Connection, name: str) -> None:
    pipe.send(os.environ[name])
