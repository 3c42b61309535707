"""What a target must have, and the command that installs what it lacks."""

from __future__ import annotations

import re
import shlex

from profiling.target.addresses import Address
from profiling.target.answers import Facts
from profiling.target.errors import TargetError

OLDEST = (1, 18)
"""The first onnxruntime that reads the files of `profiling.onnx_export` (IR version 10)."""

_FOLDER = ".nas-python"


def require_packages(address: Address, facts: Facts, runtime: bool = True) -> None:
    """Check that a target has numpy, and onnxruntime if `runtime` is true.

    Raises:
        TargetError: it lacks one, or has an old one; the message has the command to install it.
    """
    faults = [fault for name, fault in lacking(facts).items() if runtime or name == "numpy"]
    if faults:
        raise TargetError(
            f"{address.name}: {'; '.join(faults)}; install with: {installation(address, facts)}"
        )


def lacking(facts: Facts) -> dict[str, str]:
    """Return package -> what is wrong with it, for the packages that a target lacks."""
    faults = {
        name: f"{name} is missing there" + (f" ({why})" if _damaged(why) else "")
        for name, why in facts.missing.items()
    }
    version = facts.onnxruntime
    if version is not None and _number(version) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        faults["onnxruntime"] = f"onnxruntime {version} there is too old, {needed} is needed"
    return faults


def installation(address: Address, facts: Facts) -> str:
    """Return a command that installs the packages on the target.

    Where the system keeps its interpreter from installing packages, another one is made.
    """
    packages = "install -U numpy onnxruntime"
    if not facts.managed:
        return shlex.join(["ssh", *address.where, f"{address.python} -m pip {packages}"])
    made = f"{address.python} -m venv {_FOLDER} && {_FOLDER}/bin/pip {packages}"
    command = shlex.join(["ssh", *address.where, made])
    return f"{command} (then add the target with --python {_FOLDER}/bin/python)"


def _damaged(why: str) -> bool:
    """Return whether a package is there, but cannot be imported."""
    return not why.startswith("ModuleNotFoundError")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
