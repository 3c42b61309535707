"""The agent measures as `profiling.latency` does, and ends when its client is gone."""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from profiling import latency
from profiling.lane import Lane
from profiling.latency import LatencyConfig
from profiling.locks import try_lock
from profiling.target import agent
from profiling.target.agent import Agent, read_frame, write_frame
from profiling.timing import Sample
from tests.helpers.targets import QUICK

SOURCE = Path(agent.__file__)
WATCHED = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="targets are not Windows")


# What it runs on


def test_the_agent_is_written_in_python_3_8() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 8))


def test_the_agent_needs_the_standard_library_numpy_and_onnxruntime() -> None:
    names = set()
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    assert names - sys.stdlib_module_names == {"numpy", "onnxruntime"}


# Frames


@pytest.mark.parametrize("payload", [b"", b"x", b"ab" * 100_000])
def test_a_frame_arrives_as_it_was_written(payload: bytes) -> None:
    stream, moves = io.BytesIO(), []
    write_frame(stream, {"is": "\u00e9", "of": [1, None]}, payload, lambda: moves.append(1))
    assert len(moves) == -(-len(payload) // 2**16)
    stream.seek(0)
    assert read_frame(stream) == ({"is": "\u00e9", "of": [1, None]}, payload)
    with pytest.raises(EOFError):
        read_frame(stream)


@pytest.mark.parametrize(
    "content",
    [
        b"Last login: Monday on tty1\n",
        b"\0\0\0\5" + b"\0" * 8 + b"[1,2]",
        b"\0\0\0\3" + b"\0" * 8 + b"{x}",
        b"\0\0\0\2" + b"\xff" * 8 + b"{}",
    ],
)
def test_what_is_no_frame_is_refused(content: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_frame(io.BytesIO(content))


# The meaning of a measurement


def recorded(
    names: str, config: LatencyConfig, rounds: Callable[..., Any]
) -> tuple[list[str], list[int]]:
    """Return the order of the passes, and the rounds after which there may be enough."""
    order: list[str] = []
    asked: list[int] = []

    def enough(walls: Mapping[str, list[float]]) -> bool:
        asked.append(len(walls["a"]))
        return len(asked) == 3

    rounds(names, config, order, enough)
    return order, asked


def local_rounds(names: str, config: LatencyConfig, order: list[str], enough: Any) -> None:
    def sample(name: str) -> Sample:
        order.append(name)
        return Sample(1.0, 1.0)

    timed = {name: partial(sample, name) for name in names}
    latency._rounds(timed, dict.fromkeys(names, 1), config, enough, None)


def agent_rounds(names: str, config: LatencyConfig, order: list[str], enough: Any) -> None:
    one = Agent(None, io.BytesIO())
    walls: dict[str, list[float]] = {name: [] for name in names}

    def answer(header: dict[str, Any], payload: bytes = b"") -> None:
        for name, (wall_ms, _) in header["samples"].items():
            walls[name].append(wall_ms)
        if header["asks"]:
            one._requests.put(({"enough": enough(walls)}, b""))

    one.answer = answer  # type: ignore[method-assign]
    passes = {name: partial(order.append, name) for name in names}
    one._rounds(passes, dict.fromkeys(names, (0, 1)), config.model_dump(mode="json"))


@pytest.mark.parametrize(
    "change",
    [{}, {"min_rounds": 2}, {"seed": 2**64 - 1}, {"max_rounds": 12}, {"max_rounds": 13}],
    ids=str,
)
def test_rounds_are_those_of_a_measurement_here(change: dict[str, int]) -> None:
    config = LatencyConfig(max_s=1e6).model_copy(update=change)
    here = recorded("abc", config, local_rounds)
    order, asked = recorded("abc", config, agent_rounds)
    assert order == here[0]
    # In the last round there is nothing to decide.
    assert asked == [done for done in here[1] if done < config.max_rounds]


@pytest.mark.parametrize("pass_ms", [0.0, 0.4, 3.3, 21.0, 500.0])
def test_samples_have_as_many_passes_as_here(pass_ms: float) -> None:
    config = LatencyConfig()
    assert agent.plan(pass_ms, config.model_dump()) == latency._plan(pass_ms, config)


@pytest.mark.parametrize(
    "times",
    [[1.0] * 99, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0] + [1.0] * 99, [1.0, 2.0] * 50, [4e3] * 9],
    ids=["steady", "falling", "alternating", "long"],
)
def test_warm_up_ends_as_here(times: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    config = LatencyConfig(warmup_window=3, max_warmup=20)
    taken = iter(times)
    monkeypatch.setattr(agent, "timed", lambda run, primings, repeats: (next(taken), 0.0))
    there = agent.warm_up(lambda: None, config.model_dump())
    fresh = iter(times)
    here = latency._warm_up(lambda: None, lambda run: Sample(next(fresh), 0.0), config)
    assert there == here


def test_a_sample_is_the_mean_of_the_passes_after_the_untimed_ones() -> None:
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter_ns", lambda: 1_000_000 * len(calls))
        patch.setattr("time.thread_time_ns", lambda: 500_000 * len(calls))
        assert agent.timed(lambda: calls.append(1), 3, 4) == (1.0, 0.5)
    assert len(calls) == 7


# The machine


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_load_by_others_is_computed_as_here(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = iter([(0.0, 10.0, 1.0), (10.0, 16.0, 2.0)])
    monkeypatch.setattr(agent, "busy_s", lambda: next(spans))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    load = agent.load_since(agent.busy_s())
    assert load is not None
    assert (load["span_s"], load["others"], load["stolen"]) == (10.0, 0.15, 0.025)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
def test_busy_seconds_are_those_of_the_system() -> None:
    from profiling.load import _busy_s

    here, (_, others_s, stolen_s) = _busy_s(psutil.Process()), agent.busy_s()
    assert others_s == pytest.approx(here[0], abs=5.0)
    assert stolen_s == pytest.approx(here[1], abs=5.0)


def board(folder: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> None:
    """Make the agent read these files instead of the system's."""
    monkeypatch.setattr(agent, "_text", lambda path: files.get(str(path), "").strip())


CPUFREQ = "/sys/devices/system/cpu/cpu0/cpufreq"


def test_facts_of_an_arm_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\nModel\t: Raspberry\n",
        "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "/proc/meminfo": "MemTotal:        8256000 kB\nMemFree: 1 kB\n",
        f"{CPUFREQ}/scaling_cur_freq": "1500000",
        f"{CPUFREQ}/scaling_max_freq": "2400000",
        f"{CPUFREQ}/scaling_governor": "ondemand\n",
    }
    board(tmp_path, monkeypatch, files)
    facts = agent.facts()
    assert facts["processor"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts["memory_kib"] == 8256000
    assert (facts["governor"], facts["clock_mhz"], facts["max_clock_mhz"]) == (
        "ondemand",
        1500.0,
        2400.0,
    )


@pytest.mark.parametrize("tree", ["", "linux,dummy-virt\0"])
def test_processor_of_another_machine(
    tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = "processor\t: 0\nmodel name\t: Example: CPU\ncpu MHz\t\t: 2599.998\n"
    board(tmp_path, monkeypatch, {"/proc/cpuinfo": cpuinfo, "/proc/device-tree/model": tree})
    facts = agent.facts()
    assert facts["processor"] == "Example: CPU"
    assert (facts["clock_mhz"], facts["max_clock_mhz"]) == (2599.998, None)


# The lane


def test_agent_and_measurements_here_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lanes"
    monkeypatch.setenv("NAS_LANE_DIR", str(folder))
    with agent.lane(pytest.fail):
        assert folder.stat().st_mode & 0o7777 == 0o1777
        for part in ("door", "room"):
            assert (folder / f"cpu.{part}").stat().st_mode & 0o777 == 0o444
            with (folder / f"cpu.{part}").open("rb") as file:
                assert not try_lock(file, shared=True)
    other = Lane("cpu", folder).measuring()
    other.__enter__()
    waited = []

    def waiting() -> None:
        waited.append(1)
        other.__exit__(None, None, None)

    with agent.lane(waiting):
        assert waited == [1]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_not_locked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_LANE_DIR", str(tmp_path))
    path = tmp_path / "cpu.door"
    if kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        os.mkfifo(path)
    with pytest.raises(OSError, match=r"cpu\.door"), agent.lane(pytest.fail):
        pass


# The end


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that has started, and that ends when nothing has arrived for half a second."""
    monkeypatch.setenv("NAS_LANE_DIR", str(tmp_path / "lanes"))
    command = [sys.executable, str(SOURCE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.read(len(agent.START)) == agent.START
        request(started, do="hello", silence_s=0.5)
        assert read_frame(started.stdout)[0]["is"] == "hello"
        yield started
        started.kill()


def request(process: subprocess.Popen[bytes], **header: Any) -> None:
    assert process.stdin is not None
    write_frame(process.stdin, header)


def measure_without_end(process: subprocess.Popen[bytes]) -> None:
    config = QUICK.model_copy(update={"min_rounds": 10**9, "max_rounds": 10**9, "max_s": 1e9})
    request(
        process, do="measure", models={}, batches=[], config=json.loads(config.model_dump_json())
    )
    assert process.stdout is not None
    assert read_frame(process.stdout)[0]["is"] == "warm"


def assert_lane_is_free(folder: Path) -> None:
    for part in ("door", "room"):
        with (folder / f"cpu.{part}").open("rb") as file:
            assert try_lock(file)


@WATCHED
def test_agent_ends_in_a_measurement_when_nothing_arrives(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    measure_without_end(process)
    assert process.stdout is not None
    while process.stdout.read(2**16):
        pass  # nothing is sent to it meanwhile
    assert process.wait(20) == -signal.SIGALRM
    assert_lane_is_free(tmp_path / "lanes")


def test_agent_ends_in_a_measurement_when_the_connection_is_closed(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    measure_without_end(process)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 0
    assert_lane_is_free(tmp_path / "lanes")


def test_agent_ends_while_it_waits_for_the_lane(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with Lane("cpu", tmp_path / "lanes").measuring():
        config = json.loads(QUICK.model_dump_json())
        request(process, do="measure", models={}, batches=[], config=config)
        assert process.stdout is not None
        assert read_frame(process.stdout)[0] == {"is": "waiting"}
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
