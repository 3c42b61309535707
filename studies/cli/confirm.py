"""`nas study confirm`: train the best models of a study again with further seeds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiling.openmp import wait_passively
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from studies.cli.completion import study_argument
from studies.cli.console import stderr
from studies.cli.options import Positive, Whole, print_how_to_resume, progress_bar, root_option
from studies.cli.print_study import conclude

if TYPE_CHECKING:
    from nas.protocol import TrainingConfig
    from studies.config.study import StudyConfig
    from studies.confirm.results import Budget, Results, TrainingRun
    from studies.record.records import StudyRecord, TrialRecord
    from studies.store.store import StudyStore


@dataclass(frozen=True)
class _Asked:
    """What the options ask for."""

    top: int
    numbers: tuple[int, ...]
    references: tuple[str, ...]
    seeds: int
    epochs: int | None
    rates: tuple[float, ...]
    images: int | None
    device: str
    threads: int | None
    settings: tuple[str, ...]

    @property
    def own_budget(self) -> bool:
        """Whether the trainings have a budget of their own, not that of the search."""
        counts = (self.epochs, self.images)
        return any(count is not None for count in counts) or bool(self.rates or self.settings)


@click.command()
@study_argument
@click.option(
    "--top",
    type=Whole(1),
    default=5,
    show_default=True,
    help="Number of models to confirm, besides the references: the most promising ones.",
)
@click.option(
    "--trial",
    "numbers",
    type=Whole(0),
    multiple=True,
    help="Confirm this trial instead (repeatable).",
)
@click.option(
    "--reference",
    "references",
    type=click.Choice([*REFERENCES, "none"]),
    multiple=True,
    help="Train only this reference again (repeatable), or none.",
)
@click.option(
    "--seeds",
    type=Whole(1, 1000),
    default=3,
    show_default=True,
    help="Number of trainings that count of each model: further ones, of a reference also the "
    "search's.",
)
@click.option("--epochs", type=Whole(1), help="Another maximum number of epochs than the study's.")
@click.option(
    "--learning-rate",
    "rates",
    type=Positive(),
    multiple=True,
    help="Learning rate (repeatable). Each model uses the best one, found with the first seed.",
)
@click.option("--images", type=Whole(), help="Another number of images than the study's.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Device: auto (the study's), cpu, cuda or mps.",
)
@click.option("--threads", type=Whole(1), help="Number of threads. Default: one per core.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of a key of `data` or `training` (repeatable).",
)
@click.option("--png", is_flag=True, help="Also write the figures as PNG (needs a Chromium).")
@root_option
def confirm(name: str, png: bool, root: Path, **options: Any) -> None:
    """Train the best models again with further seeds.

    The models that may be best and the references are trained with the study's own budget, as at
    the end of `nas study run`. Losses become means over the further seeds, with intervals, on the
    validation images; those on the test images are reported beside them.

    With --epochs, --learning-rate, --images or --set the trainings have a budget of their own. The
    result is then a report of its own in the study's folder `retrained`, with losses on the test
    images. The same command resumes an interrupted run.
    """
    wait_passively()
    from studies.confirm.candidates import asked_for, require_training
    from studies.report.report import write_report
    from studies.store.store import StudyStore

    asked = _Asked(**options)
    store = StudyStore.open(root, name)
    study = store.record()
    require_training(study)
    asked_for(study, asked.numbers)  # refuses numbers without a complete trial
    try:
        if not asked.own_budget:
            conclude(_confirmed(store, study, asked), png)
            return
        conclude(_with_own_budget(study, asked), png)
    except KeyboardInterrupt:
        print_how_to_resume()
        raise
    write_report(study)  # with a link to the new report


def _confirmed(store: StudyStore, study: StudyRecord, asked: _Asked) -> StudyRecord:
    """Train with further seeds of the search's own training; return the study's record."""
    from profiling.allocator import tune_allocator
    from profiling.environment import select_device
    from studies.confirm.candidates import fitted_losses
    from studies.confirm.confirmation import Shown, confirm
    from studies.confirm.plan import FIRST, Plan
    from studies.run.images import load_same_images
    from studies.run.interruption import Interruption

    config = _config(study, {} if asked.threads is None else {"threads": asked.threads})
    device = select_device(config.device if asked.device == "auto" else asked.device)
    tune_allocator()
    remedy = "restore them, or give another budget with --images"
    dataset = load_same_images(study, config.data, progress_bar, remedy)
    plan = Plan(
        seeds=asked.seeds,
        top=asked.top,
        first=max(FIRST, asked.seeds),
        numbers=asked.numbers,
        references=tuple(
            n for n in study.references if not asked.references or n in asked.references
        ),
        fitted=fitted_losses(study, config.load_space()),
    )
    with Interruption() as interruption, store.writing():
        shown = Shown(lambda text: stderr.say(text, style="dim"), progress_bar, interruption)
        return confirm(store, config, plan, dataset, device, shown)


def _config(study: StudyRecord, changes: dict[str, Any]) -> StudyConfig:
    """Return the configuration of a study with some values changed."""
    from copy import deepcopy

    from studies.config.loading import overridden
    from studies.config.parts import require_parts

    config = overridden(deepcopy(dict(study.config)), changes, f"study {study.name}")
    require_parts(config, {name: source for name, (_, source) in study.own.items()})
    return config


def _with_own_budget(study: StudyRecord, asked: _Asked) -> StudyRecord:
    """Train with a budget that differs from the search's; return the record of these trainings."""
    from profiling.allocator import tune_allocator
    from profiling.environment import fingerprint, select_device
    from profiling.resources import cores
    from studies.confirm.results import Results
    from studies.confirm.retraining import chosen, retrain
    from studies.run.floors import shown_floors
    from studies.run.images import data_facts, load_images

    trials = chosen(study, asked.top, asked.numbers, asked.references)
    budget = _budget(study, asked)
    device = select_device(asked.device)
    tune_allocator()
    dataset = load_images(budget.data, study.image_size, progress_bar, study.image_channels)
    facts = {**data_facts(dataset), "device_name": fingerprint(device).device_name}
    results = Results(study, budget, facts)
    threads = asked.threads or cores()
    with results.alone():
        sizes = {trial.architecture.latent_size for trial in trials}
        if missing := results.missing_floors(study, sizes):
            results.set_floors(
                shown_floors(dataset, budget.training, missing, threads, progress_bar)
            )
    first = budget.training.seed
    wanted = range(first, first + asked.seeds)
    with ExitStack() as bars:

        def begun(trial: TrialRecord, config: TrainingConfig) -> Callable[[int, int], None]:
            label = f"{trial.name}, seed {config.seed}, learning rate {config.learning_rate:g}"
            return bars.enter_context(progress_bar(label))

        def ended(trial: TrialRecord, run: TrainingRun) -> None:
            bars.close()
            _print_run(results, trials, wanted, trial, run)

        retrain(results, trials, wanted, dataset, device, threads, begun, ended)
    return results.record(study)


def _print_run(
    results: Results,
    trials: list[TrialRecord],
    wanted: range,
    trial: TrialRecord,
    run: TrainingRun,
) -> None:
    from studies.record.formats import format_duration

    digests = {one.digest for one in trials}
    done = sum(one.digest in digests and one.seed in wanted for one in results.runs)
    total = len(trials) * (len(wanted) - 1 + len(results.budget.rates))
    stderr.say(
        f"{done} of {total}: {trial.name}, seed {run.seed}, "
        f"learning rate {run.learning_rate:g}: test loss {run.test['reconstruction']:.4f} "
        f"after epoch {run.best_epoch} of {len(run.history)}, {format_duration(run.duration_s)}"
    )


def _budget(study: StudyRecord, asked: _Asked) -> Budget:
    from studies.config.loading import parse_overrides
    from studies.confirm.results import Budget

    changes: dict[str, Any] = {}
    if asked.epochs is not None:
        changes["training.epochs"] = asked.epochs
    if asked.images is not None:
        changes["data.count"] = asked.images
    further = parse_overrides(asked.settings, "--set")
    for key in further:
        if key.partition(".")[0] not in ("data", "training"):
            raise UserError(f"--set {key}: only keys of data.* and training.* can be set here")
    resolved = _config(study, changes | further)
    chosen = tuple(dict.fromkeys(asked.rates)) or (resolved.training.learning_rate,)
    return Budget(resolved.data, resolved.training, chosen)
