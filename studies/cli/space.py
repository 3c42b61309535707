"""`nas space`: list, inspect and sample search spaces."""

from __future__ import annotations

import json

import click
import numpy as np

from search_spaces.references import REFERENCES
from search_spaces.sizes import size_in_words
from search_spaces.space import SPACES, SearchSpace
from studies.cli.console import stdout
from studies.cli.main import HelpfulGroup
from studies.cli.options import SEED, Whole, progress_bar
from studies.terminal.table import Column, Table


@click.group(cls=HelpfulGroup)
def space() -> None:
    """List, inspect and sample search spaces."""


@space.command("list")
def list_() -> None:
    """List the named spaces with their sizes."""
    space_, about = Column("space", text=True), Column("about", text=True)
    table = Table(space_, "pixels", "axes", "assignments", about)
    for name in SPACES:
        found = SearchSpace.load(name)
        counts = (size_in_words(found.image_size), str(len(found.axes)), _count(found.size))
        table.add(name, *counts, found.description)
    stdout.table(table)


@space.command()
@click.argument("name")
def show(name: str) -> None:
    """Show a space's axes, conditions, constraints, size and references.

    NAME is a named space or a YAML file.
    """
    found = SearchSpace.load(name)
    stdout.say((found.name, "bold"), f"  {found.description}", wrap=True)
    with progress_bar("counting") as progress:
        distinct = found.distinct(progress=progress)
    unique = f", {distinct:,} distinct architectures" if distinct is not None else ""
    pixels = f"{size_in_words(found.image_size)} pixels"
    stdout.say(f"{_count(found.size)} assignments{unique}; {pixels}", wrap=True)
    stdout.print()
    table = Table(*(Column(head, text=True) for head in ("axis", "choices", "active when")))
    for path, axis in found.axes.items():
        choices = ", ".join("none" if choice is None else str(choice) for choice in axis.choices)
        when = "; ".join(
            f"{parent}: {', '.join(map(str, values))}" for parent, values in axis.when.items()
        )
        table.add(path, choices, when)
    stdout.table(table)
    for key, value in found.fixed.items():
        text = size_in_words(value) if isinstance(value, tuple) else value
        stdout.say(f"fixed {key}: {text}", style="dim", wrap=True)
    for rule in found.forbid:
        stdout.say(f"forbidden together: {json.dumps(rule)}", style="dim", wrap=True)
    for reference, architecture in REFERENCES.items():
        member = found.fitted(architecture) in found
        stdout.say(f"{reference}: {'a member' if member else 'not a member'}")


@space.command()
@click.argument("name")
@click.option(
    "-n", "--count", type=Whole(1), default=5, show_default=True,
    help="Number of architectures.",
)  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the draw.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON architecture per line.")
def sample(name: str, count: int, seed: int, as_json: bool) -> None:
    """Draw architectures uniformly from a space, a name or a YAML file."""
    found, rng = SearchSpace.load(name), np.random.default_rng(seed)
    for _ in range(count):
        architecture = found.architecture(found.sample(rng))
        if as_json:
            click.echo(json.dumps(architecture.to_dict()))
        else:
            stdout.say(f"{architecture.digest}  {architecture.summary}")


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"{number:.2e}"
