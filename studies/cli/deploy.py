"""`nas deploy`: choose how a trained model runs fastest, and write a folder that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiling.openmp import wait_passively
from search_spaces.errors import UserError, nearest, quoted
from studies.cli.best import limit_options, limits_of, option_name
from studies.cli.console import stdout
from studies.cli.options import Finite, Listed, OutPath, Positive, Whole, progress_bar, root_option
from studies.cli.subjects import file_name, latency_config

if TYPE_CHECKING:
    from nas.datasets import ImageDataset
    from profiling.target.client import KnownTarget
    from studies.deploy.deployment import Deployment
    from studies.store.trained import Trained

_PERCENT = 100.0


@click.command()
@click.argument("model", metavar="STUDY#TRIAL|STUDY|FOLDER")
@limit_options
@click.option("--by", help="Objective to be best in. Default: the study's first objective.")
@click.option(
    "--images", "folder", type=click.Path(path_type=Path),
    help="Folder of images to calibrate with and to judge by. Default: those of the study.",
)  # fmt: skip
@click.option(
    "--backends", "names", type=Listed(click.STRING, "backend"), metavar="NAME,...",
    help="Backends to try. Default: all that read files: onnxruntime, openvino and the same after "
    "exact rewrites.",
)  # fmt: skip
@click.option(
    "--precision", "precisions", type=Listed(click.STRING, "precision"), metavar="NAME,...",
    help="Precisions to try: float32, bfloat16, int8. Default: all.",
)  # fmt: skip
@click.option(
    "--loss-cost", type=Finite(0, 100), default=1.0, show_default=True,
    help="Percentage of the loss that int8 may cost. Other precisions may cost 0.1.",
)  # fmt: skip
@click.option(
    "--target", "machine",
    help="Machine to deploy for, one of `nas target list`: variants are judged and timed there. "
    "Default: this one.",
)  # fmt: skip
@click.option("--threads", type=Whole(1, 1024), default=1, show_default=True,
              help="Number of CPU threads.")  # fmt: skip
@click.option("--seconds", type=Positive(3600), default=10.0, show_default=True,
              help="Time to measure each variant.")  # fmt: skip
@click.option("-o", "--out", type=OutPath(file_okay=False),
              help="Folder to write, which must not exist. Default: MODEL-deployed.")  # fmt: skip
@root_option
def deploy(
    model: str,
    by: str | None,
    folder: Path | None,
    names: list[str] | None,
    precisions: list[str] | None,
    loss_cost: float,
    machine: str | None,
    threads: int,
    seconds: float,
    out: Path | None,
    root: Path,
    **limits: float | None,
) -> None:
    """Write a folder that runs a trained model without torch, as fast as measured.

    Runtimes, precisions and exact rewrites are tried. Each variant is timed in turns with the model
    in eager PyTorch, and judged by its loss, SSIM and worst image on held-out images. The fastest
    one that costs no more of the loss than is allowed is written, with its encoder and decoder
    alone, a model card, a page, and run.py, which needs numpy and the runtime only.

    MODEL is STUDY#TRIAL, a folder such as `nas study best` writes, or a study, whose best model
    within the limits is taken.

    Example: nas deploy quickstart --max-params 1e6
    """
    from studies.deploy.choice import Bounds
    from studies.deploy.deployment import Wish
    from studies.deploy.folder import deploy as write
    from studies.deploy.folder import require_new
    from studies.deploy.subject import Subject

    wait_passively()
    where = " on a target" if machine else ""
    _known(names, f"--backends{where}", _file_backends(machine))
    _known(precisions, "--precision", _precisions())
    trained = _trained(model, by, limits_of(limits), root)
    path = out or Path(f"{file_name(trained.name)}-deployed")
    require_new(path)
    wish = Wish(
        names,
        precisions or _precisions(),
        Bounds(int8=loss_cost / _PERCENT),
        latency_config(1, threads, seconds),
        _reached(machine),
    )
    dataset = _images(trained, folder, root)
    subject = Subject(trained, dataset, own_images=folder is None)
    _print(write(subject, wish, path, progress_bar), path)
    _rewrite_report(trained, root)


def _file_backends(target: str | None) -> Sequence[str]:
    """Return the backends of files; with a target, those that run there."""
    from nas.setups import ON_TARGETS
    from profiling.backends import BACKENDS
    from profiling.runtime_files import FILE_BACKENDS

    if target is None:
        return FILE_BACKENDS
    return [name for name in FILE_BACKENDS if BACKENDS[name].package == ON_TARGETS]


def _precisions() -> Sequence[str]:
    from nas.deploy.variants import PRECISIONS

    return PRECISIONS


def _reached(target: str | None) -> KnownTarget | None:
    """Return the machine of `--target` after a connection to it."""
    from nas.latency import address_of
    from profiling.target.client import reach

    return None if target is None else reach(address_of(target, "--target"))


def _known(given: list[str] | None, option: str, known: Sequence[str]) -> None:
    """Refuse an unknown name of an option."""
    for name in given or ():
        if name not in known:
            raise UserError(
                f"{option}: {quoted(name)} is not one of {', '.join(known)}{nearest(name, known)}"
            )


def _trained(text: str, by: str | None, limits: Mapping[str, float], root: Path) -> Trained:
    """Return the model that is deployed.

    Raises:
        UserError: there is no such model, it has no weights, or limits are given without a study.
    """
    from studies.record.best import best_trial
    from studies.store.store import StudyStore, list_studies
    from studies.store.trained import find_trained, trained_trial

    found = None if text in list_studies(root) else find_trained(text, root)
    if found is None:
        record = StudyStore.open(root, text).record()
        return trained_trial(record, best_trial(record, by, limits, option_name), root)
    if by or limits:
        option = option_name("by" if by else next(iter(limits)))
        raise UserError(f"{option}: chooses a model of a study; {text} is one model")
    return found


def _images(trained: Trained, folder: Path | None, root: Path) -> ImageDataset:
    """Return the images of `--images`, or those of the model's study.

    Raises:
        UserError: there are none.
    """
    from nas.datasets import DataConfig, require_source
    from studies.run.images import load_images, load_same_images
    from studies.store.store import StudyStore, list_studies

    size, channels = trained.architecture.image_size, trained.architecture.image_channels
    if folder is not None:
        try:
            config = DataConfig(kind="folder", path=folder)
            require_source(config, size)
            return load_images(config, size, progress_bar, channels)
        except UserError as error:
            raise UserError(f"--images: {str(error).removeprefix('path: ')}") from None
    study = trained.study
    named = trained.result.get("study")
    if study is None and isinstance(named, str) and named in list_studies(root):
        study = StudyStore.open(root, named).record()
    if study is None:
        raise UserError(
            f"{trained.name}: there are no images to calibrate with and to judge by; give --images "
            "FOLDER, or the --root of its study"
        )
    config = DataConfig.model_validate(study.config["data"])
    return load_same_images(study, config, progress_bar, "restore them, or give --images FOLDER")


def _rewrite_report(trained: Trained, root: Path) -> None:
    """Rewrite the report of the model's study, so that it shows the variants."""
    from studies.report.report import write_report
    from studies.store.store import StudyStore

    if trained.study is not None and (trained.study.folder / "report.html").exists():
        stdout.say(f"report: {write_report(StudyStore.open(root, trained.study.name).record())}")


def _print(found: Deployment, folder: Path) -> None:
    from studies.deploy.words import heads, notes, rows, verdict
    from studies.terminal.table import Column, Table

    columns = [Column(head.lower(), optional=head == "SSIM") for head in heads(found)]
    table = Table(Column("variant", text=True), *columns)
    shown = rows(found)
    for row in shown:
        style = "cyan" if row.deployed else ""
        table.add(row.name, *(cell.text for cell in row.cells), style=style)
    stdout.print()
    stdout.table(table)
    for row in shown:
        if row.verdict.startswith("rejected"):
            stdout.say(f"{row.name}: {row.verdict}", style="dim", wrap=True)
    for note in notes(found):
        stdout.say(note, style="yellow", wrap=True)
    stdout.say(verdict(found).replace("`", ""), style="bold", wrap=True)
    stdout.say(f"page: {folder / 'report.html'}")
    stdout.say(f"run it: python {folder / 'run.py'} IMAGE")
