"""Ctrl-C, SIGTERM and SIGHUP, once and twice, sent to real studies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from studies.run.crew import Interrupted
from studies.run.interruption import Interruption
from studies.store.store import StudyStore

RUN = ["study", "run", "quickstart", "--space", "tiny", "--name", "s", "--trials", "1"]
RUN += ["--objectives", "reconstruction_loss,params", "--images", "60", "--threads", "1"]

SLOW_DISK = """
import os, time
flush = os.fsync
def slowly(descriptor):
    if "checkpoint" in os.readlink(f"/proc/self/fd/{descriptor}"):
        time.sleep(1)
    flush(descriptor)
os.fsync = slowly
"""


def test_a_signal_is_held_back_while_the_storage_is_written() -> None:
    done = []
    with Interruption() as interruption:
        with interruption.held():
            signal.raise_signal(signal.SIGTERM)
            done.append("written")
            with pytest.raises(Interrupted), interruption.allowed():
                done.append("evaluated")
            done.append("told")
        assert interruption.signum == signal.SIGTERM
    assert done == ["written", "told"]


def test_a_signal_ends_a_wait_and_a_second_one_everything() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption, interruption.held():
        with pytest.raises(Interrupted), interruption.allowed():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as second:
            signal.raise_signal(signal.SIGINT)
        assert not isinstance(second.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_closed_terminal_is_one_signal_however_often_it_is_sent() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with Interruption() as interruption, interruption.held():
        for _ in range(3):  # the kernel and the shell tell it
            signal.raise_signal(signal.SIGHUP)
        assert interruption.signum == signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) is before


def test_under_nohup_a_closed_terminal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
        assert interruption.signum is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


HANG_UP = """
import os, pty, signal, sys
from studies.run.crew import Interrupted
from studies.run.interruption import Interruption
child, terminal = pty.fork()
if child:
    os.read(terminal, 1)  # it has begun
    os.close(terminal)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
with Interruption():
    try:
        print("begun", flush=True)
        signal.pause()
    except Interrupted as stopped:
        print("The same command resumes", flush=True)  # nobody reads it
        sys.exit(128 + stopped.signum)
"""


@pytest.mark.slow
def test_a_study_whose_terminal_is_closed_can_still_write() -> None:
    assert (
        subprocess.run([sys.executable, "-c", HANG_UP], timeout=120, check=False).returncode == 129
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "runner", "signum", "times", "code"),
    [
        ("1", "local", signal.SIGINT, 1, 130),
        ("2", "local", signal.SIGTERM, 1, 143),
        ("2", "local", signal.SIGINT, 2, 130),
        ("2", "local", signal.SIGHUP, 1, 129),
        pytest.param("2", "ray", signal.SIGTERM, 1, 143, marks=pytest.mark.ray),
        pytest.param("2", "ray", signal.SIGHUP, 1, 129, marks=pytest.mark.ray),
    ],
)
def test_an_interrupted_study_ends_soon_and_resumes_from_its_checkpoint(
    tmp_path: Path, workers: str, runner: str, signum: int, times: int, code: int
) -> None:
    environment = {**os.environ, "NAS_CACHE_DIR": str(tmp_path / "cache")}
    environment |= {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    (tmp_path / "slow").mkdir()
    if times == 2:  # so that whoever is killed at once is killed while writing
        (tmp_path / "slow/sitecustomize.py").write_text(SLOW_DISK)
    paths = [str(tmp_path / "slow"), *(path for path in sys.path if path)]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "studies.cli.main", *RUN, "--workers", workers]
    command += ["--runner", runner]
    command += ["--root", str(tmp_path), "--epochs", "2000", "--set", "training.patience=2000"]
    study = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("s/artefacts/*/checkpoint.safetensors")):
        assert study.poll() is None
        time.sleep(0.02)
    while times == 2 and not list(tmp_path.rglob(".checkpoint*.part")):
        assert study.poll() is None
        time.sleep(0.02)
    family = psutil.Process(study.pid).children(recursive=True)
    for _ in range(times):
        study.send_signal(signum)
        time.sleep(0.1)
    told = study.communicate(timeout=120)[1]
    assert study.returncode == code, told
    assert "Traceback" not in told
    assert "The same command resumes: nas study run quickstart" in told
    assert not psutil.wait_procs(family, timeout=60)[1]  # trials have stopped with it
    left = StudyStore.open(tmp_path, "s").study.trials
    assert {trial.state.name for trial in left} == {"RUNNING"}
    if times == 1:  # a user who stops a study does not blame its candidates
        assert not any(trial.user_attrs["starts"] for trial in left)
    assert list(tmp_path.glob("s/artefacts/*/checkpoint.safetensors"))
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.glob("s/tune*"))
    assert not list(Path("/tmp").glob(f"nas-ray-{study.pid}-*"))
    assert not (tmp_path / "home/.ray/auth_token").exists()  # others could often read it
