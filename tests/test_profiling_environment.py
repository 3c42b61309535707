"""The environment describes this process; settings are restored after use."""

from __future__ import annotations

import ctypes
import json
import platform

import pytest
import torch

from profiling import allocator
from profiling.environment import (
    Environment,
    differences,
    fingerprint,
    has_bfloat16,
    select_device,
    threads,
)
from profiling.errors import ProfilingError
from profiling.timing import timer_for


def test_fingerprint_survives_json_and_sees_the_thread_count() -> None:
    with threads(1):
        one = fingerprint()
    with threads(2):
        two = fingerprint("cpu")
    assert Environment.model_validate(json.loads(one.model_dump_json())) == one
    assert one.torch_version == torch.__version__
    assert differences(one, one) == []
    assert differences(one, two) == ["threads: 1 against 2"]


def test_threads_are_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with threads(before + 1):
            raise RuntimeError(f"stopped with {torch.get_num_threads()} threads")

    with pytest.raises(RuntimeError, match=f"with {before + 1} threads"):
        fail()
    assert torch.get_num_threads() == before
    with pytest.raises(ProfilingError, match="threads: 0"), threads(0):
        pass


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", ""])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ProfilingError, match="is not one of"):
        select_device(name)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)],
)
def test_processor_has_bfloat16_where_it_says_so(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_bfloat16(torch.device("cpu")) is expected
    assert not has_bfloat16(torch.device("meta"))


def test_select_device_follows_what_torch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert select_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto") == torch.device("cpu")
    with pytest.raises(ProfilingError, match="use device 'cpu'"):
        select_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert select_device("auto") == torch.device("cuda")
    assert select_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ProfilingError, match="'cuda:0' to 'cuda:1'"):
        select_device("cuda:2")


class FakeLibc:
    """Records what is asked of the C library, and accepts or refuses it."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.asked: dict[int, int] = {}

    def mallopt(self, parameter: int, value: int) -> int:
        self.asked[parameter] = value
        return self.answer


@pytest.mark.parametrize(("answer", "state"), [(1, "tuned"), (0, "default")])
def test_tuning_reports_whether_glibc_accepted(
    monkeypatch: pytest.MonkeyPatch, answer: int, state: str
) -> None:
    libc = FakeLibc(answer)
    monkeypatch.setattr(allocator, "_tuned", False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    for variable in ("LD_PRELOAD", *allocator._ENVIRONMENT):
        monkeypatch.delenv(variable, raising=False)
    assert allocator.tune_allocator() is bool(answer)
    assert allocator.allocator_state() == state
    # <malloc.h>: -1 M_TRIM_THRESHOLD, -2 M_TOP_PAD, -4 M_MMAP_MAX (0: never mmap a block).
    assert set(libc.asked) == {-1, -2, -4}
    assert libc.asked[-4] == 0


def test_tuning_does_nothing_off_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_tuned", False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocator.tune_allocator() is False


@pytest.mark.parametrize(
    ("variable", "value", "state"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000000000", "environment"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2", "preloaded"),
    ],
)
def test_state_sees_the_process_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, state: str
) -> None:
    monkeypatch.setattr(allocator, "_tuned", False)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setenv(variable, value)
    assert allocator.allocator_state() == state


def test_the_gpu_of_an_apple_processor_is_used_only_where_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ProfilingError, match=r"'mps' asked for, .* finds no GPU of an Apple"):
        select_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device("mps") == torch.device("mps")
    assert select_device("auto") == torch.device("cpu")
    with pytest.raises(ProfilingError, match="'mps:0' is not one of"):
        select_device("mps:0")
    assert fingerprint("mps").device_name == f"GPU of {fingerprint().cpu_model}"
    assert fingerprint("mps").cuda is None


def test_the_timer_of_mps_waits_for_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            steps.append("event")

        def elapsed_time(self, end: Event) -> float:
            return 2.5

    monkeypatch.setattr(torch.mps, "Event", Event, raising=False)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: steps.append("wait"))
    sample = timer_for(torch.device("mps"))(lambda: steps.append("run"))
    assert steps == ["wait", "event", "run", "event", "wait"]
    assert sample.device_ms == 2.5
