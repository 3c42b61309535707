"""A target behind a private ssh server of this machine, with kills on both sides."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from profiling.locks import try_lock
from profiling.target import client
from profiling.target.client import Target, connect
from profiling.target.errors import TargetError, TargetLostError
from tests.helpers.targets import (
    BATCHES,
    HERE,
    QUICK,
    SshServer,
    cable,
    make_key,
    small_model,
    ssh_server,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the server runs on Unix"),
]

FIVE = QUICK.model_copy(update={"max_rounds": 5})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSES_S", (0.05,))


def never(walls: Mapping[str, list[float]]) -> bool:
    return False


def kill_agent(server: SshServer, ssh: int) -> None:
    (agent,) = server.agents()
    agent.kill()


def kill_ssh(server: SshServer, ssh: int) -> None:
    os.kill(ssh, signal.SIGKILL)


def kill_session(server: SshServer, ssh: int) -> None:
    for session in server.sessions():
        session.kill()


@pytest.mark.parametrize("kill", [kill_agent, kill_ssh, kill_session])
def test_a_measurement_outlives_a_kill(
    kill: Callable[[SshServer, int], None], server: SshServer
) -> None:
    progress: list[int] = []
    notes: list[str] = []

    def kill_at_three(done: int, total: int) -> None:
        progress.append(done)
        if progress == [1, 2, 3]:  # after the fourth round the agent waits for an answer
            assert target._channel is not None
            kill(server, target._channel._ssh.pid)

    models = {"a": small_model(2), "b": small_model(1)}
    with Target(server.address, notes.append, patience_s=60) as target:
        found = target.measure_latency(models, BATCHES, FIVE, enough=never, progress=kill_at_three)
    assert progress[-5:] == [1, 2, 3, 4, 5]
    assert [len(one.samples) for one in found.values()] == [5, 5]
    assert notes[0].startswith("pi: the connection was lost (")
    assert notes[-1] == "pi: is reached again"
    assert_nothing_is_left(server)


def assert_nothing_is_left(server: SshServer) -> None:
    for agent in server.agents():
        agent.wait(20)
    for part in ("door", "room"):
        with (server.lanes / f"cpu.{part}").open("rb") as file:
            assert try_lock(file)


def test_a_measurement_outlives_a_pulled_cable(tmp_path: Path) -> None:
    notes: list[str] = []
    ends: list[str] = []
    pulled, noticed = threading.Event(), threading.Event()

    def note(line: str) -> None:
        notes.append(line)
        noticed.set()

    def plug_in_again() -> None:
        (agent,) = server.agents()
        pulled.wait()
        agent.wait(20)
        assert_nothing_is_left(server)
        ends.append("agent")
        noticed.wait(20)  # else the side that is slower sees the end of the other instead
        network.plug()

    def pull_at_three(done: int, total: int) -> None:
        if done == 3 and not pulled.is_set():
            thread.start()
            network.pull()
            pulled.set()

    thread = threading.Thread(target=plug_in_again)
    with cable() as network, ssh_server(tmp_path, network.host, network.within) as server:
        with Target(server.address, note, patience_s=60, silence_s=2.0) as target:
            models = {"a": small_model(), "b": small_model()}
            found = target.measure_latency(
                models, BATCHES, FIVE, enough=never, progress=pull_at_three
            )
        thread.join()
    assert [len(one.samples) for one in found.values()] == [5, 5]
    assert ends == ["agent"]
    assert notes[0] == "pi: has not answered for 2 s; waiting for it"
    assert notes[-1] == "pi: is reached again"


_MEASURE = """\
import sys
from profiling.target.addresses import Address
from profiling.target.client import Target
with Target(Address.model_validate_json(sys.argv[1])) as target:
    print(target.facts().cores, flush=True)
    target.quiet(1e6)
"""


def test_the_agent_ends_when_its_client_is_killed(server: SshServer) -> None:
    command = [sys.executable, "-c", _MEASURE, server.address.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (agent,) = server.agents()
        process.kill()
        agent.wait(20)
    assert_nothing_is_left(server)


def test_a_login_that_is_not_accepted(server: SshServer, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    options = [one for one in server.address.ssh_options if not one.startswith("IdentityFile=")]
    address = server.address.model_copy(
        update={"ssh_options": (*options, f"IdentityFile={tmp_path / 'stranger'}")}
    )
    with pytest.raises(TargetError, match=r"does not accept the login .*ssh-copy-id") as raised:
        connect(address)
    assert not isinstance(raised.value, TargetLostError)


@pytest.mark.parametrize(
    ("known", "words"), [("changed", "has changed"), ("missing", "is not known yet")]
)
def test_a_host_key_that_is_not_the_known_one(
    known: str, words: str, server: SshServer, tmp_path: Path
) -> None:
    path, public = tmp_path / "known_hosts", server.folder / "known_hosts"
    if known == "changed":
        make_key(tmp_path / "other")
        host = public.read_text().split()[0]
        path.write_text(f"{host} {(tmp_path / 'other.pub').read_text()}")
    options = server.address.ssh_options
    replaced = tuple(one.replace(str(public), str(path)) for one in options)
    with (
        Target(server.address.model_copy(update={"ssh_options": replaced})) as target,
        pytest.raises(TargetError, match=f"the host key of .*{words}"),
    ):
        target.facts()


def test_a_server_that_is_down_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("ssh")
    with ssh_server(folder) as server:
        address = server.address
    with pytest.raises(TargetLostError, match="Connection refused"):
        connect(address)


def test_an_unknown_host() -> None:
    nowhere = HERE.model_copy(update={"host": "no-such-host.invalid"})
    with pytest.raises(TargetError, match=r"(not a known host|name resolution)"):
        connect(nowhere)


def test_ssh_asks_nothing_and_opens_no_port(server: SshServer, tmp_path: Path) -> None:
    """The user's configuration may forward ports, share connections, or run other commands."""
    settings = {
        "LocalForward": f"127.0.0.1:{server.address.port} 127.0.0.1:1",  # a port in use
        "ExitOnForwardFailure": "yes",
        "RemoteCommand": "true",
        "ControlMaster": "auto",
        "ControlPath": tmp_path / "control",
        "ControlPersist": "60",
        "RequestTTY": "force",
    }
    config = tmp_path / "config"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    wrapper.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
        with connect(server.address) as target:
            assert target.measure_latency({"a": small_model()}, BATCHES, FIVE)["a"].samples
        assert not (tmp_path / "control").exists()
