"""`nas study retrain`: train the best of a front with several seeds and a larger budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiling.openmp import wait_passively
from search_spaces.references import REFERENCES
from studies.cli.console import stderr
from studies.cli.options import Positive, Whole, print_how_to_resume, progress_bar, root_option
from studies.cli.print_study import conclude

if TYPE_CHECKING:
    from nas.protocol import TrainingConfig
    from studies.record.records import StudyRecord, TrialRecord
    from studies.run.retraining import Budget, Results, TrainingRun

_LONGER = 3
"""Default number of epochs, as a multiple of the search's epochs."""


@click.command()
@click.argument("name")
@click.option(
    "--top",
    type=Whole(1),
    default=5,
    show_default=True,
    help="Number of members of the front to retrain: those that improve most on `original`.",
)
@click.option(
    "--trial",
    "numbers",
    type=Whole(0),
    multiple=True,
    help="Retrain this trial instead (repeatable).",
)
@click.option(
    "--reference",
    "references",
    type=click.Choice([*REFERENCES, "none"]),
    multiple=True,
    help="Retrain only this reference (repeatable), or none.",
)
@click.option(
    "--seeds",
    type=Whole(1, 1000),
    default=3,
    show_default=True,
    help="Number of trainings of each model.",
)
@click.option(
    "--epochs",
    type=Whole(1),
    help=f"Maximum number of epochs. Default: {_LONGER} times the study's.",
)
@click.option(
    "--learning-rate",
    "rates",
    type=Positive(),
    multiple=True,
    help="Learning rate (repeatable). Each model uses the best one, found with the first seed.",
)
@click.option("--images", type=Whole(), help="Number of images. Default: the study's.")
@click.option("--device", default="auto", show_default=True, help="Device: auto, cpu or cuda.")
@click.option("--threads", type=Whole(1), help="Number of threads. Default: one per core.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other key of `data` or `training` (repeatable).",
)
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@root_option
def retrain(
    name: str,
    top: int,
    numbers: tuple[int, ...],
    references: tuple[str, ...],
    seeds: int,
    epochs: int | None,
    rates: tuple[float, ...],
    images: int | None,
    device: str,
    threads: int | None,
    settings: tuple[str, ...],
    png: bool,
    root: Path,
) -> None:
    """Retrain the best models with several seeds and test them.

    The best of the front and the references get the same budget and the same choice of learning
    rates, and are evaluated on the test images. This confirms or refutes results that the search
    found with one short training and the validation images. The result is a
    report in the study's folder `retrained`. The same command resumes an interrupted run; after the
    last training it only writes the report again.
    """
    wait_passively()
    from profiling.resources import cores
    from studies.report.report import write_report
    from studies.run.retraining import chosen
    from studies.store.store import StudyStore

    study = StudyStore.open(root, name).record()
    trials = chosen(study, top, numbers, references)
    budget = _budget(study, epochs, rates, images, settings)
    results = _run(study, trials, seeds, budget, device, threads or cores())
    conclude(results.record(study), png)
    write_report(study)  # with a link to the new report


def _budget(
    study: StudyRecord,
    epochs: int | None,
    rates: tuple[float, ...],
    images: int | None,
    settings: tuple[str, ...],
) -> Budget:
    from copy import deepcopy

    from search_spaces.errors import UserError
    from studies.config.loading import overridden, parse_overrides
    from studies.run.retraining import Budget

    config = deepcopy(dict(study.config))
    asked: dict[str, Any] = {"training.epochs": epochs or _LONGER * config["training"]["epochs"]}
    if images is not None:
        asked["data.count"] = images
    further = parse_overrides(settings, "--set")
    for key in further:
        if key.partition(".")[0] not in ("data", "training"):
            raise UserError(f"--set {key}: only keys of data.* and training.* can be set here")
    resolved = overridden(config, asked | further, f"study {study.name}")
    chosen = tuple(dict.fromkeys(rates)) or (resolved.training.learning_rate,)
    return Budget(resolved.data, resolved.training, chosen)


def _run(
    study: StudyRecord,
    trials: list[TrialRecord],
    seeds: int,
    budget: Budget,
    device_name: str,
    thread_count: int,
) -> Results:
    from profiling.allocator import tune_allocator
    from profiling.environment import fingerprint, select_device
    from studies.record.formats import format_duration
    from studies.run.evaluators import data_facts, load_images
    from studies.run.retraining import Results
    from studies.run.retraining import retrain as train

    device = select_device(device_name)
    tune_allocator()
    dataset = load_images(budget.data, study.image_size, progress_bar)
    facts = {**data_facts(dataset), "device_name": fingerprint(device).device_name}
    results = Results(study, budget, facts)
    first = budget.training.seed
    wanted = range(first, first + seeds)

    with ExitStack() as bars:

        def begun(trial: TrialRecord, config: TrainingConfig) -> Callable[[int, int], None]:
            label = f"{trial.name}, seed {config.seed}, learning rate {config.learning_rate:g}"
            return bars.enter_context(progress_bar(label))

        def ended(trial: TrialRecord, run: TrainingRun) -> None:
            bars.close()
            asked = {t.digest for t in trials}
            done = sum(r.digest in asked and r.seed in wanted for r in results.runs)
            total = len(trials) * (seeds - 1 + len(budget.rates))
            length = format_duration(run.duration_s)
            stderr.say(
                f"{done} of {total}: {trial.name}, seed {run.seed}, "
                f"learning rate {run.learning_rate:g}: test loss {run.test['reconstruction']:.4f} "
                f"after epoch {run.best_epoch} of {len(run.history)}, {length}"
            )

        try:
            train(results, trials, wanted, dataset, device, thread_count, begun, ended)
        except KeyboardInterrupt:
            print_how_to_resume()
            raise
    return results
