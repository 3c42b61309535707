"""`nas paper`: train and measure the paper's two models and reproduce its table and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiling.openmp import wait_passively
from search_spaces.errors import UserError
from studies.cli.console import stderr, stdout
from studies.cli.options import (
    Whole,
    data_overrides,
    print_how_to_resume,
    progress_bar,
    root_option,
)

if TYPE_CHECKING:
    from studies.paper.redraw import Job
    from studies.paper.results import PaperResults

_PRESET = "paper-table"


@click.command()
@click.option(
    "--name", help=f"Name of the study and of its folder in --root.  [default: {_PRESET}]"
)
@click.option(
    "--celeba", type=click.Path(path_type=Path), help="Train on the CelebA images of this folder."
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Train on the images of this folder."
)
@click.option("--images", type=Whole(), help="Number of images in the data set.  [default: 20000]")
@click.option("--epochs", type=Whole(), help="Maximum number of training epochs.  [default: 10]")
@click.option(
    "--size",
    type=Whole(32, 512),
    default=144,
    show_default=True,
    help="Image size in pixels.",
)
@click.option("--device", help="Device: auto, cpu, cuda or mps.")
@click.option("--threads", type=Whole(), help="Number of training threads.")
@click.option(
    "--dimension",
    "dimensions",
    type=Whole(0),
    multiple=True,
    help="Latent dimension to traverse, counted from 0 (repeatable).  [default: 20]",
)
@click.option(
    "--attribute", "attributes", multiple=True, help="Attribute to add to faces (repeatable)."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other key of the configuration (repeatable).",
)
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@click.option(
    "--estimate", "only_estimate", is_flag=True, help="Print how long it will take, and exit."
)
@root_option
def paper(
    name: str | None,
    celeba: Path | None,
    folder: Path | None,
    images: int | None,
    epochs: int | None,
    size: int,
    device: str | None,
    threads: int | None,
    dimensions: tuple[int, ...],
    attributes: tuple[str, ...],
    settings: tuple[str, ...],
    png: bool,
    only_estimate: bool,
    root: Path,
) -> None:
    """Reproduce the paper: train and measure both models, draw its table and figures.

    The same command resumes an interrupted run; after the last step it only writes the page again.
    Without --celeba and --folder the images are rendered faces.
    """
    wait_passively()
    given = {
        "name": name,
        "data.count": images,
        "training.epochs": epochs,
        "device": device,
        "threads": threads,
    }
    overrides: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    overrides |= data_overrides(celeba, folder)
    job = _job(overrides | {"space": f"paper@{size}"}, settings, dimensions, attributes, root)
    _print_estimate(job, only_estimate)
    if not only_estimate:
        _write(_redraw(job), png)


def _job(
    overrides: dict[str, Any],
    settings: tuple[str, ...],
    dimensions: tuple[int, ...],
    attributes: tuple[str, ...],
    root: Path,
) -> Job:
    from studies.config.loading import load_config, parse_overrides
    from studies.paper.redraw import Job
    from studies.paper.results import PaperOptions

    config = load_config(_PRESET, overrides | parse_overrides(settings, "--set"))
    if any(setup.target for setup in config.all_setups.values()):
        raise UserError("latency.target: the paper is reproduced on this machine; leave it out")
    options = PaperOptions(attributes=attributes)
    return Job(config, root, PaperOptions(dimensions, attributes) if dimensions else options)


def _print_estimate(job: Job, only: bool) -> None:
    from studies.paper.redraw import estimate

    text = estimate(job)
    if text is None:
        text = "both models are trained; the remaining steps take minutes at most" if only else None
    if text:
        (stdout if only else stderr).say(text)


def _redraw(job: Job) -> PaperResults:
    from studies.paper.redraw import redraw
    from studies.run.display import Display

    display = Display(stderr, 0, job.config.training.epochs)
    try:
        return redraw(job, display, progress_bar)
    except KeyboardInterrupt:
        print_how_to_resume()
        raise


def _write(results: PaperResults, png: bool) -> None:
    from studies.paper.claims import claims
    from studies.paper.page import write_paper, write_paper_pngs
    from studies.paper.words import paper_headline, tally

    found = claims(results)
    stdout.print()
    stdout.say(paper_headline(found).replace("`", ""), wrap=True)
    stdout.print()
    for one in found:
        statement = one.statement.replace("`", "")
        stdout.say((f"{one.verdict:13}", "bold"), f" {statement}: {one.found}")
    page = write_paper(results)
    stdout.print()
    stdout.say(tally(found))
    stdout.say(f"report: {page}")
    if png:
        try:
            written = write_paper_pngs(results)
        except UserError as error:  # the page itself is there
            stderr.say(f"no PNGs: {error}", style="yellow")
            return
        stdout.say(f"figures: {written[0].parent} ({len(written)} PNGs)")
