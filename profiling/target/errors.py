"""The faults of a measurement on a target, and how they follow from what ssh prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiling.errors import ProfilingError

if TYPE_CHECKING:
    from profiling.target.addresses import Address

REFUSED = "nas agent: Python "
"""Precedes the version of an interpreter that is too old; see `channel.BEGIN`."""


class TargetError(ProfilingError):
    """A target cannot be used, and waiting will not change this."""


class TargetChangedError(TargetError):
    """A target is no longer as it was when the run began: latencies cannot be compared."""


class ModelRefusedError(TargetError):
    """A target cannot run a model; it can run others."""


class TargetLostError(TargetError):
    """A target cannot be reached, or the connection broke. The caller may try again."""


_PASSING = (
    r"connection (refused|timed out|reset|closed|to .* (closed|timed out))",
    r"operation timed out|no route to host|(network|host) is (unreachable|down)",
    r"timeout, server .* not responding|broken pipe|disconnect",
    r"stdio forwarding failed|kex_exchange_identification|temporary failure in name resolution",
)
"""What ssh prints while a machine is off, starts, or has lost its network."""


def fault(address: Address, code: int, printed: Sequence[str], known: bool) -> TargetError:
    """Return the fault for which a connection ended before the agent was running.

    Args:
        address: The target.
        code: Exit code of ssh: that of the remote command, or 255 for a fault of ssh itself.
        printed: Lines that ssh and the remote shell printed.
        known: Whether an earlier connection of this run succeeded. Then any fault of the network
            is taken for a passing one.
    """
    if code == 255:
        return _fault_of_ssh(address, printed, known)
    name, python = address.name, address.python
    text, last = "\n".join(printed), _last(printed)
    if REFUSED in text:
        version = text.partition(REFUSED)[2].split()[0]
        return TargetError(
            f"{name}: {python} there is Python {version}, 3.8 or newer is needed: name another "
            "interpreter with --python"
        )
    if code in (126, 127):
        return TargetError(
            f"{name}: {python} cannot be run there ({last}): install it (Debian: sudo apt install "
            "python3 python3-venv), or name another interpreter with --python"
        )
    return TargetError(f"{name}: {python} did not start there (exit code {code}): {last}")


def lost(address: Address, code: int, printed: Sequence[str]) -> TargetLostError:
    """Return the fault for which the connection to a running agent ended.

    Args:
        address: The target.
        code: Exit code of ssh; negative if a signal ended it.
        printed: Lines that ssh and the agent printed.
    """
    reason = _last(printed) if printed else "the agent or its connection was ended"
    if code < 0:
        reason = "ssh was ended"
    return TargetLostError(f"{address.name}: the connection was lost ({reason})")


def _fault_of_ssh(address: Address, printed: Sequence[str], known: bool) -> TargetError:
    name, by_hand = address.name, shlex.join(["ssh", *address.where])
    text, last = "\n".join(printed).lower(), _last(printed)
    if "identification has changed" in text:
        forget = shlex.join(["ssh-keygen", "-R", _known(address)])
        return TargetError(
            f"{name}: the host key of {address.host} has changed. Only if you know why (it was "
            f"installed anew), forget the old key with: {forget}"
        )
    if "host key verification failed" in text:
        return TargetError(
            f"{name}: the host key of {address.host} is not known yet; connect once by hand, "
            f"compare and accept it: {by_hand}"
        )
    if "permission denied (" in text or "too many authentication failures" in text:
        copy = shlex.join(["ssh-copy-id", *address.where])
        return TargetError(
            f"{name}: {address.host} does not accept the login ({last}): it must work without a "
            f"password, by a key or an agent: {copy}"
        )
    passing = known or any(re.search(pattern, text) for pattern in _PASSING)
    if "could not resolve hostname" in text and not passing:
        return TargetError(
            f"{name}: {address.host} is not a known host ({last}); correct it with nas target "
            f"remove {name}, then nas target add"
        )
    kind = TargetLostError if passing else TargetError
    return kind(f"{name}: no connection ({last}); try it by hand: {by_hand}")


def _known(address: Address) -> str:
    """Return a host as the file of known hosts names it."""
    host = address.host.rpartition("@")[2]
    return host if address.port in (None, 22) else f"[{host}]:{address.port}"


def _last(printed: Sequence[str]) -> str:
    lines = [line.strip() for line in printed if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason was printed"
