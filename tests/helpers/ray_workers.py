"""Workers of Ray that start at once: forked from servers that have imported what they need.

A raylet starts this file as a program in the place of Ray's own `setup_worker.py`. It asks a server
for a worker, which gets its arguments, environment, folder and streams, and lives as long. Workers
would each spend many seconds on imports otherwise.

Ray reads its environment when it is imported, and that of a worker names its raylet and its job. So
the first server has imported all but Ray, and forks one server for each such environment.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAM = os.path.abspath(__file__)  # noqa: PTH100  # what the program imports costs each worker
_ADDRESS = "NAS_TESTS_RAY_WORKERS"
_WITHOUT_RAY = ["pandas", "pyarrow.fs", "studies.run.evaluators", "torch._dynamo"]
_WITHOUT_RAY += ["tests.fakes.runs"]
_OF_RAY = ["ray.tune", "studies.on_ray.trial", "tests.fakes.ray"]
_DRAWS, _THREADS = 1000, 16
"""More random identities, and more threads that draw some, than one worker of the tests needs."""

_LENGTH = 8
"""Bytes of the length that precedes a request."""


def _ask() -> None:
    """Ask the server for a worker, and wait for its end."""
    request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[_ADDRESS])
        _send(server, request, [0, 1, 2])
        server.recv(1)


def _send(to: socket.socket, request: bytes, files: list[int]) -> None:
    socket.send_fds(to, [len(request).to_bytes(_LENGTH, "big")], files)
    to.sendall(request)


def _received(source: socket.socket, count: int) -> tuple[bytes, list[int]]:
    """Return a request and `count` open files; no files if the other side has closed."""
    length, files, _, _ = socket.recv_fds(source, _LENGTH, count)
    request = bytearray()
    while len(request) < int.from_bytes(length, "big"):
        request += source.recv(int.from_bytes(length, "big") - len(request))
    return bytes(request), list(files)


@contextmanager
def forked_workers(folder: str) -> Iterator[None]:
    """Serve raylets that are started inside with `PROGRAM` as their `setup_worker_path`.

    Args:
        folder: A folder with a short path, for the socket.
    """
    import subprocess
    from pathlib import Path

    import pytest

    command = [sys.executable, "-c", "from tests.helpers.ray_workers import serve; serve()"]
    place = Path(PROGRAM).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_ADDRESS, f"{folder}/workers")
        with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.read(1)  # it listens
            try:
                yield
            finally:
                server.kill()


def serve() -> None:
    """Pass each request on to the server of its environment."""
    _prepare(_WITHOUT_RAY)
    servers: dict[str, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.environ[_ADDRESS])
        listener.listen()
        os.write(1, b".")
        while True:
            program, _ = listener.accept()
            request, streams = _received(program, 3)
            environment = json.loads(request)[1]
            setting = str(sorted(one for one in environment.items() if one[0].startswith("RAY_")))
            if setting not in servers:
                servers[setting], theirs = socket.socketpair()
                if os.fork() == 0:
                    for one in (listener, program, *servers.values()):
                        one.close()
                    _serve_one(environment, theirs)
                theirs.close()
            files = [program.detach(), *streams]
            _send(servers[setting], request, files)
            _close(files)


def _serve_one(environment: dict[str, str], requests: socket.socket) -> None:
    """Fork the workers of one environment, until the other server ends."""
    _take(environment)
    _prepare(_OF_RAY)
    for number in itertools.count():
        request, files = _received(requests, 4)
        if not files:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            draw_apart(number)
            _be_the_worker(request, files)
        _close(files)


def draw_apart(number: int) -> None:
    """Let forked process `number` draw other identities of objects than those before it.

    Importing Ray draws random numbers, and all forks would go on from the same state. Two workers
    that begin at the same moment would then give one identity to two objects: one of them crashes,
    and its driver waits for it for ever. Each thread has a state of its own, from a common one.
    """
    import threading

    from ray import ObjectRef

    def draw(times: int) -> None:
        for _ in range(times):
            ObjectRef.from_random()

    draw(_DRAWS * number)
    for _ in range(_THREADS * number):
        thread = threading.Thread(target=draw, args=(1,))
        thread.start()
        thread.join()


def _be_the_worker(request: bytes, files: list[int]) -> None:
    import argparse
    import runpy
    import signal
    import threading

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    arguments, environment, folder = json.loads(request)
    _take(environment)
    os.chdir(folder)
    for number, stream in enumerate(files[1:]):
        os.dup2(stream, number)
    _close(files[1:])

    def end_with_the_program() -> None:
        os.read(files[0], 1)
        os._exit(1)

    threading.Thread(target=end_with_the_program, daemon=True).start()
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context")
    parser.add_argument("--language")
    _, sys.argv = parser.parse_known_args(arguments)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        os._exit(0)


def _prepare(names: list[str]) -> None:
    """Import modules; let children end without being asked how."""
    import gc
    import importlib
    import signal

    for name in names:
        importlib.import_module(name)
    gc.freeze()  # or the garbage collector of each worker would copy the pages of all objects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _take(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


if __name__ == "__main__":
    _ask()
