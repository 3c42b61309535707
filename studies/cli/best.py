"""`nas study best`: export the best model of a study within limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.artefacts import WEIGHTS
from nas.objectives import OBJECTIVES, Objective
from studies.cli.console import stderr, stdout
from studies.cli.options import Finite, OutPath, Positive, root_option
from studies.cli.print_study import print_damage
from studies.record.formats import noun
from studies.record.table_files import cannot_write

if TYPE_CHECKING:
    from studies.record.records import StudyRecord, TrialRecord
    from studies.store.store import StudyStore


def _limit_options(command: Any) -> Any:
    for name, objective in OBJECTIVES.items():
        unit = f" ({objective.unit})" if objective.unit else ""
        end = "Upper" if objective.direction == "minimise" else "Lower"
        text = f"{end} limit of {noun(objective)}{unit}."
        kind = Positive(1e30) if objective.by_factor else Finite(-1e30, 1e30)
        command = click.option(_flag(objective), f"limit_{name}", type=kind, help=text)(command)
    return command


def _option(name: str) -> str:
    return "--by" if name == "by" else _flag(OBJECTIVES[name])


def _flag(objective: Objective) -> str:
    end = "max" if objective.direction == "minimise" else "min"
    return f"--{end}-{objective.name.replace('_', '-')}"


@click.command()
@click.argument("name")
@_limit_options
@click.option("--by", help="Objective to be best in. Default: the study's first objective.")
@click.option("-o", "--out", type=OutPath(), help="Folder to write to. Default: NAME-best.")
@root_option
def best(name: str, by: str | None, out: Path | None, root: Path, **limits: float | None) -> None:
    """Export the best model within limits to a folder.

    The folder gets its weights, architecture and result. Of a confirmed model, the weights are
    those of the training with the lowest validation loss.

    Example: nas study best quickstart --max-latency-ms 5 --max-params 1e6
    """
    from studies.record.best import best_trial
    from studies.record.confirmed import shown_value
    from studies.record.floor_words import floor_clauses
    from studies.record.rate import latent_words
    from studies.store.store import StudyStore

    store = StudyStore.open(root, name)
    record = store.record()
    print_damage(record)
    caps = {key.removeprefix("limit_"): cap for key, cap in limits.items() if cap is not None}
    trial = best_trial(record, by, caps, _option)
    values = ", ".join(f"{noun(o)} {shown_value(trial, o)}" for o in record.objectives)
    store.fetch(trial.digest)
    weights, whose = _weights(store, trial)
    written = _take_out(record, trial, weights, out or Path(f"{name}-best"))
    stdout.say((trial.name, "bold"), f": {values}", wrap=True)
    stdout.say(trial.architecture.summary, style="dim")
    if latent := latent_words(record, trial):
        stdout.say(", ".join(latent), style="dim", wrap=True)
    if clauses := floor_clauses(record, trial):
        stdout.say(f"its loss {'; it '.join(clauses)}", style="dim", wrap=True)
    for path in written:
        stdout.say(f"{path} ({whose})" if path.name == WEIGHTS else str(path))
    if len(written) == 2 and record.trained:
        stderr.say("its weights are not in the study's folder any more: none were written")


def _weights(store: StudyStore, trial: TrialRecord) -> tuple[Path, str]:
    """Return the file of the weights with the lowest validation loss, and whose they are."""
    from studies.record.confirmed import best_weights

    seed = best_weights(trial, "total_loss")
    if seed is not None:
        store.fetch_confirmed(trial.digest, seed)
    if seed is not None and (path := store.confirmed_weights(trial.digest, seed)).is_file():
        return path, f"of seed {seed}, which has the lowest validation loss"
    lowest = ", which has the lowest validation loss" if trial.runs and seed is None else ""
    return store.artefacts / trial.digest / WEIGHTS, f"of the search{lowest}"


def _take_out(record: StudyRecord, trial: TrialRecord, weights: Path, folder: Path) -> list[Path]:
    import json

    from profiling.files import write_whole
    from studies.record.floor_words import floor_values

    if weights.exists():
        from nas.checkpoint import load_vae

        load_vae(weights)  # refuse to copy a damaged file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {"study": record.name, "trial": trial.number, "digest": trial.digest}
        numbers = {
            "objectives": dict(trial.objectives),
            "metrics": dict(trial.metrics),
            "floors": floor_values(record, [trial]),
        }
        contents = {
            "architecture.json": (trial.architecture.to_json() + "\n").encode(),
            "result.json": (json.dumps({**found, **numbers}, indent=1) + "\n").encode(),
        }
        if weights.exists():
            contents[weights.name] = weights.read_bytes()
        for name, content in contents.items():
            write_whole(folder / name, content)
        written = [folder / name for name in contents]
    except OSError as error:
        raise cannot_write("--out", folder, error) from None
    return written
