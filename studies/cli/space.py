"""`nas space`: list, inspect and sample search spaces."""

from __future__ import annotations

import json

import click
import numpy as np
from rich.markup import escape
from rich.table import Table

from search_spaces.references import REFERENCES
from search_spaces.space import SPACES, SearchSpace
from studies.cli.console import stdout
from studies.cli.main import HelpfulGroup
from studies.cli.options import SEED, Whole, progress_bar


@click.group(cls=HelpfulGroup)
def space() -> None:
    """List, inspect and sample search spaces."""


@space.command("list")
def list_() -> None:
    """List the named spaces with their sizes."""
    table = Table("space", "pixels", "axes", "assignments", "about", box=None, pad_edge=False)
    for name in SPACES:
        found = SearchSpace.load(name)
        table.add_row(
            name,
            str(found.image_size),
            str(len(found.axes)),
            _count(found.size),
            escape(found.description),
        )
    stdout.print(table)


@space.command()
@click.argument("name")
def show(name: str) -> None:
    """Show a space's axes, conditions, constraints, size and references.

    NAME is a named space or a YAML file.
    """
    found = SearchSpace.load(name)
    stdout.print(f"[bold]{escape(found.name)}[/bold]  {escape(found.description)}")
    with progress_bar("counting") as progress:
        distinct = found.distinct(progress=progress)
    unique = f", {distinct:,} distinct architectures" if distinct is not None else ""
    stdout.print(f"{_count(found.size)} assignments{unique}; {found.image_size} pixels\n")
    table = Table("axis", "choices", "active when", box=None, pad_edge=False)
    for path, axis in found.axes.items():
        choices = ", ".join("none" if choice is None else str(choice) for choice in axis.choices)
        when = "; ".join(
            f"{parent}: {', '.join(map(str, values))}" for parent, values in axis.when.items()
        )
        table.add_row(path, escape(choices), escape(when))
    stdout.print(table)
    for key, value in found.fixed.items():
        stdout.print(f"[dim]fixed {key}: {value}[/dim]")
    for rule in found.forbid:
        stdout.print(f"[dim]forbidden together: {escape(json.dumps(rule))}[/dim]")
    for reference, architecture in REFERENCES.items():
        member = architecture.resized(found.image_size) in found
        stdout.print(f"{reference}: {'a member' if member else 'not a member'}")


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
            click.echo(f"{architecture.digest}  {architecture.summary}")


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"{number:.2e}"
