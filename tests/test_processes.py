"""How the tests find and start processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys

import psutil
import pytest

from profiling.fresh_process import MOST_ENDED, ProcessEndedError, begun_again
from tests.helpers.processes import descendants

DETACH = (
    "import subprocess as s\n"
    "print(s.Popen(['sleep', '600'], stdout=s.DEVNULL, start_new_session=True).pid)"
)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("deaths", [0, 1, MOST_ENDED - 1])
def test_work_whose_process_ended_is_begun_again(deaths: int) -> None:
    calls: list[int] = []

    def work(number: int) -> int:
        calls.append(number)
        if len(calls) <= deaths:
            raise ProcessEndedError("process: ended")
        return 10 * number

    assert begun_again(work, 4) == 40
    assert calls == [4] * (deaths + 1)


def test_work_that_ends_every_process_is_given_up() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(0)
        raise ProcessEndedError(f"process: ended {len(calls)} times")

    with pytest.raises(ProcessEndedError, match="ended 3 times"):
        begun_again(work)
