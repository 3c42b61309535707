"""Cores and memory that a process may use, in made-up trees of /proc and /sys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from profiling import resources
from profiling.resources import available_memory_bytes, cores, logical_cpus

GB = 10**9
VERSION_2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
VERSION_1 = (
    "25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "26 24 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "27 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
)


class Machine:
    """A machine of 16 logical CPUs on 8 cores with 64 GB, whose files are in a folder."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._root, self._patch = root, patch
        patch.setattr(resources, "_ROOT", root)
        patch.setattr(os, "cpu_count", lambda: 16)
        patch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GB))
        self.allow(range(16))
        for cpu in range(16):
            folder = f"sys/devices/system/cpu/cpu{cpu}/topology"
            self.write({f"{folder}/thread_siblings_list": f"{cpu % 8},{cpu % 8 + 8}"})

    def allow(self, cpus: range) -> None:
        self._patch.setattr(psutil.Process, "cpu_affinity", lambda _: list(cpus), raising=False)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self._root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    def grouped(self, mounts: str, membership: str, files: Mapping[str, str]) -> None:
        self.write({"proc/self/mountinfo": mounts, "proc/self/cgroup": membership})
        self.write({f"sys/fs/cgroup/{name}": text for name, text in files.items()})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_machine_without_limits(machine: Machine) -> None:
    assert (logical_cpus(), cores(), available_memory_bytes()) == (16, 8, 64 * GB)


def test_two_threads_of_one_core_are_one_core(machine: Machine) -> None:
    machine.allow(range(0, 16, 8))
    assert (logical_cpus(), cores()) == (2, 1)
    machine.allow(range(6))
    assert (logical_cpus(), cores()) == (6, 6)


@pytest.mark.parametrize(
    ("quota", "allowed"), [("max 100000", 8), ("400000 100000", 4), ("50000 100000", 1),
                           ("250000 100000", 2), ("9999999 100000", 8)],
)  # fmt: skip
def test_a_quota_of_version_2(machine: Machine, quota: str, allowed: int) -> None:
    machine.grouped(VERSION_2, "0::/", {"cpu.max": quota})
    assert cores() == allowed


def test_the_least_quota_of_all_groups_above_counts(machine: Machine) -> None:
    quotas = {
        "user.slice/cpu.max": "300000 100000",
        "user.slice/user-7.slice/cpu.max": "700000 100000",
        "user.slice/user-7.slice/job.scope/cpu.max": "max 100000",
        "user.slice/another.slice/cpu.max": "100000 100000",
    }
    machine.grouped(VERSION_2, "0::/user.slice/user-7.slice/job.scope", quotas)
    assert (logical_cpus(), cores()) == (3, 3)


def test_quotas_of_version_1(machine: Machine) -> None:
    membership = "4:memory:/\n2:cpu,cpuacct:/slurm/job\n1:name=systemd:/user\n0::/"
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/slurm/cpu.cfs_quota_us": "100000",
        "cpu,cpuacct/slurm/cpu.cfs_period_us": "50000",
        "cpu,cpuacct/slurm/job/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/slurm/job/cpu.cfs_period_us": "100000",
    }
    machine.grouped(VERSION_1, membership, files)
    assert cores() == 2


def test_a_container_sees_its_own_group_at_the_mount(machine: Machine) -> None:
    mounts = VERSION_1.replace("0:22 / ", "0:22 /docker/4f ")
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    for path in ("/docker/4f", "/system/docker/4f", "/"):  # the last two: another name space
        machine.grouped(mounts, f"2:cpu,cpuacct:{path}", files)
        assert cores() == 3


def test_memory_of_version_2_counts_cached_files_as_free(machine: Machine) -> None:
    files = {
        "memory.max": "max",
        "memory.current": str(40 * GB),
        "memory.stat": f"anon {5 * GB}",
        "pod/memory.max": str(12 * GB),
        "pod/memory.high": str(11 * GB),
        "pod/memory.current": str(10 * GB),
        "pod/memory.stat": f"anon {4 * GB}\nfile {6 * GB}\ninactive_file {5 * GB}",
    }
    machine.grouped(VERSION_2, "0::/pod/container", files)
    assert available_memory_bytes() == 6 * GB
    machine.write({"sys/fs/cgroup/pod/memory.current": str(30 * GB)})
    assert available_memory_bytes() == 0


def test_memory_of_version_1(machine: Machine) -> None:
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.usage_in_bytes": str(50 * GB),
        "memory/box/memory.limit_in_bytes": str(8 * GB),
        "memory/box/memory.usage_in_bytes": str(7 * GB),
        "memory/box/memory.stat": f"inactive_file {GB}\ntotal_inactive_file {3 * GB}",
    }
    machine.grouped(VERSION_1, "4:memory:/box", files)
    assert available_memory_bytes() == 4 * GB


@pytest.mark.parametrize("text", ["", "garbage", "max", "100000", "1e5 100000", "5 0", "-5 100000"])
def test_unreadable_quotas_limit_nothing(machine: Machine, text: str) -> None:
    machine.grouped(VERSION_2, "0::/", {"cpu.max": text, "memory.max": text})
    assert (cores(), available_memory_bytes()) == (8, 64 * GB)


def test_without_topology_logical_cpus_are_counted(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_ROOT", tmp_path / "nowhere")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert (logical_cpus(), cores()) == (16, 16)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8)
    assert cores() == 8
    machine.allow(range(3))
    assert cores() == 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_the_affinity_of_this_process_counts() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert (logical_cpus(), cores()) == (1, 1)
    finally:
        os.sched_setaffinity(0, before)
