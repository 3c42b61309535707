"""`nas study run`: search, evaluate and report; again to resume."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

# Not torch, nor what imports it: `run` still has to say how its threads wait.
from search_spaces.errors import UserError
from studies.cli.console import stderr, stdout
from studies.cli.help import TableHelp
from studies.cli.options import progress_bar, root_option, tell_how_to_resume
from studies.cli.print_study import conclude

_SHORTCUTS: dict[str, str] = {
    "name": "name",
    "space": "space",
    "trials": "search.trials",
    "sampler": "search.sampler",
    "seed": "search.seed",
    "warm_start": "search.warm_start",
    "epochs": "training.epochs",
    "images": "data.count",
    "device": "device",
    "workers": "workers",
    "threads": "threads",
    "trial_timeout": "trial_timeout_s",
    "trial_memory": "trial_memory_bytes",
    "runner": "runner",
    "address": "ray.address",
}
"""Command-line option to configuration key."""


@click.command(cls=TableHelp)
@click.argument("config")
@click.option("--name", help="Name of the study; its folder in --root.")
@click.option("--space", help="Named space or YAML file.")
@click.option("--trials", type=int, help="Architectures to search, the two references apart.")
@click.option("--sampler", help="One of {samplers}.")
@click.option("--seed", type=int, help="Seed of the search.")
@click.option("--warm-start", metavar="STUDY", help="Learn from this study first; for pareto.")
@click.option(
    "--early-stopping/--no-early-stopping",
    default=None,
    help="Stop trainings that cannot matter any more.",
)
@click.option("--epochs", type=int, help="Training epochs per candidate, at most.")
@click.option("--images", type=int, help="Images to use.")
@click.option("--objectives", help="At least two, separated by commas.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Hard limit.")
@click.option("--celeba", type=click.Path(path_type=Path), help="Use this CelebA folder.")
@click.option("--folder", type=click.Path(path_type=Path), help="Use the images of this folder.")
@click.option("--device", help="auto, cpu or cuda.")
@click.option("--workers", type=int, help="Processes that evaluate at once.")
@click.option("--threads", type=int, help="Threads for training, of each worker.")
@click.option("--trial-timeout", metavar="TIME", help="Longest time of a trial: 90s, 30m, 2h.")
@click.option("--trial-memory", metavar="SIZE", help="Most memory of a trial: 4GB, 1500MB.")
@click.option("--runner", help="Where candidates are evaluated: local or ray.")
@click.option("--address", help="Ray cluster (HOST:PORT or auto); default: one on this machine.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any other setting.")
@click.option(
    "--storage",
    help="journal:PATH, postgresql://USER@HOST/DATABASE or grpc://HOST:PORT; several drivers may "
    "share the last two. Default: a journal in the folder.",
)
@click.option(
    "--artefacts", metavar="URL", help="Copy artefacts there too (s3://..., file://...), for all."
)
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@click.option(
    "--mix-environments",
    "mix",
    is_flag=True,
    help="Go on with a study whose latencies were measured elsewhere; the report says so.",
)
@root_option
def run(
    config: str,
    objectives: str | None,
    early_stopping: bool | None,
    limits: tuple[str, ...],
    celeba: Path | None,
    folder: Path | None,
    settings: tuple[str, ...],
    storage: str | None,
    artefacts: str | None,
    png: bool,
    mix: bool,
    root: Path,
    **shortcuts: Any,
) -> None:
    """Run the study of CONFIG, a preset's name or a YAML file; run it again to resume.

    Presets: {presets}. The two reference models are evaluated first, then one unseen
    architecture after another; the report is written at the end.
    """
    _wait_passively()
    from studies.config.loading import load_config, parse_overrides
    from studies.launch import run_study
    from studies.run.crew import Interrupted
    from studies.run.display import Display
    from studies.run.interruption import Interruption

    overrides = {_SHORTCUTS[k]: v for k, v in shortcuts.items() if v is not None}
    if objectives is not None:
        overrides["objectives"] = [name.strip() for name in objectives.split(",") if name.strip()]
    if early_stopping is not None:
        overrides["search.early_stopping"] = {} if early_stopping else None
    limited = parse_overrides(limits, "--limit")
    overrides |= {f"limits.{name}": value for name, value in limited.items()}
    overrides |= _data_overrides(celeba, folder)
    overrides |= parse_overrides(settings, "--set")
    resolved = load_config(config, overrides)
    if shortcuts["address"] and resolved.runner != "ray":
        raise UserError("--address: names a Ray cluster, so it needs --runner ray")
    display = Display(stderr, resolved.search.trials, resolved.training.epochs)
    with Interruption() as interruption, _one_line_warnings():
        try:
            record, gave_up = run_study(
                resolved,
                root,
                storage=storage,
                artefacts=artefacts,
                mix=mix,
                display=display,
                progress_bar=progress_bar,
                interruption=interruption,
            )
        except KeyboardInterrupt as stopped:
            tell_how_to_resume()
            if not isinstance(stopped, Interrupted):  # the second signal: at once
                raise
            _conclude_early(root, resolved.name)
            sys.exit(128 + stopped.signum)
    conclude(record, png)
    if gave_up:
        raise UserError(gave_up)


def _conclude_early(root: Path, name: str) -> None:
    """Report on what there is of an interrupted study, if there is anything."""
    from studies.report.report import write_report
    from studies.store.store import StudyStore

    try:
        record = StudyStore.open(root, name).record()
    except UserError:  # it was interrupted before it began
        return
    if record.complete:
        stdout.print(f"report so far: {write_report(record)}", soft_wrap=True)


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Show what is warned of as one line, without the code that warned."""

    def show(message: Warning | str, *_where: Any, **__: Any) -> None:
        stderr.print(str(message), style="yellow", markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _wait_passively() -> None:
    # OpenMP's threads spin while they wait. Where another process wants the core, a training step
    # then takes up to seven times as long; without spinning it takes 5 % longer on a quiet machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _data_overrides(celeba: Path | None, folder: Path | None) -> dict[str, Any]:
    if celeba and folder:
        raise UserError("--celeba and --folder: give one of them")
    if celeba:
        return {"data.kind": "celeba", "data.path": str(celeba)}
    return {"data.kind": "folder", "data.path": str(folder)} if folder else {}
