"""`nas study run`: search, evaluate and report; resume a study, or go on with a stored one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

# Not torch, nor what imports it: `run` still has to say how its threads wait.
from profiling.openmp import wait_passively
from search_spaces.errors import UserError
from studies.cli.completion import (
    BACKENDS,
    CONFIGURATIONS,
    OBJECTIVES,
    SAMPLERS,
    SPACES,
    STUDIES,
)
from studies.cli.console import stderr, stdout
from studies.cli.dry_run import print_forecast
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
from studies.config.presets import presets
from studies.record.names import HEAD

if TYPE_CHECKING:
    from studies.config.sources import Source
    from studies.config.study import StudyConfig


@click.command(cls=TableHelp)
@click.argument("config", shell_complete=CONFIGURATIONS)
@click.option("--name", help="Name of the study and of its folder in --root.")
@click.option("--space", shell_complete=SPACES, help="Search space: a name or a YAML file.")
@click.option(
    "--trials",
    type=Whole(),
    help="Number of architectures to evaluate, besides the two references.",
)
@click.option("--sampler", shell_complete=SAMPLERS, help="Sampler, one of {samplers}.")
@click.option("--seed", type=Whole(), help="Seed of the search.")
@click.option(
    "--focus",
    help="The part of the front to search for: accurate, balanced or cheap (sampler pareto only).",
)
@click.option(
    "--warm-start",
    metavar="STUDY",
    shell_complete=STUDIES,
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
    shell_complete=OBJECTIVES,
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
    "--backend",
    shell_complete=BACKENDS,
    help="Runtime in which latency is measured: eager, onnxruntime, openvino ...",
)
@click.option("--part", help="Part of the model that is timed: full, encoder or decoder.")
@click.option("--target", help="Machine on which latency is measured, one of `nas target list`.")
@click.option("--device", help="Device: auto, cpu, cuda or mps.")
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
@click.option(
    "--curves", metavar="PART",
    help="Also write training curves: tensorboard, or a function of your own, such as "
    "mypkg.tracking:log.",
)  # fmt: skip
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be run, with estimates of time, memory and disk; write nothing.",
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
    curves: str | None,
    dry_run: bool,
    root: Path,
    **shortcuts: Any,
) -> None:
    """Run a study, or resume it: CONFIG is a preset, a YAML file or a stored study.

    Presets: {presets}. The two reference models are evaluated first, then new
    architectures; at the end the report is written. The same command resumes an interrupted study.

    The name of a stored study, or its study.yaml, goes on with that study and its settings. With
    another --root or --name it runs a new study with the same settings. Of a preset and a study of
    the same name, the name means the preset.
    """
    wait_passively()
    from studies.config.loading import overridden
    from studies.config.sources import find_source
    from studies.launch import run_study
    from studies.run.crew import Interrupted
    from studies.run.display import Display
    from studies.run.interruption import Interruption

    given = _given(objectives, early_stopping, limits, (celeba, folder), settings, shortcuts)
    source = find_source(config, root)
    resolved = overridden(source.data, given.values, source.shown, given.options)
    root = _root(root, source)
    if shortcuts["address"] and resolved.runner != "ray":
        raise UserError("--address names a Ray cluster: add --runner ray")
    _say_which(source, resolved, root)
    opening = _about_stored(source, resolved, root)
    if dry_run:
        print_forecast(resolved, root, storage)
        if opening:
            stderr.say(opening, style="yellow")
        return
    size = resolved.search.trials, resolved.training.epochs
    display = Display(stderr, *size)
    if curves is not None:
        from studies.run.curves import DisplayWithCurves, find_curves

        display = DisplayWithCurves(stderr, *size, find_curves(curves, root / resolved.name))
    display.opening = opening
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


class _Given:
    """The values that options give to keys of the configuration, and those options."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.options: dict[str, str] = {}

    def add(self, option: str, values: Mapping[str, Any]) -> None:
        """Add the values of an option by key; the last value of a key counts."""
        self.values |= values
        self.options |= dict.fromkeys(values, option)
        if option == "--limit":  # the limits are validated together
            self.options["limits"] = option


def _given(
    objectives: list[str] | None,
    early_stopping: bool | None,
    limits: tuple[str, ...],
    images: tuple[Path | None, Path | None],
    settings: tuple[str, ...],
    shortcuts: Mapping[str, Any],
) -> _Given:
    from studies.config.loading import SHORTCUTS, parse_overrides

    given = _Given()
    for name, value in shortcuts.items():
        if value is not None:
            given.add(f"--{name.replace('_', '-')}", {SHORTCUTS[name]: value})
    if objectives is not None:
        given.add("--objectives", {"objectives": objectives})
    if early_stopping is not None:
        given.add("--early-stopping", {"search.early_stopping": {} if early_stopping else None})
    for key, limit in parse_overrides(limits, "--limit").items():
        given.add("--limit", {f"limits.{key}": limit})
    given.add("--celeba" if images[0] else "--folder", data_overrides(*images))
    given.add("--set", parse_overrides(settings, "--set"))
    return given


def _root(given: Path, source: Source) -> Path:
    """Return the folder of all studies: that of a stored study, unless --root names another."""
    asked = click.get_current_context().get_parameter_source("root")
    if source.folder is None or asked is ParameterSource.COMMANDLINE:
        return given
    return source.folder.parent


def _say_which(source: Source, config: StudyConfig, root: Path) -> None:
    """Say whether a stored study goes on or runs anew."""
    if source.stored:
        which = f"going on with study {config.name} in {root}"
        if not (root / config.name / HEAD).is_file():
            which = f"a new study {config.name} in {root}, with the settings of {source.shown}"
        stderr.say(which, style="dim")


def _about_stored(source: Source, config: StudyConfig, root: Path) -> str:
    """Return how to go on with a study whose settings differ from those of a preset, or ""."""
    head = root / config.name / HEAD
    if not (source.shown in presets() and head.is_file() and _differs(head, config)):
        return ""
    return (
        f"{source.shown} is the preset; the stored study {config.name} has other settings: to go "
        f"on with these, run: nas study run {head}"
    )


def _differs(head: Path, config: StudyConfig) -> bool:
    from studies.config.sources import stored_config

    with suppress(UserError):  # it is refused later
        stored, now = stored_config(head), config.to_dict()
        for one in (stored, now):
            one["training"] = {**one.get("training", {}), "precision": None}  # "auto" was resolved
        return any(stored.get(key) != value for key, value in now.items())
    return False


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
