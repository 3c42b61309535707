"""`nas study best`: export the best model of a study within limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.artefacts import WEIGHTS
from nas.objectives import OBJECTIVES, TRAINED_OBJECTIVE, Objective, sign_of
from search_spaces.errors import UserError, nearest
from search_spaces.numbers import at_least, at_most
from studies.cli.console import stderr, stdout
from studies.cli.options import Finite, OutPath, Positive, root_option
from studies.cli.print_study import print_damage
from studies.record.formats import noun
from studies.record.table_files import cannot_write

if TYPE_CHECKING:
    from studies.record.records import StudyRecord, TrialRecord
    from studies.store.store import StudyStore

_DATA = ("kind", "fit")
"""Settings of images that say how a picture is given to the model."""


def _limit_options(command: Any) -> Any:
    for name, objective in OBJECTIVES.items():
        unit = f" ({objective.unit})" if objective.unit else ""
        end = "Upper" if objective.direction == "minimise" else "Lower"
        text = f"{end} limit of {noun(objective)}{unit}."
        kind = Positive(1e30) if objective.by_factor else Finite(-1e30, 1e30)
        command = click.option(_flag(objective), f"limit_{name}", type=kind, help=text)(command)
    return command


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
    from studies.record.confirmed import shown_value
    from studies.record.floor_words import floor_clauses
    from studies.record.rate import latent_words
    from studies.store.store import StudyStore

    store = StudyStore.open(root, name)
    record = store.record()
    print_damage(record)
    caps = {key.removeprefix("limit_"): cap for key, cap in limits.items() if cap is not None}
    trial = _best(record, by or record.objective_names[0], caps)
    values = ", ".join(f"{noun(o)} {shown_value(trial, o)}" for o in record.objectives)
    store.fetch(trial.digest)
    weights, whose = best_weights_of(store, trial)
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


def _best(record: StudyRecord, by: str, caps: dict[str, float]) -> TrialRecord:
    if not record.complete:
        raise UserError(f"study {record.name!r} has no complete trial to choose from")
    if not record.learned:
        raise UserError(f"no model of study {record.name!r} has learned: {_why_none(record)}")
    known = sorted({name for trial in record.complete for name in _values(trial)})
    if by not in known:
        raise UserError(
            f"--by {by}: the study did not record it{nearest(by, known)}; it has {', '.join(known)}"
        )
    for cap in caps:
        if cap not in known:
            flag = _flag(OBJECTIVES[cap])
            raise UserError(f"{flag}: the study did not record it; it has {', '.join(known)}")
    usable = [t for t in record.learned if {by, *caps} <= _values(t).keys()]
    if not usable:
        raise UserError(
            f"no model of study {record.name!r} has all of {', '.join(dict.fromkeys([by, *caps]))}"
        )
    fitting = [t for t in usable if all(_excess(t, n, cap) <= 0 for n, cap in caps.items())]
    if not fitting:
        nearest_one = min(usable, key=lambda t: max(_excess(t, n, c) for n, c in caps.items()))
        values = ", ".join(f"{noun(OBJECTIVES[n])} {_reached(nearest_one, n)}" for n in caps)
        raise UserError(
            f"no model of study {record.name!r} is within these limits; the nearest, "
            f"{nearest_one.name}, has {values}"
        )
    # A loss of one training may be low by luck: prefer confirmed models where any fits.
    sure = [t for t in fitting if t.confirmed and not t.reference] if _is_learned(by) else []
    return min(sure or fitting, key=lambda trial: sign_of(by) * _values(trial)[by])


def _values(trial: TrialRecord) -> dict[str, float]:
    """Return the recorded values of all objectives, also of those that the study does not have."""
    metrics = {name: value for name, value in trial.metrics.items() if name in OBJECTIVES}
    return {**metrics, **trial.objectives}


def _excess(trial: TrialRecord, name: str, cap: float) -> float:
    """Return how far a value is beyond a limit, in units of the limit's distance from the ideal."""
    objective = OBJECTIVES[name]
    room = max(objective.sign * (cap - objective.ideal), 1e-12)
    return objective.sign * (_values(trial)[name] - cap) / room


def _reached(trial: TrialRecord, name: str) -> str:
    """Return a limit that the trial's value meets."""
    value = _values(trial)[name]
    return at_least(value) if sign_of(name) > 0 else at_most(value)


def _why_none(record: StudyRecord) -> str:
    """Return why no model has learned, by the one with the lowest loss, and what to do."""
    lowest = min(record.complete, key=lambda trial: trial.objectives[TRAINED_OBJECTIVE])
    return (
        f"the best of them, {lowest.name}, has not because {record.unlearned(lowest)}; train with "
        "more epochs (--epochs) or more images (--images), in a study of another name"
    )


def _is_learned(name: str) -> bool:
    return name in OBJECTIVES and OBJECTIVES[name].cost == "training"


def best_weights_of(store: StudyStore, trial: TrialRecord) -> tuple[Path, str]:
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
