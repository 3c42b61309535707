"""`nas study run`: search, evaluate and report. The same command resumes a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

# Not torch, nor what imports it: `run` still has to say how its threads wait.
from profiling.openmp import wait_passively
from search_spaces.errors import UserError
from studies.cli.console import stderr, stdout
from studies.cli.help import TableHelp
from studies.cli.options import (
    Listed,
    Whole,
    data_overrides,
    print_how_to_resume,
    progress_bar,
    root_option,
)
from studies.cli.print_study import conclude


@click.command(cls=TableHelp)
@click.argument("config")
@click.option("--name", help="Name of the study and of its folder in --root.")
@click.option("--space", help="Search space: a name or a YAML file.")
@click.option(
    "--trials",
    type=Whole(),
    help="Number of architectures to evaluate, besides the two references.",
)
@click.option("--sampler", help="Sampler, one of {samplers}.")
@click.option("--seed", type=Whole(), help="Seed of the search.")
@click.option(
    "--warm-start",
    metavar="STUDY",
    help="Learn from the trials of this study first (sampler pareto only).",
)
@click.option(
    "--early-stopping/--no-early-stopping",
    default=None,
    help="Stop trainings early that are unlikely to reach the Pareto front.",
)
@click.option("--epochs", type=Whole(), help="Maximum number of training epochs of each candidate.")
@click.option("--images", type=Whole(), help="Number of images in the data set.")
@click.option("--loss", metavar="PART", help="Loss of your own, such as mypkg.losses:mine.")
@click.option(
    "--recipe", metavar="PART", help="Recipe, or one of your own, such as mypkg.recipes:mine."
)
@click.option(
    "--objectives", type=Listed(click.STRING, "objective"), metavar="NAME,...",
    help="At least two objectives, separated by commas, of {objectives}; or of your own, such as "
    "mypkg.metrics:fid.",
)  # fmt: skip
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Reject candidates above this value of an objective (repeatable).",
)
@click.option(
    "--celeba", type=click.Path(path_type=Path), help="Train on the CelebA images of this folder."
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Train on the images of this folder."
)
@click.option(
    "--backend", help="Runtime in which latency is measured: eager, onnxruntime, openvino ..."
)
@click.option("--part", help="Part of the model that is timed: full, encoder or decoder.")
@click.option("--target", help="Machine on which latency is measured, one of `nas target list`.")
@click.option("--device", help="Device: auto, cpu or cuda.")
@click.option(
    "--workers", type=Whole(), help="Number of worker processes that evaluate candidates."
)
@click.option("--threads", type=Whole(), help="Number of training threads of each worker.")
@click.option("--trial-timeout", metavar="TIME", help="Time limit of one trial: 90s, 30m, 2h.")
@click.option("--trial-memory", metavar="SIZE", help="Memory limit of one trial: 4GB, 1500MB.")
@click.option("--runner", help="Where candidates are evaluated: local or ray.")
@click.option("--address", help="Ray cluster (HOST:PORT or auto). Default: start one here.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other key of the configuration (repeatable).",
)
@click.option(
    "--storage",
    help="journal:PATH, postgresql://USER@HOST/DATABASE or grpc://HOST:PORT. Several drivers can "
    "share the last two. Default: a journal in the study's folder.",
)
@click.option(
    "--artefacts",
    metavar="URL",
    help="Also copy artefacts to this store, so that all drivers can read them (s3://..., "
    "file://...).",
)
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@click.option(
    "--mix-environments",
    "mix",
    is_flag=True,
    help="Resume a study whose latencies were measured in another environment; the report says so.",
)
@root_option
def run(
    config: str,
    objectives: list[str] | None,
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
    """Run a study, or resume it: CONFIG is a preset or a YAML file.

    Presets: {presets}. The two reference models are evaluated first, then new
    architectures; at the end the report is written. The same command resumes an interrupted study.
    """
    wait_passively()
    from studies.config.loading import SHORTCUTS, load_config, parse_overrides
    from studies.launch import run_study
    from studies.run.crew import Interrupted
    from studies.run.display import Display
    from studies.run.interruption import Interruption

    overrides = {SHORTCUTS[k]: v for k, v in shortcuts.items() if v is not None}
    if objectives is not None:
        overrides["objectives"] = objectives
    if early_stopping is not None:
        overrides["search.early_stopping"] = {} if early_stopping else None
    limited = parse_overrides(limits, "--limit")
    overrides |= {f"limits.{name}": value for name, value in limited.items()}
    overrides |= data_overrides(celeba, folder)
    overrides |= parse_overrides(settings, "--set")
    resolved = load_config(config, overrides)
    if shortcuts["address"] and resolved.runner != "ray":
        raise UserError("--address names a Ray cluster: add --runner ray")
    display = Display(stderr, resolved.search.trials, resolved.training.epochs)
    with Interruption() as interruption:
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
            print_how_to_resume()
            if not isinstance(stopped, Interrupted):  # the second signal: stop at once
                raise
            _conclude_early(root, resolved.name)
            sys.exit(128 + stopped.signum)
    conclude(record, png)
    if gave_up:
        raise UserError(gave_up)


def _conclude_early(root: Path, name: str) -> None:
    """Write the report of an interrupted study, if it has complete trials."""
    from studies.report.report import write_report
    from studies.store.store import StudyStore

    try:
        record = StudyStore.open(root, name).record()
    except UserError:  # it was interrupted before it began
        return
    if record.complete:
        stdout.say(f"report so far: {write_report(record)}")
