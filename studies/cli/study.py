"""`nas study`: run studies, look at them, and take models out of them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

# Not torch, nor what imports it: `run` still has to say how its threads wait.
from nas.objectives import OBJECTIVES, hypervolume
from search_spaces.errors import UserError, nearest
from studies.cli.console import stderr, stdout
from studies.cli.main import HelpfulGroup
from studies.cli.options import progress_bar, root_option, tell_how_to_resume
from studies.cli.print_study import print_study
from studies.cli.retrain import retrain
from studies.formats import format_value, noun

if TYPE_CHECKING:
    from studies.records import StudyRecord, TrialRecord
    from studies.store import StudyStore

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


@click.group(cls=HelpfulGroup)
def study() -> None:
    """Run Pareto studies; show, compare and export them."""


study.add_command(retrain)


@study.command()
@click.argument("config")
@click.option("--name", help="Name of the study; its folder in --root.")
@click.option("--space", help="Named space or YAML file.")
@click.option("--trials", type=int, help="Architectures to search, the two references apart.")
@click.option("--sampler", help="pareto, tpe, nsga2, nsga3, random, qmc or enumerate.")
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

    Presets: quickstart, paper, wide. The two reference models are evaluated first, then one unseen
    architecture after another; the report is written at the end.
    """
    _wait_passively()
    from studies.config import load_config, parse_overrides
    from studies.crew import Interrupted
    from studies.display import Display
    from studies.interruption import Interruption
    from studies.launch import run_study

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
                resolved, root, storage, display, progress_bar, mix, interruption, artefacts
            )
        except KeyboardInterrupt as stopped:
            tell_how_to_resume()
            if not isinstance(stopped, Interrupted):  # the second signal: at once
                raise
            _conclude_early(root, resolved.name)
            sys.exit(128 + stopped.signum)
    _conclude(record, png)
    if gave_up:
        raise UserError(gave_up)


def _conclude_early(root: Path, name: str) -> None:
    """Report on what there is of an interrupted study, if there is anything."""
    from studies.report import write_report

    try:
        record = _open(root, name)
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


def _open(root: Path, name: str) -> StudyRecord:
    return _store(root, name).record()


def _store(root: Path, name: str) -> StudyStore:
    from studies.store import StudyStore

    return StudyStore.open(root, name)


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


def _conclude(record: StudyRecord, png: bool) -> None:
    from studies.report import write_report

    print_study(record)
    report = write_report(record)
    if png:
        _write_pngs(record)
    stdout.print(f"\nreport: {report}", soft_wrap=True)


def _write_pngs(record: StudyRecord) -> None:
    from studies.report import write_pngs

    try:
        written = write_pngs(record, record.folder / "figures")
    except UserError as error:  # the report itself is there
        stderr.print(f"[yellow]no PNGs: {escape(str(error))}[/yellow]")
        return
    stdout.print(f"figures: {record.folder / 'figures'} ({len(written)} PNGs)", soft_wrap=True)


@study.command("list")
@root_option
def list_(root: Path) -> None:
    """List the studies in the root folder."""
    from studies.store import list_studies

    names = list_studies(root)
    if not names:
        stdout.print(f"no studies in {root}; start one: nas study run quickstart")
        return
    table = Table(
        "study", "space", "objectives", "complete", "front", "hypervolume", box=None, pad_edge=False
    )
    for name in names:
        try:
            record = _open(root, name)
        except UserError as error:
            stderr.print(f"[yellow]{escape(str(error))}[/yellow]")
            continue
        volume = hypervolume(record.points(record.complete), record.nadir)
        table.add_row(
            escape(name),
            escape(str(record.config["space"])),
            str(len(record.objectives)),
            str(len(record.complete)),
            str(len(record.front)),
            f"{volume:.4f}",
        )
    stdout.print(table)


@study.command()
@click.argument("name")
@root_option
def show(name: str, root: Path) -> None:
    """Show a study's result: the front beside both references, and what failed."""
    print_study(_open(root, name))


@study.command()
@click.argument("name")
@click.option("--format", "kind", type=click.Choice(["csv", "parquet", "json"]), default="csv")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Default: NAME.FORMAT here.")
@root_option
def export(name: str, kind: str, out: Path | None, root: Path) -> None:
    """Write every trial as one row of a table."""
    from studies.tables import trials_table

    table = trials_table(_open(root, name))
    path = out or Path(f"{name}.{kind}")
    try:
        if kind == "csv":
            table.to_csv(path, index=False)
        elif kind == "parquet":
            table.to_parquet(path, index=False)
        else:
            table.to_json(path, orient="records", indent=1)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror})") from None
    stdout.print(f"{path}: {len(table)} trials, {len(table.columns)} columns", soft_wrap=True)


@study.command()
@click.argument("name")
@click.option("--axes", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Also write all of it as CSV.")
@root_option
def effects(name: str, axes: int, out: Path | None, root: Path) -> None:
    """Tell which axes of the space decide each objective, and which way.

    What a choice makes of an objective is told against the average choice of its axis, in brackets
    where it may be chance (95 %). A study of random trials tells most: a search favours some
    choices.
    """
    from studies.axis_effects import effect_table, format_effect

    record = _open(root, name)
    table = effect_table(record)
    if table.empty:
        raise UserError(f"study {name!r}: too few trials, or no axis that matters among them")
    objectives = [one for one in record.objectives if one.name in table]
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("axis, choice", no_wrap=True)
    for head in ("trials", *(noun(one).split()[-1] for one in objectives)):
        shown.add_column(head, justify="right", min_width=7)
    before = None
    for row in table[table["axis"].isin(table["axis"].unique()[:axes])].to_dict("records"):
        if row["axis"] != before:
            shown.add_row(escape(str(row["axis"])), style="bold")
        told = [format_effect(row, one.name).replace(" %", "%") for one in objectives]
        shown.add_row(f"  {escape(str(row['choice']))}", str(row["trials"]), *told)
        before = row["axis"]
    stdout.print(shown)
    if out:
        try:
            table.to_csv(out, index=False)
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
        stdout.print(f"{out}: {len(table)} choices", soft_wrap=True)


@study.command()
@click.argument("name")
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@root_option
def report(name: str, png: bool, root: Path) -> None:
    """Write the study's HTML report anew."""
    from studies.report import write_report

    store = _store(root, name)
    store.fetch("samples.npy")
    store.fetch(only="reconstructions.npy")
    record = store.record()
    stdout.print(str(write_report(record)), soft_wrap=True)
    if png:
        _write_pngs(record)


def _limit_options(command: Any) -> Any:
    for name, objective in OBJECTIVES.items():
        flag = f"--max-{name.replace('_', '-')}"
        text = f"Largest {objective.title.lower()}{f' ({objective.unit})' * bool(objective.unit)}."
        command = click.option(flag, f"max_{name}", type=float, help=text)(command)
    return command


@study.command()
@click.argument("name")
@_limit_options
@click.option("--by", help="What to minimise; default: the study's first objective.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder; default: NAME-best.")
@root_option
def best(name: str, by: str | None, out: Path | None, root: Path, **limits: float | None) -> None:
    """Get *the* model: the best one within limits, with weights and architecture.

    Example: nas study best quickstart --max-latency-ms 5 --max-params 1e6
    """
    store = _store(root, name)
    record = store.record()
    caps = {key.removeprefix("max_"): cap for key, cap in limits.items() if cap is not None}
    trial = _best(record, by or record.objective_names[0], caps)
    values = ", ".join(
        f"{noun(o)} {format_value(o, trial.objectives[o.name])}" for o in record.objectives
    )
    stdout.print(f"[bold]{trial.name}[/bold]: {values}")
    stdout.print(escape(trial.architecture.summary), style="dim")
    store.fetch(trial.digest)
    for path in _take_out(record, trial, out or Path(f"{name}-best")):
        stdout.print(str(path), soft_wrap=True)


def _best(record: StudyRecord, by: str, caps: dict[str, float]) -> TrialRecord:
    if not record.complete:
        raise UserError(f"study {record.name!r} has no complete trial to choose from")
    known = sorted({name for trial in record.complete for name in trial.objectives})
    if by not in known:
        raise UserError(f"--by {by}: this study knows {', '.join(known)}{nearest(by, known)}")
    for cap in caps:
        if cap not in known:
            flag = cap.replace("_", "-")
            raise UserError(
                f"--max-{flag}: this study did not record it; it has {', '.join(known)}"
            )
    fitting = [t for t in record.complete if all(t.objectives[n] <= c for n, c in caps.items())]
    if not fitting:
        ranges = ", ".join(
            f"{noun(OBJECTIVES[n])} from "
            f"{format_value(OBJECTIVES[n], min(t.objectives[n] for t in record.complete))}"
            for n in caps
        )
        raise UserError(
            f"no model of study {record.name!r} is within these limits; it has {ranges}"
        )
    return min(fitting, key=lambda trial: trial.objectives[by])


def _take_out(record: StudyRecord, trial: TrialRecord, folder: Path) -> list[Path]:
    import json
    import shutil

    from nas.artefacts import WEIGHTS

    weights = record.folder / "artefacts" / trial.digest / WEIGHTS
    if weights.exists():
        from nas.checkpoint import load_vae

        load_vae(weights)  # a damaged file is refused, not handed on
    try:
        folder.mkdir(parents=True, exist_ok=True)
        architecture = folder / "architecture.json"
        architecture.write_text(trial.architecture.to_json() + "\n", encoding="utf-8")
        result = folder / "result.json"
        found = {"study": record.name, "trial": trial.number, "digest": trial.digest}
        numbers = {"objectives": dict(trial.objectives), "metrics": dict(trial.metrics)}
        result.write_text(json.dumps({**found, **numbers}, indent=1) + "\n", encoding="utf-8")
        written = [architecture, result]
        if weights.exists():
            written.append(Path(shutil.copy(weights, folder / weights.name)))
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
    return written
