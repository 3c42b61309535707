"""The list of targets, and the commands `nas target`."""

from __future__ import annotations

import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from profiling.errors import ProfilingError
from profiling.target.addresses import (
    Address,
    add_address,
    config_folder,
    find_address,
    make_address,
    read_addresses,
    remove_address,
)
from tests.helpers.command import nas
from tests.helpers.targets import agents, fake_runtime, fake_ssh, refusing

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="the fake ssh is a shell script")
GATED = Address(name="b", host="me@h", port=22, python="/p/python", ssh_options=("ProxyJump=g",))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


# Where it is


def test_folder_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_folder() == tmp_path / "config"
    monkeypatch.delenv("NAS_CONFIG_DIR")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert config_folder() == tmp_path / "xdg" / "nas"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", ignored)
        assert config_folder() == tmp_path / ".config" / "nas"


# What it holds


def test_targets_are_kept_in_order(folder: Path) -> None:
    assert read_addresses() == {}
    plain = Address(name="a", host="pi")
    for one in (GATED, plain, GATED):
        add_address(one)
    assert list(read_addresses().values()) == [plain, GATED]
    assert find_address("b") == GATED
    stored = json.loads((folder / "targets.json").read_text())
    assert stored["targets"]["b"] == {
        "host": "me@h",
        "port": 22,
        "python": "/p/python",
        "ssh_options": ["ProxyJump=g"],
    }
    remove_address("b")
    assert list(read_addresses()) == ["a"]


def test_another_target_of_the_same_name_is_refused() -> None:
    add_address(GATED)
    with pytest.raises(ProfilingError, match=r"'b' is listed already, .*nas target remove b"):
        add_address(GATED.model_copy(update={"port": 23}))
    assert find_address("b").port == 22


def test_targets_that_are_added_at_once_are_all_kept() -> None:
    names = [f"t{number}" for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda name: add_address(Address(name=name, host="h")), names))
    assert sorted(read_addresses()) == sorted(names)


@pytest.mark.parametrize("unknown", ["rasberry", "x"])
def test_an_unknown_target_is_refused(unknown: str) -> None:
    with pytest.raises(ProfilingError, match="the list is empty; nas target add"):
        find_address(unknown)
    add_address(Address(name="raspberry", host="h"))
    near = r" \(did you mean 'raspberry'\?\)" if unknown == "rasberry" else ""
    for look_up in (find_address, remove_address):
        with pytest.raises(ProfilingError, match=f"'{unknown}' is not known{near}: the list has r"):
            look_up(unknown)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no list of targets"),
        ("[]", "is no list of targets"),
        ("{}", "is no list of targets"),
        ('{"targets": []}', "is no list of targets"),
        ('{"targets": {"a": 1}}', "is no list of targets"),
        ("[" * 100_000, "is no list of targets"),
        ('{"targets": {"a": {"host": "-oProxyCommand=x"}}}', "host: should be .*, got '-oProxyC"),
        ('{"targets": {"a": {"host": "h", "port": "22"}}}', "port: Input should be .*, got '22'"),
        ('{"targets": {"../a": {"host": "h"}}}', "name: should be up to 40 .*, got '../a'"),
        ('{"targets": {"a": {"host": "h", "x": 1}}}', "x: unknown key"),
        ('{"targets": {"a": {}}}', "host: missing"),
    ],
)
def test_a_damaged_list_is_refused(content: str, words: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "targets.json").write_text(content)
    with pytest.raises(ProfilingError, match=rf"targets\.json: {words}") as raised:
        read_addresses()
    assert "\n" not in str(raised.value)
    with pytest.raises(ProfilingError):
        add_address(GATED)
    assert (folder / "targets.json").read_text() == content


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write all")
def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    folder.mkdir(mode=0o500)
    with pytest.raises(ProfilingError, match=r"cannot be written .*set NAS_CONFIG_DIR"):
        add_address(GATED)


def test_a_folder_that_is_a_file(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(ProfilingError, match=r"cannot be written .*set NAS_CONFIG_DIR"):
        add_address(GATED)
    with pytest.raises(ProfilingError, match="cannot be read"):
        read_addresses()


# Values

VALID: dict[str, object] = {
    "name": "pi",
    "host": "h",
    "port": None,
    "python": "python3",
    "options": (),
}
HOSTILE: dict[str, list[object]] = {
    "name": ["", "-x", "../x", "a b", "a\nb", "x" * 41, "\u0661", ".x"],
    "host": [
        *("", "-oProxyCommand=x", "me@-x", "-me@x", "a b", "a\nb", "a;b", "$(x)", "a'b", "a/b"),
        *("@x", "me@", "a@b@c", "x" * 300, "\u0661", "\x1b[2J", "pi:22", "me@pi:22", "ssh://pi"),
    ],
    "port": [0, -1, 65536, 1.5, "22", True],
    "python": ["", "-c", "a b", "a;b", "$(x)", "a'b", "a\nb", "p" * 300, "\u0661"],
    "options": [("x",), ("-x=1",), ("A=1\nB=2",), ("=1",), ("A=",), ("A B=1",), ("A=\u00e9",)],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in HOSTILE.items() for value in values],
    ids=lambda value: repr(value)[:40],
)
def test_hostile_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ProfilingError, match=r"^target: (name|host|port|python|ssh_options)") as no:
        make_address(**{**VALID, field: value})  # type: ignore[arg-type]
    assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("host", host) for host in ("pi", "me@pi.local", "192.0.2.1", "::1", "fe80::1%eth0")),
        ("host", "first.last+x@h"),
        *(
            ("python", path)
            for path in ("/opt/p-3.12/bin/python3", "~/venv/bin/python", ".v/bin/p")
        ),
        ("options", ("ProxyJump=me@gate:22", "ProxyCommand=nc -X 5 %h %p")),
        ("port", 65535),
    ],
)
def test_ordinary_values_are_accepted(field: str, value: object) -> None:
    found = make_address(**{**VALID, field: value})  # type: ignore[arg-type]
    assert getattr(found, {"options": "ssh_options"}.get(field, field)) == value


# Commands


@UNIX
@pytest.mark.slow
def test_a_target_is_added_checked_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch)
    fake_runtime(tmp_path / "site", monkeypatch, "__version__ = '1.20'")
    assert nas("target", "list") == 0
    assert "no targets in" in capsys.readouterr().out
    assert nas("target", "add", "pi", "--host", "me@pi", "--python", sys.executable) == 0
    assert nas("target", "add", "gated", "--host=h", "--ssh-option=A=1", "--ssh-option=B=2") == 0
    capsys.readouterr()
    assert nas("target", "list") == 0
    assert re.search(r"\ngated +h +python3 +A=1 B=2\npi +me@pi +/", capsys.readouterr().out)
    assert nas("target", "check", "pi", "--seconds", "1") == 0
    shown = dict(re.findall(r"^(\S+) +(.+)$", capsys.readouterr().out, flags=re.M))
    assert shown["onnxruntime"] == "1.20"
    assert shown["Python"] == f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    assert re.match(r"\d+ samples of a matrix product vary by ", shown["quiet"])
    assert shown["pi:"] == "models can be timed there"
    assert agents() == []
    assert nas("target", "remove", "pi") == 0
    assert list(read_addresses()) == ["gated"]


@UNIX
@pytest.mark.slow
def test_check_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch)
    fake_runtime(tmp_path / "site", monkeypatch, "raise ImportError('x')")
    nas("target", "add", "pi", "--host", "me@pi", "--python", sys.executable)
    assert nas("target", "check", "pi", "--seconds", "1") == 2
    printed = capsys.readouterr()
    assert re.search(r"^onnxruntime +missing$", printed.out, flags=re.M)
    (line,) = printed.err.splitlines()
    assert line.startswith("nas: pi: onnxruntime is missing there (ImportError: x); install with: ")


@UNIX
def test_check_says_why_there_is_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_ssh(tmp_path / "bin", monkeypatch, refusing("ssh: connect: No route to host"))
    nas("target", "add", "pi", "--host", "me@pi")
    capsys.readouterr()
    assert nas("target", "check", "pi") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("nas: pi: no connection (ssh: connect: No route to host); try it by h")


@pytest.mark.parametrize(
    "words",
    [
        ["add", "pi", "--host", "-oProxyCommand=x"],
        ["add", "pi", "--host", "a b"],
        ["add", "--host", "h", "--", "-x"],
        ["add", "pi", "--host", "h", "--port", "0"],
        ["add", "pi", "--host", "h", "--python", "p;q"],
        ["add", "pi", "--host", "h", "--ssh-option", "x"],
        ["remove", "pi"],
        ["check", "pi"],
    ],
    ids=" ".join,
)
def test_a_refusal_writes_nothing(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas("target", *words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert 1 <= len(said) <= 3
    assert not (folder / "targets.json").exists()
