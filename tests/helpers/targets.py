"""Targets for tests: a fake `ssh` that runs the command here, a private ssh server, tiny models."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from benchmarks.postgres import free_port
from profiling.latency import LatencyConfig
from profiling.target.addresses import Address

HERE = Address(name="pi", host="nobody@pi", python=sys.executable)
QUICK = LatencyConfig(
    min_rounds=4,
    max_rounds=40,
    max_warmup=4,
    warmup_window=2,
    priming_ms=0,
    min_sample_ms=0,
)
WIDTH = 32
BATCHES = [(np.full((1, WIDTH), value, np.float32),) for value in (0.5, 1.0, 2.0)]

_SSH = """\
#!/bin/sh
for word; do :; done
{before}
exec sh -c "$word"
"""


def fake_ssh(folder: Path, patch: pytest.MonkeyPatch, before: str = "") -> None:
    """Put an `ssh` on the path that runs the remote command here, after other shell commands."""
    folder.mkdir(exist_ok=True)
    program = folder / "ssh"
    program.write_text(_SSH.format(before=before))
    program.chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("NAS_LANE_DIR", str(folder / "lanes"))


def refusing(text: str, code: int = 255) -> str:
    """Return shell commands with which `ssh` fails."""
    return f"cat >&2 <<'END'\n{text}\nEND\nexit {code}"


def fake_runtime(folder: Path, patch: pytest.MonkeyPatch, text: str) -> None:
    """Make the target import this text as onnxruntime."""
    (folder / "onnxruntime").mkdir(parents=True, exist_ok=True)
    (folder / "onnxruntime" / "__init__.py").write_text(text)
    patch.setenv("PYTHONPATH", str(folder))
    patch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # a second text may be as old and long


def small_model(layers: int = 1) -> bytes:
    """Return the ONNX file of `layers` products `(1, 32) @ (32, 32)`, each of which doubles."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make = onnx.helper
    weight = onnx.numpy_helper.from_array(2 * np.eye(WIDTH, dtype=np.float32), "weight")
    nodes = [
        make.make_node("MatMul", [f"x{index}", "weight"], [f"x{index + 1}"])
        for index in range(layers)
    ]
    ends = [
        make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, WIDTH])
        for name in ("x0", f"x{layers}")
    ]
    graph = make.make_graph(nodes, "small", ends[:1], ends[1:], [weight])
    opset = [make.make_opsetid("", 20)]
    content: bytes = make.make_model(graph, ir_version=10, opset_imports=opset).SerializeToString()
    return content


def doubled(array: npt.NDArray[np.float32], layers: int) -> npt.NDArray[np.float32]:
    """Return the output of `small_model`."""
    return array * np.float32(2**layers)


def agents(lanes: Path | None = None) -> list[psutil.Process]:
    """Return the running agents whose lane is in a folder, by default that of this process."""
    folder = str(lanes or os.environ["NAS_LANE_DIR"])
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if words[:2] == [sys.executable, "-c"] and "nas agent" in words[2]:
                found += [process] if process.environ().get("NAS_LANE_DIR") == folder else []
    return found


@dataclass(frozen=True)
class SshServer:
    """A private ssh server on this machine that lets this user in.

    Attributes:
        address: The target that it makes.
        process: The server.
        folder: Its files: keys, configuration, log.
    """

    address: Address
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def lanes(self) -> Path:
        """Return the folder of the measurement lane."""
        return self.folder / "lanes"

    def agents(self) -> list[psutil.Process]:
        """Return the agents that it has started."""
        return agents(self.lanes)

    def sessions(self) -> list[psutil.Process]:
        """Return the processes that serve connections."""
        return psutil.Process(self.process.pid).children()


@contextmanager
def ssh_server(
    folder: Path, host: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[SshServer]:
    """Start a private ssh server; skip the test where OpenSSH is not installed.

    Args:
        folder: An empty folder for its files.
        host: The address at which it listens.
        within: The begin of its command line, which says where it runs.
    """
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server: install Debian's `openssh-server`")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it refuses to start without
    port = free_port()
    for name in ("host_key", "user_key"):
        make_key(folder / name)
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[{host}]:{port} {public}")
    (folder / "sshd_config").write_text(_server_settings(folder, host, port))
    command = [*within, program, "-D", "-e", "-f", str(folder / "sshd_config")]
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait_for(folder / "log", b"listening")
            yield SshServer(_address(folder, host, port), process, folder)
        finally:
            for one in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    one.kill()
            process.kill()


def make_key(path: Path) -> None:
    """Write a new pair of keys."""
    for old in (path, path.with_name(f"{path.name}.pub")):
        old.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)


def _server_settings(folder: Path, host: str, port: int) -> str:
    settings = {
        "ListenAddress": host,
        "Port": port,
        "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "user_key.pub",
        "PidFile": "none",
        "StrictModes": "no",  # the folder is below /tmp
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "SetEnv": f"NAS_LANE_DIR={folder / 'lanes'}",
        "LogLevel": "INFO",
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())


def _address(folder: Path, host: str, port: int) -> Address:
    options = {
        "IdentityFile": folder / "user_key",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
    }
    return Address(
        name="pi",
        host=f"{getpass.getuser()}@{host}",
        port=port,
        python=sys.executable,
        ssh_options=tuple(f"{key}={value}" for key, value in options.items()),
    )


def _wait_for(log: Path, words: bytes, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while words not in log.read_bytes():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@dataclass(frozen=True)
class Cable:
    """A network between this system and a namespace, that is, between two virtual devices.

    Attributes:
        host: The address of the namespace.
        within: The begin of a command line that runs in the namespace.
    """

    host: str
    within: tuple[str, ...]
    device: str

    def pull(self) -> None:
        """Interrupt the network; nobody is told."""
        _ip("link", "set", self.device, "down")

    def plug(self) -> None:
        """Restore the network."""
        _ip("link", "set", self.device, "up")


@contextmanager
def cable() -> Iterator[Cable]:
    """Yield a network to a new namespace; skip the test where it cannot be made."""
    name, here, there = f"nas{os.getpid()}", f"nasa{os.getpid()}"[:15], f"nasb{os.getpid()}"[:15]
    if shutil.which("ip") is None or os.getuid() != 0:
        pytest.skip("no network namespaces: they need root and Debian's `iproute2`")
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr}")
    try:
        within = "ip", "netns", "exec", name
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("addr", "add", "198.51.100.1/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", name, "addr", "add", "198.51.100.2/30", "dev", there)
        _ip("-n", name, "link", "set", there, "up")
        yield Cable("198.51.100.2", within, here)
    finally:
        subprocess.run(["ip", "link", "del", here], check=False, capture_output=True)
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
