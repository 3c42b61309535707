"""Models are timed on a target, and what breaks meanwhile loses and mixes nothing.

A fake `ssh` runs the agent on this machine, as a process of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from profiling.errors import ProfilingError
from profiling.lane import Lane
from profiling.target import client
from profiling.target.client import Target, connect
from profiling.target.errors import TargetChangedError, TargetError, TargetLostError
from tests.helpers.targets import (
    BATCHES,
    HERE,
    QUICK,
    agents,
    doubled,
    fake_runtime,
    fake_ssh,
    refusing,
    small_model,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake ssh is a shell script")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(client, "PAUSES_S", (0.01,))


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def target(notes: list[str]) -> Iterator[Target]:
    with Target(HERE, notes.append) as found:
        yield found


def never(walls: Mapping[str, list[float]]) -> bool:
    return False


# A measurement


@pytest.mark.slow
def test_every_model_has_a_sample_in_every_round(target: Target) -> None:
    progress: list[tuple[int, int]] = []
    models = {"candidate": small_model(3), "reference": small_model(1), "twin": small_model(1)}
    config = QUICK.model_copy(update={"max_rounds": 7, "threads": 1})
    found = target.measure_latency(
        models, BATCHES, config, enough=never, progress=lambda *one: progress.append(one)
    )
    assert progress == [(done, 7) for done in range(1, 8)]
    assert list(found) == list(models)
    for name, one in found.items():
        assert len(one.samples) == 7
        assert all(sample.wall_ms > 0 and sample.device_ms is None for sample in one.samples)
        assert one.warmup_ms
        assert (one.subject.name, one.subject.backend) == (name, "onnxruntime")
        assert (one.subject.input_shapes, one.subject.dtype) == (((1, 32),), "float32")
        assert (one.subject.threads, one.subject.primings, one.subject.repeats) == (1, 1, 1)
        assert one.load is not None or not Path("/proc/stat").exists()


def test_rounds_end_when_the_caller_has_enough(target: Target) -> None:
    asked: list[int] = []

    def enough(walls: Mapping[str, list[float]]) -> bool:
        assert set(walls) == {"a", "b"}
        asked.append(len(walls["a"]))
        return len(asked) == 3

    models = {"a": small_model(), "b": small_model()}
    found = target.measure_latency(models, BATCHES, QUICK, enough=enough)
    assert asked == [4, 5, 7]
    assert [len(one.samples) for one in found.values()] == [7, 7]


def test_environment_is_that_of_the_target(target: Target) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    facts, environment = target.facts(), target.environment(threads=2)
    assert environment.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert (environment.torch_version, environment.threads) == ("", 2)
    assert environment.python == ".".join(map(str, sys.version_info[:3]))
    assert environment.cpu_model == facts.processor
    limited = facts.model_copy(update={"processor": "Board", "max_clock_mhz": 2400.0})
    assert limited.environment(1).device_name == "Board at 2400 MHz"
    found = target.measure_latency({"a": small_model()}, BATCHES, QUICK, enough=never)
    assert found["a"].environment == target.environment(1)


def test_outputs_are_those_of_the_model(target: Target) -> None:
    (array,) = BATCHES[0]
    (output,) = target.outputs(small_model(3), [array])
    np.testing.assert_array_equal(output, doubled(array, 3))
    assert output.dtype == np.float32


def test_a_model_is_sent_once(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    from profiling.target.channel import Channel

    sent: list[int] = []
    send = Channel.send

    def counting(channel: Channel, header: dict[str, object], payload: bytes = b"") -> None:
        if header["do"] == "keep":
            sent.append(len(payload))
        send(channel, header, payload)

    monkeypatch.setattr(Channel, "send", counting)
    one, two, three = (small_model(layers) for layers in (1, 2, 3))
    target.measure_latency({"a": one, "twin": one, "b": two}, BATCHES, QUICK)
    target.measure_latency({"a": one, "twin": one, "b": two}, BATCHES, QUICK)
    assert sent == [len(one), len(two)]
    target.measure_latency({"a": one, "b": three}, BATCHES, QUICK)
    target.measure_latency({"a": one, "b": two}, BATCHES, QUICK)  # it was dropped for the third
    assert sent == [len(one), len(two), len(three), len(two)]


def test_nothing_to_measure_is_refused(target: Target) -> None:
    for models, batches in (({}, BATCHES), ({"a": b""}, []), ({"a": b""}, [()])):
        with pytest.raises(ProfilingError, match="give at least one model, and one batch"):
            target.measure_latency(models, batches)
    assert agents() == []


def test_a_model_that_cannot_run_is_named_and_the_next_one_runs(target: Target) -> None:
    good = small_model()
    with pytest.raises(TargetError, match=r"^pi: .*'bad': .*(INVALID_PROTOBUF|Fail)"):
        target.measure_latency({"good": good, "bad": b"no model"}, BATCHES, QUICK)
    with pytest.raises(TargetError, match=r"'good': .*2 inputs are given, it has 1"):
        target.measure_latency({"good": good}, [(*BATCHES[0], *BATCHES[0])], QUICK)
    assert target.measure_latency({"good": good}, BATCHES, QUICK)["good"].samples


def test_a_target_without_models_tells_how_quiet_it_is(target: Target) -> None:
    found = target.quiet(0.2)
    assert len(found.samples) >= 2
    assert (found.subject.name, found.subject.backend) == ("matmul", "numpy")


# What may come between the frames


def test_greetings_and_prints_of_libraries_do_not_disturb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    greeting = "printf 'Welcome <nas agent>\\n\\0\\n'"
    fake_ssh(tmp_path / "bin", monkeypatch, f"{greeting}; {greeting} >&2")
    loud = "import os\nos.write(1, b'loud' * 99)\nprint('loud', flush=True)\n__version__ = '1.30'\n"
    fake_runtime(tmp_path / "site", monkeypatch, loud)
    assert target.facts().onnxruntime == "1.30"


def test_modules_in_the_home_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert target.facts().python


# Faults


def test_missing_packages_are_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    fake_runtime(tmp_path / "site", monkeypatch, "raise ImportError('libx.so: no such file')")
    with pytest.raises(TargetError) as raised:
        target.measure_latency({"a": b"x"}, BATCHES, QUICK)
    assert str(raised.value) == (
        "pi: onnxruntime is missing there (ImportError: libx.so: no such file); install with: ssh "
        f"nobody@pi '{sys.executable} -m pip install -U numpy onnxruntime'"
    )
    with pytest.raises(TargetError, match="onnxruntime is missing"):
        connect(HERE)
    assert target.quiet(0.1).samples
    target.close()
    assert agents() == []


def test_a_package_that_is_not_installed_needs_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    text = "raise ModuleNotFoundError('No module named x')"
    fake_runtime(tmp_path / "site", monkeypatch, text)
    with pytest.raises(TargetError, match=r"^pi: onnxruntime is missing there; install with: ssh "):
        target.outputs(b"", BATCHES[0])


def test_an_old_runtime_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    fake_runtime(tmp_path / "site", monkeypatch, "__version__ = '1.17.3'")
    with pytest.raises(
        TargetError, match=r"onnxruntime 1\.17\.3 there is too old, 1\.18 is needed"
    ):
        target.outputs(b"", BATCHES[0])


def test_an_interpreter_that_may_not_install_gets_another_one(target: Target) -> None:
    from profiling.target.requirements import installation

    managed = target.facts().model_copy(update={"managed": True})
    address = HERE.model_copy(update={"python": "python3", "port": 22})
    assert installation(address, managed) == (
        "ssh -p 22 nobody@pi 'python3 -m venv .nas-python && .nas-python/bin/pip install -U numpy "
        "onnxruntime' (then add the target with --python .nas-python/bin/python)"
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_measurement_begins_again_when_its_agent_is_killed(
    number: signal.Signals, target: Target, notes: list[str]
) -> None:
    progress: list[int] = []

    def kill_at_three(done: int, total: int) -> None:
        progress.append(done)
        if progress == [1, 2, 3]:  # after the fourth round the agent waits for an answer
            (agent,) = agents()
            agent.send_signal(number)

    config = QUICK.model_copy(update={"max_rounds": 5})
    found = target.measure_latency(
        {"a": small_model(), "b": small_model()}, BATCHES, config, enough=never,
        progress=kill_at_three,
    )  # fmt: skip
    assert progress[-5:] == [1, 2, 3, 4, 5]
    assert [len(one.samples) for one in found.values()] == [5, 5]
    assert notes == [
        "pi: the connection was lost (ssh was ended); waiting for it",
        "pi: is reached again",
    ]


def test_a_measurement_that_ends_every_agent_is_given_up(target: Target) -> None:
    def kill(done: int, total: int) -> None:
        for agent in agents():
            agent.kill()

    with pytest.raises(TargetError, match="given up after 5 times: the target may lack memory"):
        target.measure_latency(
            {"a": small_model()}, BATCHES, QUICK.model_copy(update={"max_s": 1e9}),
            enough=never, progress=kill,
        )  # fmt: skip


def unreachable(tmp_path: Path, times: int) -> str:
    """Return shell commands with which `ssh` fails the first times that it is called."""
    refusal = refusing("ssh: connect to host pi port 22: Connection refused")
    count = tmp_path / "calls"
    return f"echo >> {count}\nif [ $(wc -l < {count}) -le {times} ]; then\n{refusal}\nfi"


def test_a_target_that_is_off_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, notes: list[str]
) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch, unreachable(tmp_path, times=3))
    assert target.facts().cores
    reason = "pi: no connection (ssh: connect to host pi port 22: Connection refused)"
    assert notes == [
        f"{reason}; try it by hand: ssh nobody@pi; waiting for it",
        "pi: is reached again",
    ]


def test_pauses_grow_and_patience_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch, unreachable(tmp_path, times=99))
    monkeypatch.setattr(client, "PAUSES_S", (1.0, 2.0, 5.0))
    slept: list[float] = []
    monkeypatch.setattr(client, "sleep", slept.append)
    with Target(HERE, notes.append, patience_s=20) as target, pytest.raises(TargetLostError):
        target.facts()
    assert slept == [1.0, 2.0, 5.0, 5.0, 5.0]
    assert len(notes) == 1
    with pytest.raises(TargetLostError):
        connect(HERE)
    assert len(slept) == 5


def test_a_target_that_was_started_anew_is_used_and_noted(target: Target, notes: list[str]) -> None:
    target._facts = target.facts().model_copy(update={"boot": "another"})
    target.close()
    assert target.facts().cores
    assert notes == ["pi: was started anew meanwhile"]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"onnxruntime": "1.20.0"}, r"onnxruntime 1\.20\.0 -> "),
        ({"max_clock_mhz": 1500.0}, r"limit of the clock 1500\.0 -> "),
        ({"governor": "powersave"}, r"frequency policy powersave -> "),
        ({"processor": "Board"}, r"processor Board -> "),
        ({"machine": "0"}, r"it is another machine"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_target_that_has_changed_is_not_used(
    before: dict[str, object], words: str, target: Target
) -> None:
    target._facts = target.facts().model_copy(update=before)
    target.close()
    for _ in range(2):  # also when it is tried again
        with pytest.raises(TargetChangedError, match=f"pi: has changed .*{words}"):
            target.measure_latency({"a": small_model()}, BATCHES, QUICK)
    assert agents() == []


def test_a_busy_target_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = Lane("cpu", tmp_path / "bin" / "lanes").measuring()
    lane.__enter__()
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        lane.__exit__(None, None, None)

    with Target(HERE, note) as target:
        assert target.measure_latency({"a": small_model()}, BATCHES, QUICK)["a"].samples
    assert notes == ["pi: another measurement is running there; waiting for it"]


@pytest.mark.slow
def test_a_target_that_stands_still_is_given_up() -> None:
    def stop(done: int, total: int) -> None:
        for agent in agents():
            agent.suspend()

    config = QUICK.model_copy(update={"max_rounds": 10**6, "max_s": 1e9})
    with (
        Target(HERE, patience_s=0, silence_s=1.0) as target,
        pytest.raises(TargetLostError, match="pi: has not answered for 1 s"),
    ):
        target.measure_latency({"a": small_model()}, BATCHES, config, enough=never, progress=stop)
    for agent in agents():
        agent.kill()


@pytest.mark.slow
def test_an_idle_connection_is_kept_by_heartbeats(notes: list[str]) -> None:
    import time

    with Target(HERE, notes.append, silence_s=1.5) as target:
        (first,) = target.facts() and agents()
        time.sleep(4.0)
        assert target.measure_latency({"a": small_model()}, BATCHES, QUICK)["a"].samples
        assert agents() == [first]
    assert notes == []


def test_an_error_of_the_caller_leaves_nothing_behind(target: Target) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        target.measure_latency({"a": small_model()}, BATCHES, QUICK, progress=fail)
    assert agents() == []
    assert target.measure_latency({"a": small_model()}, BATCHES, QUICK)["a"].samples


# What is not of an agent


def answering(*frames: str) -> str:
    """Return shell commands that answer every request with the next of these frames."""
    code = (
        "import sys, time\n"
        "from profiling.target.agent import START, write_frame\n"
        "out = sys.stdout.buffer\n"
        "out.write(START)\n"
        f"for frame in ({', '.join(frames)},):\n"
        "    out.write(frame) if isinstance(frame, bytes) else write_frame(out, frame)\n"
        "out.flush(); sys.stdin.read()\n"
    )
    return f"exec {sys.executable} -c '{code}'"


HELLO = (
    '{"is": "hello", "facts": {"machine": "", "boot": "", "processor": "x", "cores": 1, '
    '"memory_kib": None, "system": "", "python": "3.8", "executable": "", "managed": False, '
    '"numpy": "1", "onnxruntime": "1.20", "missing": {}, "temperature_c": None, "governor": None, '
    '"clock_mhz": None, "max_clock_mhz": None}}'
)
WARM = '{"is": "warm", "warmups": {"a": [1.0]}, "plans": {"a": [1, 1]}}'


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (['b"nonsense" * 9'], r"what arrives from there is not of the agent \(not a frame\)"),
        (['{"is": "hello"}'], r"no answer of an agent \(: Input should be"),
        ([HELLO.replace('"cores": 1', '"cores": -1')], r"no answer of an agent \(cores: "),
        ([HELLO, '{"is": "warm"}'], r"no answer of an agent \(warmups: Field required"),
        ([HELLO, WARM.replace('"a"', '"b"')], r"\(it is about other models\)"),
        ([HELLO, WARM, '{"samples": {"a": [-1, 0]}, "asks": False}'], r"\(samples\.a\.0: "),
        ([HELLO, WARM, '{"samples": {"a": [1, 1], "b": [1, 1]}, "asks": False}'], "other models"),
        ([HELLO, WARM, '{"is": "done"}'], r"\(load: Field required\)"),
        ([HELLO, WARM, '{"is": "error", "text": "full"}'], "^pi: full$"),
    ],
    ids=lambda value: value[-1][:30] if isinstance(value, list) else "",
)
def test_other_answers_are_refused(
    frames: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    fake_ssh(tmp_path / "bin", monkeypatch, answering(*frames))
    with pytest.raises(TargetError, match=words) as raised:
        target.measure_latency({"a": b"x"}, BATCHES, QUICK)
    assert not isinstance(raised.value, TargetLostError)
    assert "\n" not in str(raised.value)
