"""The user's list of targets: how ssh reaches each, and its Python interpreter."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from profiling.errors import ProfilingError
from profiling.files import write_whole
from profiling.locks import lock, open_lock

_FILE = "targets.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_HOST = re.compile(r"([A-Za-z0-9_][\w.+-]{0,63}@)?[A-Za-z0-9_:\[][\w.:%\]-]{0,252}", re.ASCII)
_PYTHON = re.compile(r"[A-Za-z0-9_./~][\w./+~-]{0,254}", re.ASCII)
_OPTION = re.compile(r"[A-Za-z0-9]{1,40}=[ -~]{1,400}")


def _matching(pattern: re.Pattern[str], rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def _host_alone(text: str) -> str:
    host, _, port = text.rpartition(":")
    if port.isdecimal() and host and ":" not in host:
        raise ValueError(f"should be a host without its port (--host {host} --port {port})")
    return text


class Address(BaseModel):
    """How a target is reached. Everything else is up to the user's ssh configuration.

    Attributes:
        name: Name of the target.
        host: HOST or USER@HOST, or a name of the ssh configuration.
        port: Port of its ssh server; None leaves it to the ssh configuration.
        python: Interpreter on the target, a name or a path.
        ssh_options: Further options of ssh, each as KEY=VALUE.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[
        str,
        _matching(
            _NAME, "should be up to 40 letters, digits, '.', '_' and '-', a letter or digit first"
        ),
    ]
    host: Annotated[
        str,
        _matching(_HOST, "should be HOST or USER@HOST, without spaces and special characters"),
        AfterValidator(_host_alone),
    ]
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = None
    python: Annotated[
        str,
        _matching(_PYTHON, "should be a name or a path, without spaces and special characters"),
    ] = "python3"
    ssh_options: tuple[
        Annotated[str, _matching(_OPTION, "should be KEY=VALUE, as in ProxyJump=gate")], ...
    ] = ()

    @property
    def where(self) -> tuple[str, ...]:
        """Return the arguments of ssh that lead to the target."""
        port = () if self.port is None else ("-p", str(self.port))
        options = (word for option in self.ssh_options for word in ("-o", option))
        return *port, *options, self.host


def config_folder() -> Path:
    """Return the folder of the user's settings.

    It is `$NAS_CONFIG_DIR`, else `$XDG_CONFIG_HOME/nas`, else `~/.config/nas`.

    Raises:
        ProfilingError: it is in the home folder, and the user has none.
    """
    if chosen := os.environ.get("NAS_CONFIG_DIR"):
        return Path(chosen)
    # The specification of XDG says to ignore relative paths.
    shared = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        return (shared if shared.is_absolute() else Path.home() / ".config") / "nas"
    except RuntimeError:
        raise ProfilingError("targets: there is no home folder; set NAS_CONFIG_DIR") from None


def read_addresses() -> dict[str, Address]:
    """Return the listed targets by name, in alphabetical order.

    Raises:
        ProfilingError: the list cannot be read, or it is damaged.
    """
    path = config_folder() / _FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["targets"]
        found = [Address.model_validate({**entry, "name": name}) for name, entry in entries.items()]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ProfilingError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise ProfilingError(f"{path}: {_fault(error)}; correct it") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ProfilingError(f"{path}: is no list of targets; correct or remove it") from None
    return {address.name: address for address in sorted(found, key=lambda one: one.name)}


def find_address(name: str) -> Address:
    """Return a listed target.

    Raises:
        ProfilingError: there is none of this name; the message has the nearest one.
    """
    known = read_addresses()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    listed = f"the list has {', '.join(known)}" if known else "the list is empty"
    raise ProfilingError(
        f"target {name[:80]!r} is not known{hint}: {listed}; nas target add adds one"
    )


def make_address(
    name: str, host: str, port: int | None, python: str, options: tuple[str, ...]
) -> Address:
    """Return a validated target.

    Raises:
        ProfilingError: a value is not valid.
    """
    try:
        return Address(name=name, host=host, port=port, python=python, ssh_options=options)
    except ValidationError as error:
        raise ProfilingError(f"target: {_fault(error)}") from None


def add_address(address: Address) -> None:
    """Add a target to the list.

    Raises:
        ProfilingError: another one has this name, or the list cannot be written.
    """
    with _changing() as known:
        before = known.get(address.name, address)
        if before != address:
            raise ProfilingError(
                f"target {address.name!r} is listed already, with other settings (host "
                f"{before.host}): nas target remove {address.name} removes it"
            )
        known[address.name] = address


def remove_address(name: str) -> None:
    """Remove a target from the list.

    Raises:
        ProfilingError: it is not listed, or the list cannot be written.
    """
    find_address(name)
    with _changing() as known:
        known.pop(name, None)


@contextmanager
def _changing() -> Iterator[dict[str, Address]]:
    """Yield the list, and write it after the body; others wait meanwhile."""
    folder = config_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_lock(folder / "targets.lock") as file:
            lock(file)
            known = read_addresses()
            before = dict(known)
            yield known
            if known != before:
                write_whole(folder / _FILE, _written(known))
    except OSError as error:
        raise ProfilingError(
            f"{folder / _FILE}: cannot be written ({error.strerror}); set NAS_CONFIG_DIR to "
            "another folder"
        ) from None


def _written(known: dict[str, Address]) -> bytes:
    entries = {
        name: address.model_dump(mode="json", exclude={"name"}) for name, address in known.items()
    }
    return (json.dumps({"format": 1, "targets": entries}, indent=2) + "\n").encode()


def _fault(error: ValidationError) -> str:
    first = error.errors()[0]
    key, value = ".".join(map(str, first["loc"])), repr(first["input"])[:80]
    known = {"missing": "missing", "extra_forbidden": "unknown key"}
    reason = first["msg"].removeprefix("Value error, ")
    return f"{key}: {known.get(first['type']) or f'{reason}, got {value}'}"
