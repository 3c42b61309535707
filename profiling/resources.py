"""The cores and the memory of a CPU that this process may use.

Three things limit the cores: the affinity of the process (`taskset`, Slurm, a cpuset), the quotas
of its control groups (containers, systemd), and the hardware. Memory is limited by what the machine
has free and by the limits of the control groups. A group is subject to the limits of every group
above it, so the least of them counts; both versions of control groups are read, as described in
the kernel's `Documentation/admin-guide/cgroup-v1` and `cgroup-v2.rst`. Systems without them have
their affinity and hardware alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_ROOT = Path("/")


def logical_cpus() -> int:
    """Return the number of logical CPUs that this process may use: at least 1."""
    return max(1, min(len(_affinity()), int(_quota())))


def cores() -> int:
    """Return the number of physical cores that this process may use: at least 1.

    Two hyper-threads share the arithmetic of one core. A quota of a fraction of a core is not
    counted, because a process that exceeds a quota is stopped for the rest of each period.
    """
    return max(1, min(len(_physical(_affinity())), int(_quota())))


def available_memory_bytes() -> int:
    """Return the bytes that this process may still allocate.

    Cached files that the kernel drops when memory is short (`inactive_file`) count as free.
    """
    free = [int(psutil.virtual_memory().available)]
    for group in _groups():
        free += _free_in(group)
    return max(0, min(free))


def _affinity() -> set[int]:
    allowed = getattr(psutil.Process(), "cpu_affinity", None)  # not on macOS
    return set(allowed()) if allowed else set(range(os.cpu_count() or 1))


def _physical(cpus: set[int]) -> set[str]:
    """Return one name for each physical core among logical CPUs."""
    topology = _ROOT / "sys/devices/system/cpu"
    siblings = {cpu: text_of(topology / f"cpu{cpu}/topology/thread_siblings_list") for cpu in cpus}
    if all(siblings.values()):
        return set(siblings.values())
    known = psutil.cpu_count(logical=False) or len(cpus)  # without affinity
    return {str(cpu) for cpu in sorted(cpus)[:known]}


def _quota() -> float:
    """Return the smallest quota of a control group, in CPUs; the hardware's number without one."""
    quotas = [float(os.cpu_count() or 1)]
    for group in _groups():
        words = (text_of(group / "cpu.max") or _version_1_quota(group)).split()
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas)


def _version_1_quota(group: Path) -> str:
    return f"{text_of(group / 'cpu.cfs_quota_us')} {text_of(group / 'cpu.cfs_period_us')}"


def _free_in(group: Path) -> Iterator[int]:
    """Yield what each limit of one control group leaves, in bytes."""
    used = text_of(group / "memory.current") or text_of(group / "memory.usage_in_bytes")
    if not used.isdigit():
        return
    lines = (line.partition(" ") for line in text_of(group / "memory.stat").splitlines())
    held = {name: int(value) for name, _, value in lines if value.isdigit()}
    cached = held.get("total_inactive_file", held.get("inactive_file", 0))
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        if (limit := text_of(group / name)).isdigit():
            yield int(limit) - max(0, int(used) - cached)


def _groups() -> Iterator[Path]:
    """Yield the folder of every control group that this process is in, and all groups above."""
    own = _memberships()
    for line in text_of(_ROOT / "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, options = system.partition(" ")[0], system.rpartition(" ")[2]
        names = {"cgroup": options.split(","), "cgroup2": [""]}.get(kind, [])
        paths = [own[name] for name in names if name in own]
        if paths:
            root, top = mount.split()[3:5]
            yield from _up_to(_ROOT / top.lstrip("/"), paths[0], PurePosixPath(root))


def _up_to(top: Path, own: PurePosixPath, root: PurePosixPath) -> Iterator[Path]:
    """Yield a group's folder and those above it; `root` is the group that is mounted at `top`."""
    yield top
    # A container that was given another group than its own as a mount sees that group alone.
    below = own.relative_to(root).parts if own.is_relative_to(root) else ()
    for part in below:
        top = top / part
        yield top


def _memberships() -> dict[str, PurePosixPath]:
    """Return the path of this process's group by controller; version 2 has the name ""."""
    found = {}
    for line in text_of(_ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), PurePosixPath(path)))
    return found


def text_of(path: Path) -> str:
    """Return the content of a file without surrounding spaces; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
