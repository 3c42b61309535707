"""The measurement lane, between real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from profiling.errors import ProfilingError
from profiling.lane import Lane, as_the_host_counts

HOLD = """
import sys, time
from pathlib import Path
from profiling.lane import Lane
lane = Lane("cpu", Path(sys.argv[1]))
with lane.measuring() if sys.argv[2] == "measure" else lane.training():
    print("in", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(folder: Path, what: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_in(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"


def in_background(action: object) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_trainings_share_and_a_measurement_is_alone(tmp_path: Path) -> None:
    with Lane("cpu", tmp_path).training(), other_process(tmp_path, "train") as other:
        wait_until_in(other)
        measured = threading.Event()

        def measure() -> None:
            with Lane("cpu", tmp_path).measuring():
                measured.set()

        in_background(measure)
        assert not measured.wait(0.2)


def test_training_pauses_at_its_next_batch_and_goes_on_after(tmp_path: Path) -> None:
    trainer, meter = Lane("cpu", tmp_path), Lane("cpu", tmp_path)
    log: list[str] = []
    stop = threading.Event()

    def train() -> None:
        with trainer.training():
            while not stop.is_set():
                trainer.enter()
                log.append("batch")
                time.sleep(0.001)

    thread = in_background(train)
    for _ in range(20):
        time.sleep(0.01)
        with meter.measuring():
            before = len(log)
            time.sleep(0.01)
            assert len(log) == before
    paused = len(log)
    while len(log) <= paused:
        time.sleep(0.001)
    stop.set()
    thread.join(5)
    assert trainer.waited_s > 0.1


def test_a_killed_measurement_frees_the_lane_at_once(tmp_path: Path) -> None:
    lane = Lane("cpu", tmp_path)
    with other_process(tmp_path, "measure") as other:
        wait_until_in(other)
        thread = in_background(lane.enter)
        thread.join(0.1)
        assert thread.is_alive()
        other.kill()
        thread.join(5)
        assert not thread.is_alive()


def test_a_killed_training_frees_the_lane_at_once(tmp_path: Path) -> None:
    with other_process(tmp_path, "train") as other:
        wait_until_in(other)
        other.kill()
        other.wait()
        with Lane("cpu", tmp_path).measuring():
            pass


def test_measuring_amid_own_training_and_back(tmp_path: Path) -> None:
    lane, other = Lane("cpu", tmp_path), Lane("cpu", tmp_path)
    with lane.training():
        with lane.measuring():
            pass
        done = threading.Event()

        def measure() -> None:
            with other.measuring():
                done.set()

        in_background(measure)
        assert not done.wait(0.1)  # training was resumed and holds the room
        lane.enter()
        assert done.wait(5)


def test_devices_have_lanes_of_their_own(tmp_path: Path) -> None:
    with Lane("cpu", tmp_path).measuring(), Lane("cuda:0", tmp_path).measuring():
        pass


@pytest.mark.parametrize("measured", ["cpu", "cuda:0"])
def test_a_training_pauses_whichever_device_is_measured(tmp_path: Path, measured: str) -> None:
    trainer, batches = Lane("cpu", tmp_path), threading.Event()
    trainer.enter()
    meter = Lane(measured, tmp_path)  # its lane is made while the training runs
    trainer.enter()
    trainer.leave()
    with meter.measuring():

        def next_batch() -> None:
            trainer.enter()
            batches.set()

        thread = in_background(next_batch)
        assert not batches.wait(0.1)
    assert batches.wait(5)
    thread.join(5)
    trainer.leave()


def test_nobody_starves(tmp_path: Path) -> None:
    """Two that measure again and again and two that train: each has its turns."""
    turns, stop = Counter[str](), threading.Event()

    def measure(name: str) -> None:
        lane = Lane("cpu", tmp_path)
        while not stop.is_set():
            with lane.measuring():
                turns[name] += 1
                time.sleep(0.005)

    def train(name: str) -> None:
        lane = Lane("cpu", tmp_path)
        with lane.training():
            while not stop.is_set():
                lane.enter()
                turns[name] += 1
                time.sleep(0.005)

    threads = [in_background(partial(measure, f"meter {n}")) for n in range(2)]
    threads += [in_background(partial(train, f"trainer {n}")) for n in range(2)]
    stop.wait(1.5)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert len(turns) == 4, turns
    assert min(turns.values()) >= 5, turns


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProfilingError, match="set TMPDIR"):
        Lane("cpu", tmp_path / "file")


@pytest.mark.parametrize(
    ("device", "visible", "counted"),
    [
        ("cpu", "2", "cpu"),
        ("cuda", "", "cuda:0"),
        ("cuda:1", "", "cuda:1"),
        ("cuda", "3", "cuda:3"),
        ("cuda:1", "2, 5", "cuda:5"),
        ("cuda:0", "GPU-8d", "cuda:GPU-8d"),
    ],
)
def test_processes_that_see_other_gpus_share_the_lane_of_the_same_one(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str, counted: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert as_the_host_counts(device) == counted
