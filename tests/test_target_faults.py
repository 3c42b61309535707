"""Every fault of a connection is one clear line, and only passing ones are waited for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from profiling.target import channel
from profiling.target.channel import Channel, ssh_command
from profiling.target.errors import TargetError, TargetLostError, fault
from tests.helpers.targets import HERE, fake_ssh, refusing

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="the fake ssh is a shell script")
PI = HERE.model_copy(update={"host": "me@pi", "port": 2222, "python": "python3"})

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Host key for [pi]:2222 has changed and you have requested strict checking.
Host key verification failed."""
UNKNOWN_KEY = """\
No ED25519 host key is known for [pi]:2222 and you have requested strict checking.
Host key verification failed."""
BANNER = "Permission denied to everybody without a permission!\n"

LASTING = {
    CHANGED: "host key of me@pi has changed.* forget the old key with: ssh-keygen -R '[pi]:2222'",
    UNKNOWN_KEY: "is not known yet; connect once by hand, .*: ssh -p 2222 me@pi",
    "me@pi: Permission denied (publickey,password).": "does not accept the login .*ssh-copy-id -p",
    "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures": "the login",
    "ssh: Could not resolve hostname pi: Name or service not known": "me@pi is not a known host",
    "command-line: line 0: Bad configuration option: foo": "no connection (command-line: line 0: B",
    "Bad owner or permissions on /home/me/.ssh/config": "no connection (Bad owner or permissions",
    "Unable to negotiate with 192.0.2.1 port 22: no matching cipher found.": "no matching cipher",
    "": "no connection (no reason was printed)",
}
"""What ssh prints when waiting does not help, and a part of the message."""

PASSING = [
    "ssh: connect to host pi port 22: Connection refused",
    "ssh: connect to host pi port 22: Connection timed out",
    "ssh: connect to host pi port 22: No route to host",
    "ssh: connect to host pi port 22: Network is unreachable",
    "ssh: connect to host pi port 22: Operation timed out",
    "ssh: Could not resolve hostname pi: Temporary failure in name resolution",
    "Connection to 192.0.2.1 port 22 timed out",
    "kex_exchange_identification: read: Connection reset by peer",
    "kex_exchange_identification: Connection closed by remote host",
    "Connection closed by 192.0.2.1 port 22",
    "Timeout, server pi not responding.",
    "client_loop: send disconnect: Broken pipe",
    "channel 0: open failed: connect failed: x\nstdio forwarding failed",
    f"{BANNER}Connection closed by UNKNOWN port 65535",
]
"""What ssh prints while a machine starts or has no network."""


@pytest.mark.parametrize("printed", LASTING, ids=lambda text: text[-30:])
def test_a_lasting_fault_has_a_remedy(printed: str) -> None:
    found = fault(PI, 255, printed.splitlines(), known=False)
    assert type(found) is TargetError
    first, *others = LASTING[printed].split(".*")
    text = str(found)
    assert text.startswith("pi: ")
    assert "\n" not in text
    assert len(text) <= 300
    for part in (first, *others):
        assert part in text
        text = text.partition(part)[2]


@pytest.mark.parametrize("printed", PASSING, ids=lambda text: text[-30:])
def test_a_passing_fault_is_waited_for(printed: str) -> None:
    found = fault(PI, 255, printed.splitlines(), known=False)
    assert type(found) is TargetLostError
    last = printed.splitlines()[-1].rstrip(".")
    assert str(found) == f"pi: no connection ({last}); try it by hand: ssh -p 2222 me@pi"


@pytest.mark.parametrize(
    "printed", [key for key in LASTING if "hostname" in key or "cipher" in key or not key]
)
def test_a_target_that_was_reached_before_is_waited_for(printed: str) -> None:
    assert type(fault(PI, 255, printed.splitlines(), known=True)) is TargetLostError


@pytest.mark.parametrize("printed", [CHANGED, UNKNOWN_KEY, "me@pi: Permission denied (publickey)."])
def test_a_refusal_is_not_waited_for_even_then(printed: str) -> None:
    assert type(fault(PI, 255, printed.splitlines(), known=True)) is TargetError


@pytest.mark.parametrize(
    ("code", "printed", "words"),
    [
        (127, "sh: 1: exec: python3: not found", "python3 cannot be run there (sh: 1: exec: pyth"),
        (126, "bash: /tmp/python3: Permission denied", "cannot be run there (bash: /tmp/python3: "),
        (1, "nas agent: Python 3.6.9", "python3 there is Python 3.6.9, 3.8 or newer is needed"),
        (1, "This account is currently not available.", "did not start there (exit code 1): This"),
    ],
)
def test_a_fault_of_the_interpreter_is_told(code: int, printed: str, words: str) -> None:
    found = fault(PI, code, [printed], known=True)
    assert type(found) is TargetError
    assert words in str(found)


# In a connection


@UNIX
@pytest.mark.parametrize(
    ("before", "kind", "words"),
    [
        (
            refusing("ssh: connect to host pi port 22: No route to host"),
            TargetLostError,
            "No route",
        ),
        (refusing(CHANGED), TargetError, "has changed"),
        (refusing("nas agent: Python 2.7.18 (default)", 1), TargetError, r"Python 2\.7\.18, 3\.8"),
        pytest.param(
            "head -c 99999 /dev/zero; cat",
            TargetError,
            "the login shell printed too much",
            marks=pytest.mark.slow,
        ),
        ("exit 0", TargetError, r"did not start there \(exit code 0\): no reason was printed"),
    ],
    ids=["unreachable", "changed", "old", "loud", "silent"],
)
def test_a_connection_that_fails_says_why(
    before: str,
    kind: type[TargetError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch, before)
    with pytest.raises(TargetError, match=words) as raised:
        Channel(HERE)
    assert type(raised.value) is kind


@UNIX
def test_a_target_without_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch)
    nowhere = HERE.model_copy(update={"python": str(tmp_path / "python3")})
    with pytest.raises(TargetError, match=r"/python3 cannot be run there \(.*not found\): install"):
        Channel(nowhere)


@UNIX
def test_an_old_interpreter_says_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch)
    monkeypatch.setattr(channel, "_BEGIN", channel._BEGIN.replace("(3,8)", "(9,9)"))
    with pytest.raises(TargetError, match=r"Python 3\.\d+\.\d+, 3\.8 or newer is needed"):
        Channel(HERE)


def test_a_machine_without_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TargetError, match=r"ssh is not installed here .*openssh-client"):
        ssh_command(HERE, "true")


@UNIX
def test_the_command_line_of_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch)
    address = PI.model_copy(update={"ssh_options": ("ProxyJump=gate",)})
    program, *words = ssh_command(address, "true")
    assert program == str(tmp_path / "bin" / "ssh")
    assert words[:3] == ["-T", "-x", "-a"]  # no terminal, display or agent there
    assert {"BatchMode=yes", "ClearAllForwardings=yes"} <= set(words)
    assert words[-6:] == ["-p", "2222", "-o", "ProxyJump=gate", "me@pi", "true"]
