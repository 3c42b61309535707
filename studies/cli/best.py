"""`nas study best`: export the best model of a study within limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.artefacts import WEIGHTS
from nas.objectives import OBJECTIVES, Objective
from studies.cli.completion import study_argument
from studies.cli.console import stderr, stdout
from studies.cli.formats import format_option, show
from studies.cli.options import Finite, OutPath, Positive, root_option
from studies.cli.print_study import print_damage
from studies.record.formats import noun
from studies.record.table_files import cannot_write

if TYPE_CHECKING:
    from studies.record.records import StudyRecord, TrialRecord

_DATA = ("kind", "fit")
"""Settings of images that say how a picture is given to the model."""


def limit_options(command: Any) -> Any:
    """Add an option for a limit of each objective to a command; `limits_of` reads them."""
    for name, objective in OBJECTIVES.items():
        unit = f" ({objective.unit})" if objective.unit else ""
        end = "Upper" if objective.direction == "minimise" else "Lower"
        text = f"{end} limit of {noun(objective)}{unit}."
        kind = Positive(1e30) if objective.by_factor else Finite(-1e30, 1e30)
        command = click.option(_flag(objective), f"limit_{name}", type=kind, help=text)(command)
    return command


def option_name(name: str) -> str:
    """Return the option of `by`, or of the limit of an objective."""
    return "--by" if name == "by" else _flag(OBJECTIVES[name])


def _flag(objective: Objective) -> str:
    end = "max" if objective.direction == "minimise" else "min"
    return f"--{end}-{objective.name.replace('_', '-')}"


def limits_of(options: Mapping[str, float | None]) -> dict[str, float]:
    """Return the limits that were given, by the name of the objective."""
    return {key.removeprefix("limit_"): cap for key, cap in options.items() if cap is not None}


@click.command()
@study_argument
@limit_options
@click.option("--by", help="Objective to be best in. Default: the study's first objective.")
@click.option("-o", "--out", type=OutPath(), help="Folder to write to. Default: NAME-best.")
@format_option
@root_option
def best(
    name: str,
    by: str | None,
    out: Path | None,
    kind: str,
    root: Path,
    **limits: float | None,
) -> None:
    """Export the best model within limits to a folder.

    The folder gets its weights, architecture and result. Of a confirmed model, the weights are
    those of the training with the lowest validation loss.

    Example: nas study best quickstart --max-latency-ms 5 --max-params 1e6
    """
    from studies.record.best import best_trial
    from studies.store.finding import best_weights_of
    from studies.store.store import StudyStore

    store = StudyStore.open(root, name)
    record = store.record()
    print_damage(record)
    trial = best_trial(record, by, limits_of(limits), option_name)
    store.fetch(trial.digest)
    weights, whose = best_weights_of(store, trial)
    folder = out or Path(f"{name}-best")
    written = _take_out(record, trial, weights, folder)
    show(kind, [_row(trial, folder)], lambda: _print(record, trial, written, whose))
    if len(written) == 2 and record.trained:
        stderr.say("its weights are not in the study's folder any more: none were written")


def _row(trial: TrialRecord, folder: Path) -> dict[str, Any]:
    values = {**trial.objectives, "architecture": trial.architecture.summary}
    return {"model": trial.name, "number": trial.number, **values, "folder": str(folder)}


def _print(record: StudyRecord, trial: TrialRecord, written: list[Path], whose: str) -> None:
    from studies.record.confirmed import shown_value
    from studies.record.floor_words import floor_clauses
    from studies.record.rate import latent_words

    values = ", ".join(f"{noun(o)} {shown_value(trial, o)}" for o in record.objectives)
    stdout.say((trial.name, "bold"), f": {values}", wrap=True)
    stdout.say(trial.architecture.summary, style="dim")
    if latent := latent_words(record, trial):
        stdout.say(", ".join(latent), style="dim", wrap=True)
    if clauses := floor_clauses(record, trial):
        stdout.say(f"its loss {'; it '.join(clauses)}", style="dim", wrap=True)
    for path in written:
        stdout.say(f"{path} ({whose})" if path.name == WEIGHTS else str(path))


def _take_out(record: StudyRecord, trial: TrialRecord, weights: Path, folder: Path) -> list[Path]:
    from profiling.files import write_whole
    from studies.record.floor_words import floor_values
    from studies.record.model_files import model_files

    if weights.exists():
        from nas.checkpoint import load_vae

        load_vae(weights)  # refuse to copy a damaged file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        result = {
            "study": record.name,
            "trial": trial.number,
            "digest": trial.digest,
            "objectives": dict(trial.objectives),
            "metrics": dict(trial.metrics),
            "floors": floor_values(record, [trial]),
            "data": {k: v for k, v in record.config.get("data", {}).items() if k in _DATA},
            "training": record.config.get("training"),
            "data_fingerprint": record.environment.get("data_fingerprint"),
        }
        contents = model_files(trial.architecture, result)
        if weights.exists():
            contents[weights.name] = weights.read_bytes()
        for name, content in contents.items():
            write_whole(folder / name, content)
        written = [folder / name for name in contents]
    except OSError as error:
        raise cannot_write("--out", folder, error) from None
    return written
