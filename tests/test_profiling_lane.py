"""The measurement lane, between real processes."""

from __future__ import annotations

import os
import select
import stat
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
from profiling.lane import Lane, as_the_host_counts, default_folder

HOLD = """
import os, sys, time
from pathlib import Path
from profiling.lane import Lane
if len(sys.argv) > 3:
    os.umask(0o077)
    os.setuid(int(sys.argv[3]))
lane = Lane("cpu", Path(sys.argv[1]))
with lane.measuring() if sys.argv[2] == "measure" else lane.training():
    print("in", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(folder: Path, what: str, *user: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder), what, *user]
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


@pytest.mark.slow
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
    with pytest.raises(ProfilingError, match=r"\(not a folder\); remove it, or set NAS_LANE_DIR"):
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


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_users_can_lock_and_none_can_write_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Lane("cpu", tmp_path / "lanes")
    finally:
        os.umask(before)
    assert mode(tmp_path / "lanes") == 0o1777
    assert {path.name for path in tmp_path.rglob("*")} == {"lanes", "cpu.door", "cpu.room"}
    assert {mode(path) for path in (tmp_path / "lanes").iterdir()} == {0o444}


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs two users")
@pytest.mark.slow
def test_users_share_the_lane(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:  # private to the tests
            parent.chmod(0o711)
    folder = tmp_path / "lanes"
    with other_process(folder, "measure", "65534") as other:
        wait_until_in(other)
        assert folder.stat().st_uid == 65534
        lane = Lane("cpu", folder)
        thread = in_background(lane.enter)
        thread.join(0.2)
        assert thread.is_alive()  # waits for the other user's measurement
        other.kill()
        thread.join(5)
        assert not thread.is_alive()
        lane.leave()
    with other_process(folder, "train", "65533") as other:
        assert other.stdout is not None
        with lane.measuring():
            assert select.select([other.stdout], [], [], 2) == ([], [], [])
        wait_until_in(other)


def test_the_lane_does_not_depend_on_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.delenv("NAS_LANE_DIR")
    assert default_folder() == Path("/tmp/nas-lanes")
    monkeypatch.setenv("NAS_LANE_DIR", "/shared/lanes")
    assert default_folder() == Path("/shared/lanes")


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_what_is_no_lock_file_is_refused_and_not_followed(tmp_path: Path, kind: str) -> None:
    folder, victim = tmp_path / "lanes", tmp_path / "victim"
    folder.mkdir()
    place = folder / "cpu.door"
    if kind == "link":
        victim.write_text("mine")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(victim)
    with pytest.raises(ProfilingError, match="lanes: cannot be used for the measurement lane"):
        Lane("cpu", folder)
    assert victim.exists() == (kind == "link")
    Lane("cuda:0", folder).enter()  # another device's lane is not disturbed by it


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "lanes").symlink_to(tmp_path / "victim")
    with pytest.raises(ProfilingError, match="not a folder"):
        Lane("cpu", tmp_path / "lanes")
    assert list((tmp_path / "victim").iterdir()) == []


def test_files_that_the_system_removes_from_tmp_are_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "lanes"
    trainer = Lane("cpu", folder)
    trainer.enter()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    meter, done = Lane("cpu", folder), threading.Event()
    trainer.enter()

    def measure() -> None:
        with meter.measuring():
            done.set()

    thread = in_background(measure)
    assert not done.wait(0.2)  # both use the new files
    trainer.leave()
    assert done.wait(5)
    thread.join(5)
