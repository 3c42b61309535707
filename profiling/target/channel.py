"""One ssh process with an agent at its other end, and the frames between them."""

from __future__ import annotations

import hashlib
import queue
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from profiling.target import agent
from profiling.target.addresses import Address
from profiling.target.agent import Frame, Header, read_frame, write_frame
from profiling.target.errors import (
    REFUSED,
    ModelRefusedError,
    TargetError,
    TargetLostError,
    fault,
    lost,
)

BEAT_S = 5.0
"""Seconds between two heartbeats."""

_BEGIN = (
    "import sys;"
    f'sys.version_info<(3,8) and sys.exit("{REFUSED}"+sys.version.split()[0]);'
    "sys.path[:]=[p for p in sys.path if p];"  # modules in the home folder must not be imported
    "s=sys.stdin.buffer;exec(s.read(int(s.readline())))"
)
"""Program that reads the agent's source, so that no file is written; quotable in every shell."""

_OPTIONS = {
    "BatchMode": "yes",  # no question that nobody would answer
    "ClearAllForwardings": "yes",
    "ControlMaster": "no",  # its process would outlive this one
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "LogLevel": "INFO",  # faults are recognised by what ssh prints
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
_MOST_GREETING = 2**16
_MOST_LINES = 50
_PATIENCE_S = 5.0


def ssh_command(address: Address, command: str) -> list[str]:
    """Return the command line that runs a command on a target.

    Raises:
        TargetError: OpenSSH is not installed.
    """
    program = shutil.which("ssh")
    if program is None:
        raise TargetError(
            f"{address.name}: ssh is not installed here (Debian: sudo apt install openssh-client)"
        )
    options = [word for key, value in _OPTIONS.items() for word in ("-o", f"{key}={value}")]
    return [program, "-T", "-x", "-a", *options, *address.where, command]


class Channel:
    """A connection to an agent.

    Both sides end the connection when nothing has arrived for `silence_s`: this side ends ssh, the
    agent itself. Heartbeats flow all the time.

    Args:
        address: The target.
        known: Whether an earlier connection of this run succeeded.
        silence_s: Seconds.

    Attributes:
        name: Name of the target.

    Raises:
        TargetError: the target cannot be reached or has no suitable Python, or ssh is missing.
    """

    def __init__(
        self, address: Address, known: bool = False, silence_s: float = agent.SILENCE_S
    ) -> None:
        self._address, self._known, self._silence_s = address, known, silence_s
        self.name = address.name
        self._ssh = subprocess.Popen(
            ssh_command(address, f"exec {address.python} -c '{_BEGIN}'"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for this process, not for ssh
        )
        self._printed: deque[str] = deque(maxlen=_MOST_LINES)
        self._answers: queue.Queue[Frame | Exception] = queue.Queue()
        self._writing, self._ended = threading.Lock(), threading.Event()
        self._started = self._silent = False
        self._kept: set[str] = set()
        self._moved()
        works = self._read_errors, self._read_answers, self._beat, self._watch
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()
        try:
            self._start_agent()
        except BaseException:
            self.close()
            raise

    def call(self, header: Header, payload: bytes = b"") -> Frame:
        """Send a request and return the first answer.

        Raises:
            TargetLostError: the connection broke.
            TargetError: the agent answered with an error.
        """
        self.send(header, payload)
        return self.receive()

    def keep(self, models: Mapping[str, bytes], drop: bool = True) -> dict[str, str]:
        """Make sure that the agent has these models.

        Args:
            models: Name -> content of an ONNX file; equal contents are sent once.
            drop: Whether the agent drops all others when it gets a new one.

        Returns:
            Name -> digest, by which requests name a model.
        """
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in models.items()}
        for name, digest in digests.items():
            if digest not in self._kept:
                keep = [*digests.values(), *(() if drop else self._kept)]
                self.send({"do": "keep", "digest": digest, "keep": keep}, models[name])
                self._kept = self._kept.intersection(keep) | {digest}
        return digests

    def send(self, header: Header, payload: bytes = b"") -> None:
        """Send a request.

        Raises:
            TargetLostError: the connection broke.
        """
        try:
            with self._writing:
                write_frame(self._stdin, header, payload, self._moved)
        except (OSError, ValueError) as error:
            raise self._fault(error) from None

    def receive(self) -> Frame:
        """Return the next answer.

        Raises:
            TargetLostError: the connection broke.
            ModelRefusedError: it says that a model cannot be run.
            TargetError: it is another error.
        """
        found = self._answers.get()
        if isinstance(found, Exception):
            self._answers.put(found)
            raise self._fault(found)
        header, payload = found
        if header.get("is") == "error":
            kind = ModelRefusedError if header.get("of_model") else TargetError
            raise kind(f"{self.name}: {header.get('text')}")
        return header, payload

    def close(self) -> None:
        """End the connection, and with it the agent."""
        self._ended.set()
        self._end_ssh()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        for stream in (self._ssh.stdin, self._ssh.stdout, self._ssh.stderr):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._ssh.stdin is not None
        return self._ssh.stdin

    def _start_agent(self) -> None:
        """Send the agent's source, and wait until it runs."""
        source = Path(agent.__file__).read_bytes()
        try:
            with self._writing:
                self._stdin.write(b"%d\n" % len(source) + source)
                self._stdin.flush()
        except OSError as error:
            raise self._fault(error) from None
        self.receive()
        self._started = True
        self._printed.clear()

    def _read_answers(self) -> None:
        """Queue the answers, first an empty one when the agent has started."""
        stream = self._ssh.stdout
        assert stream is not None
        try:
            self._skip_greeting(stream)
            self._answers.put(({}, b""))
            while True:
                header, payload = read_frame(stream, self._moved)
                if header.get("is") != "beat":
                    self._answers.put((header, payload))
        except Exception as error:  # what arrives may be anything
            self._answers.put(error)

    def _skip_greeting(self, stream: Any) -> None:
        """Read what the login shell printed before the frames."""
        greeting = b""
        while not greeting.endswith(agent.START):
            byte = stream.read(1)
            if not byte:
                raise EOFError
            greeting += byte
            if len(greeting) > _MOST_GREETING:
                raise ValueError("the login shell printed too much")

    def _read_errors(self) -> None:
        assert self._ssh.stderr is not None
        for line in self._ssh.stderr:
            self._printed.append(line.decode(errors="replace").rstrip())

    def _beat(self) -> None:
        """Send heartbeats, except while a request is being sent."""
        while not self._ended.wait(min(BEAT_S, self._silence_s / 4)):
            if self._writing.acquire(blocking=False):
                try:
                    write_frame(self._stdin, {"do": "beat"})
                except (OSError, ValueError):
                    return
                finally:
                    self._writing.release()

    def _watch(self) -> None:
        """End ssh when nothing arrives: it does not notice an agent that stands still."""
        while not self._ended.wait(self._silence_s / 20):
            if time.monotonic() - self._last > self._silence_s:
                self._silent = True
                self._ssh.kill()
                return

    def _moved(self) -> None:
        self._last = time.monotonic()

    def _fault(self, error: Exception) -> TargetError:
        """Return why the connection cannot be used any longer."""
        if not isinstance(error, OSError | EOFError) and not self._ended.is_set():
            return TargetError(
                f"{self.name}: what arrives from there is not of the agent ({error})"
            )
        with suppress(subprocess.TimeoutExpired):
            self._ssh.wait(_PATIENCE_S)
        code = self._end_ssh()
        self._threads[0].join(_PATIENCE_S)
        printed = list(self._printed)
        if self._silent:
            return TargetLostError(f"{self.name}: has not answered for {self._silence_s:.0f} s")
        if not self._started:
            return fault(self._address, code, printed, self._known)
        return lost(self._address, code, printed)

    def _end_ssh(self) -> int:
        self._ssh.terminate()
        try:
            return self._ssh.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            return self._ssh.wait()
