"""`nas space`: list, inspect and sample search spaces."""

from __future__ import annotations

import json
from typing import Any

import click
import numpy as np

from search_spaces.axes import Axis, Scalar
from search_spaces.references import REFERENCES
from search_spaces.sizes import size_in_words
from search_spaces.space import SPACES, SearchSpace
from studies.cli.completion import SPACES as COMPLETED
from studies.cli.console import stdout
from studies.cli.formats import format_option, show
from studies.cli.main import HelpfulGroup
from studies.cli.options import SEED, Whole, progress_bar
from studies.terminal.table import Column, Table


@click.group(cls=HelpfulGroup)
def space() -> None:
    """List, inspect and sample search spaces."""


_space_argument = click.argument("name", shell_complete=COMPLETED)


@space.command("list")
@format_option
def list_(kind: str) -> None:
    """List the named spaces with their sizes."""
    rows = [_listed(name) for name in SPACES]
    show(kind, rows, lambda: _print_list(rows))


def _listed(name: str) -> dict[str, Any]:
    found = SearchSpace.load(name)
    return {
        "space": name,
        "pixels": size_in_words(found.image_size),
        "axes": len(found.axes),
        "assignments": found.size,
        "about": found.description,
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    space_, about = Column("space", text=True), Column("about", text=True)
    table = Table(space_, "pixels", "axes", "assignments", about)
    for row in rows:
        table.add(*map(str, {**row, "assignments": _count(row["assignments"])}.values()))
    stdout.table(table)


@space.command("show")
@_space_argument
@format_option
def show_(name: str, kind: str) -> None:
    """Show a space's axes, conditions, constraints, size and references.

    NAME is a named space or a YAML file. CSV and JSON have a row per axis and fixed value.
    """
    found = SearchSpace.load(name)
    axes = [*found.axes.items(), *((path, Axis((one,))) for path, one in _fixed(found).items())]
    names = ("path", "choices", "when")
    rows = [
        dict(zip(names, (path, _choices(axis), _when(axis)), strict=True)) for path, axis in axes
    ]
    show(kind, rows, lambda: _print_space(found))


def _fixed(found: SearchSpace) -> dict[str, Scalar]:
    return {
        path: size_in_words(value) if isinstance(value, tuple) else value
        for path, value in found.fixed.items()
    }


def _choices(axis: Axis) -> str:
    return ", ".join("none" if choice is None else str(choice) for choice in axis.choices)


def _when(axis: Axis) -> str:
    return "; ".join(f"{parent}: {', '.join(map(str, one))}" for parent, one in axis.when.items())


def _print_space(found: SearchSpace) -> None:
    stdout.say((found.name, "bold"), f"  {found.description}", wrap=True)
    with progress_bar("counting") as progress:
        distinct = found.distinct(progress=progress)
    unique = f", {distinct:,} distinct architectures" if distinct is not None else ""
    pixels = f"{size_in_words(found.image_size)} pixels"
    stdout.say(f"{_count(found.size)} assignments{unique}; {pixels}", wrap=True)
    stdout.print()
    table = Table(*(Column(head, text=True) for head in ("axis", "choices", "active when")))
    for path, axis in found.axes.items():
        table.add(path, _choices(axis), _when(axis))
    stdout.table(table)
    for key, value in _fixed(found).items():
        stdout.say(f"fixed {key}: {value}", style="dim", wrap=True)
    for rule in found.forbid:
        stdout.say(f"forbidden together: {json.dumps(rule)}", style="dim", wrap=True)
    for reference, architecture in REFERENCES.items():
        member = found.fitted(architecture) in found
        stdout.say(f"{reference}: {'a member' if member else 'not a member'}")


@space.command()
@_space_argument
@click.option(
    "-n", "--count", type=Whole(1), default=5, show_default=True,
    help="Number of architectures.",
)  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the draw.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON architecture per line.")
@format_option
def sample(name: str, count: int, seed: int, as_json: bool, kind: str) -> None:
    """Draw architectures uniformly from a space, a name or a YAML file."""
    found, rng = SearchSpace.load(name), np.random.default_rng(seed)
    drawn = [found.architecture(found.sample(rng)) for _ in range(count)]
    if as_json:
        for one in drawn:
            click.echo(json.dumps(one.to_dict()))
        return
    rows = [{"digest": one.digest, "architecture": one.summary} for one in drawn]
    show(kind, rows, lambda: _print_sample(rows))


def _print_sample(rows: list[dict[str, str]]) -> None:
    for row in rows:
        stdout.say("  ".join(row.values()))


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"{number:.2e}"
