"""`nas bench`: compare samplers on tables that hold the result of every architecture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from studies.bench.shipped import TABLES, load_table
from studies.cli.console import stdout
from studies.cli.formats import format_option, show
from studies.cli.main import HelpfulGroup
from studies.cli.options import Finite, Listed, OutPath, Whole, progress_bar, root_option


@click.group(cls=HelpfulGroup)
def bench() -> None:
    """Compare samplers on tables of trained models."""


@bench.command()
@click.option(
    "--table",
    "tables",
    type=click.Choice(list(TABLES)),
    multiple=True,
    help="Table (repeatable). Default: all.",
)
@click.option(
    "--samplers", type=Listed(click.STRING, "sampler"), metavar="NAME,...",
    help="Names separated by commas. Default: all.",
)  # fmt: skip
@click.option(
    "--seeds", type=Whole(1, 10_000), default=20, show_default=True,
    help="Number of searches with each sampler.",
)  # fmt: skip
@click.option(
    "--trials", type=Whole(1), default=200, show_default=True,
    help="Budget of each search, as a number of full trainings.",
)  # fmt: skip
@click.option(
    "--workers", type=Whole(1, 10_000), default=4, show_default=True,
    help="Number of simulated workers: candidates trained at the same time.",
)  # fmt: skip
@click.option(
    "--noise", type=Finite(0, 100), default=0.0, show_default=True,
    help="Standard deviation of the losses that a search observes, in percent of those in the "
    "table. The table then judges what a search has chosen by chance.",
)  # fmt: skip
@click.option(
    "--processes", type=Whole(1, 1024), default=1, show_default=True,
    help="Number of processes: searches replayed at the same time.",
)  # fmt: skip
@click.option(
    "-o", "--out", type=OutPath(file_okay=False),
    default=Path("nas-bench"), show_default=True,
    help="Folder of results; searches that it already holds are not repeated.",
)  # fmt: skip
@click.option("--no-figures", is_flag=True, help="Write tables only.")
def search(
    tables: tuple[str, ...],
    samplers: list[str] | None,
    seeds: int,
    trials: int,
    workers: int,
    noise: float,
    processes: int,
    out: Path,
    no_figures: bool,
) -> None:
    """Replay samplers on recorded tables and measure their regret.

    It is the regret of hypervolume against the exact front: on the whole front and on its accurate
    half, beside IGD+ and the lowest loss found. Nothing is trained. Every search has its own result
    file, so the same command resumes an interrupted comparison. Writes for each table the figures
    over evaluations, epochs and simulated time (CSV, HTML, PNG), and a summary (CSV, Markdown).
    """
    from profiling.files import require_writable
    from studies.bench.contenders import contenders_for
    from studies.bench.runs import PlannedSearch, run_all
    from studies.bench.write import write_comparison

    require_writable(out)
    for table in tables or TABLES:
        names = samplers or contenders_for(load_table(table))
        searches = [
            PlannedSearch(table, name, seed, trials, workers, noise / 100)
            for name in names
            for seed in range(seeds)
        ]
        with progress_bar(f"searching {table}") as progress:
            results = run_all(searches, out, processes, progress)
        written = write_comparison(results, out, figures=not no_figures)
        stdout.table(written.table)
        for path in written.paths:
            stdout.say(f"  {path}")


@bench.command()
@click.option("--name", default="vae-table", show_default=True, help="Name of the study.")
@root_option
def study(name: str, root: Path) -> None:
    """Write the table of VAEs as a study of all its architectures.

    Nothing is trained. `nas study report`, `show`, `effects`, `best` and `export` then show the
    exact front, and the effects of all axes from a full factorial design.
    """
    from studies.bench.replay import replay
    from studies.bench.vae import load_vae_table
    from studies.report.report import write_report

    with progress_bar("writing the study") as progress:
        record = replay(load_vae_table(), root, name, progress)
    stdout.say(f"{len(record.trials)} trials; report: {write_report(record)}")


@bench.command("list")
@format_option
def list_(kind: str) -> None:
    """List the tables and the samplers that can be compared."""
    rows = list(_listed())
    show(kind, rows, lambda: _print_list(rows))


def _listed() -> Iterator[dict[str, str]]:
    from search_spaces.errors import UserError
    from studies.bench.contenders import CONTENDERS

    for name in TABLES:
        try:
            table = load_table(name)
        except UserError as error:
            yield {"kind": "table", "name": name, "about": str(error)}
            continue
        about = f"{len(table.entries)} architectures, {table.epochs} epochs"
        objectives = ", ".join(table.objectives)
        yield {"kind": "table", "name": name, "about": f"{about}, objectives {objectives}"}
    for name, one in CONTENDERS.items():
        yield {"kind": "sampler", "name": name, "about": f"{one.title} ({one.family})"}


def _print_list(rows: list[dict[str, str]]) -> None:
    for row in rows:
        stdout.say((row["name"], "bold"), f": {row['about']}", wrap=True)
