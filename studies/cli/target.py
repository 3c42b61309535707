"""`nas target`: the machines on which latency is measured through ssh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from studies.cli.console import stderr, stdout
from studies.cli.formats import format_option, show
from studies.cli.main import HelpfulGroup
from studies.cli.options import Whole
from studies.record.formats import counted, format_percent
from studies.terminal.table import Column, Table

if TYPE_CHECKING:
    from profiling.latency import Latency
    from profiling.target.answers import Facts

_UNKNOWN = "unknown"
_STEADY = "performance"


@click.group(cls=HelpfulGroup)
def target() -> None:
    """List and check other machines on which latency is measured.

    A target is reached by the ssh command, with your own configuration, keys and jump hosts. It
    needs Python 3.8, numpy and onnxruntime; nothing of this project is installed there.
    """


@target.command()
@click.argument("name")
@click.option("--host", required=True, help="HOST or USER@HOST, or a name of your ssh config.")
@click.option("--port", type=Whole(1, 65535), help="Port of the ssh server.")
@click.option(
    "--python", default="python3", show_default=True, help="Interpreter there, a name or a path."
)
@click.option(
    "--ssh-option", "options", multiple=True, metavar="KEY=VALUE",
    help="Option of ssh, as in ProxyJump=gate; may be repeated.",
)  # fmt: skip
def add(name: str, host: str, port: int | None, python: str, options: tuple[str, ...]) -> None:
    """Add a machine to the list of targets, as NAME."""
    from profiling.target.addresses import add_address, make_address

    add_address(make_address(name, host, port, python, options))
    stdout.say(f"{name}: {host} is in the list; nas target check {name} says what is there")


@target.command("list")
@format_option
def list_(kind: str) -> None:
    """List the targets."""
    from profiling.target.addresses import config_folder, read_addresses

    known = read_addresses()
    if not known and kind == "table":
        stdout.say(f"no targets in {config_folder()}; add one: nas target add NAME --host HOST")
        return
    rows = [
        {
            "target": name,
            "host": one.host,
            "port": one.port,
            "Python": one.python,
            "options of ssh": " ".join(one.ssh_options),
        }
        for name, one in known.items()
    ]
    show(kind, rows, lambda: _print_list(rows))


def _print_list(rows: list[dict[str, Any]]) -> None:
    table = Table(*(Column(head, text=True) for head in rows[0]))
    for row in rows:
        table.add(*(str(cell or "") for cell in row.values()))
    stdout.table(table)


@target.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove the target NAME from the list."""
    from profiling.target.addresses import remove_address

    remove_address(name)
    stdout.say(f"{name}: removed from the list")


@target.command()
@click.argument("name")
@click.option(
    "--seconds", type=Whole(1, 600), default=3, show_default=True,
    help="Time for which to watch how quiet the machine is.",
)  # fmt: skip
def check(name: str, seconds: int) -> None:
    """Connect to the target NAME, show what is there, what is missing, and how quiet it is."""
    from profiling.target.addresses import find_address
    from profiling.target.client import Target
    from profiling.target.requirements import require_packages

    address = find_address(name)
    with Target(address, stderr.say, patience_s=0) as found:
        facts = found.facts()
        table = Table(Column(name, text=True), Column(address.host, text=True))
        for row in _rows(facts):
            table.add(*row)
        if facts.numpy:
            table.add("quiet", _quietness(found.quiet(seconds)))
    stdout.table(table)
    require_packages(address, facts)
    stdout.say(f"{name}: models can be timed there", style="green")


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    memory = f", {facts.memory_kib / 2**20:.1f} GB" if facts.memory_kib else ""
    yield "processor", f"{facts.processor}, {counted(facts.cores, 'core')}{memory}"
    yield "system", facts.system
    yield "clock", _clock(facts)
    heat = facts.temperature_c
    yield "temperature", _UNKNOWN if heat is None else f"{heat:.0f} °C"
    yield "Python", f"{facts.python} ({facts.executable})"
    yield "numpy", facts.numpy or "missing"
    yield "onnxruntime", facts.onnxruntime or "missing"


def _clock(facts: Facts) -> str:
    limits = ((facts.clock_mhz, "now"), (facts.max_clock_mhz, "at most"))
    parts = [f"{value:.0f} MHz {when}" for value, when in limits if value]
    if facts.governor:
        parts.append(f"policy {facts.governor}")
    if facts.governor not in (None, _STEADY):
        parts.append(f"it changes: sudo cpupower frequency-set -g {_STEADY} keeps it steady")
    return ", ".join(parts) or _UNKNOWN


def _quietness(timed: Latency) -> str:
    rounds = counted(len(timed.samples), "sample")
    spread = f"{rounds} of a matrix product vary by {format_percent(timed.spread)}"
    return "; ".join((spread, *(timed.contention or ("no sign of other work",))))
