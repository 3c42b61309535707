"""`nas compress`: make a trained model of a study smaller, or train it with a teacher."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiling.openmp import wait_passively
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError, nearest, quoted
from studies.cli.console import stderr, stdout
from studies.cli.help import TableHelp
from studies.cli.options import (
    Finite,
    Listed,
    Whole,
    find_architecture,
    print_how_to_resume,
    progress_bar,
    root_option,
)

if TYPE_CHECKING:
    from nas.deploy.variants import Variant
    from studies.compress.distillation import Teacher
    from studies.compress.folder import StageFolder
    from studies.compress.training import Setting
    from studies.record.records import StudyRecord, TrialRecord
    from studies.store.store import StudyStore


@click.command(cls=TableHelp)
@click.argument("trial", metavar="STUDY#TRIAL")
@click.option(
    "--prune",
    metavar="SHARE|ARCH",
    help="Prune to this share of each width, such as 0.5, or to a narrower architecture: a JSON or "
    "YAML file, or STUDY#TRIAL.",
)
@click.option(
    "--norm",
    type=click.Choice(["l1", "l2"]),
    default="l1",
    show_default=True,
    help="Norm of the weights by which the strongest filters are kept.",
)
@click.option(
    "--distil",
    metavar="TEACHER",
    type=Listed(click.STRING, "teacher"),
    help="Train with this teacher: a reference or a trial's number of the study, or STUDY#TRIAL. "
    "Several, separated by commas, are an ensemble.",
)
@click.option(
    "--quantize",
    metavar="VARIANT",
    type=Listed(click.STRING, "variant"),
    help="Run the result in a lower precision: openvino-int8, onnxruntime-int8, openvino-bfloat16; "
    "after exact rewrites openvino_rewritten-int8 and so on; int8 and bfloat16 are all runtimes.",
)
@click.option(
    "--loss-cost",
    type=Finite(0, 100),
    default=1.0,
    show_default=True,
    help="Percentage of the loss that int8 may cost; above it, sensitive layers stay in floating "
    "point. bfloat16 may cost 0.1.",
)
@click.option("--epochs", type=Whole(1), help="Maximum number of epochs. Default: the study's.")
@click.option(
    "--seeds",
    type=Whole(1, 1000),
    default=3,
    show_default=True,
    help="Number of trainings of each model and control.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="Device: auto (the study's), cpu, cuda or mps.",
)
@click.option("--threads", type=Whole(1), help="Number of threads. Default: one per core.")
@root_option
def compress(trial: str, root: Path, **options: Any) -> None:
    """Make a trained model smaller, and show whether that pays.

    STUDY#TRIAL is a trial's number or a reference, such as quickstart#8. The stages run in the
    order --prune, --distil, --quantize; each continues the models of the one before. Without
    --prune the students of --distil begin with new weights. Without both, --quantize takes the
    trainings of the trial that are kept.

    Each stage is trained beside its controls: a pruned model beside the same architecture trained
    from new weights for as many epochs in total; a student with a teacher beside one without, and
    beside one that is trained longer by the teacher's time; a lower precision beside float32 in the
    same runtime. The study's folder `compressed` gets
    the models, their records and a page. The same command resumes an interrupted run.
    """
    wait_passively()
    with _interruptible():
        _compress(trial, root, options)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say how to resume where a signal ends the body; exit with 128 plus the signal's number."""
    from studies.run.crew import Interrupted
    from studies.run.interruption import Interruption

    try:
        with Interruption():
            yield
    except KeyboardInterrupt as stopped:
        print_how_to_resume()
        if not isinstance(stopped, Interrupted):  # the second signal
            raise
        sys.exit(128 + stopped.signum)


def _compress(text: str, root: Path, options: dict[str, Any]) -> None:
    from studies.compress.distillation import distil_stage
    from studies.compress.pruning import prune_stage
    from studies.compress.quantising import quantise_stage
    from studies.confirm.confirmation import alone_in
    from studies.deploy.choice import Bounds
    from studies.record.compressed import FOLDER
    from studies.store.finding import find_trial

    if not any(options[name] for name in ("prune", "distil", "quantize")):
        raise UserError(
            "give at least one stage: --prune SHARE|ARCH, --distil TEACHER or --quantize VARIANT"
        )
    asked = (one for name in options["quantize"] or () for one in _variants(name))
    variants = list(dict.fromkeys(asked))
    study, trial = find_trial(text, root) if "#" in text else (None, None)
    if study is None or trial is None:
        raise UserError(f"{text}: is no trial; give STUDY#TRIAL, such as quickstart#3")
    narrow = _narrow(options["prune"], trial, root)
    teachers = [_teacher(name, study, root) for name in options["distil"] or ()]
    setting = _setting(study, trial, root, options)
    folders: list[StageFolder] = []
    with alone_in(study.folder / FOLDER, "compressing models of"):
        if narrow is not None:
            how = _how(options["prune"])
            folders.append(prune_stage(setting, narrow, options["norm"], how))
        if teachers:
            folders.append(distil_stage(setting, teachers, folders[-1] if folders else None))
        before = folders[-1] if folders else None
        models = _models(setting, before, root) if variants else {}
        bounds = Bounds(int8=options["loss_cost"] / 100)
        for variant in variants:
            folders.append(quantise_stage(setting, variant, bounds, models, before))
        _conclude(study, folders)


def _narrow(text: str | None, trial: TrialRecord, root: Path) -> Architecture | None:
    """Return the architecture that `--prune` asks for."""
    from nas.compress.narrowing import narrowed, require_narrowing

    if text is None:
        return None
    wide = trial.architecture
    if re.fullmatch(r"[0-9.eE+-]{1,30}", text):
        narrow = narrowed(wide, _share(text))
    else:
        narrow = find_architecture(text, root)
        require_narrowing(wide, narrow, f"--prune {text}")
    if narrow == wide:
        raise UserError(
            f"--prune {text}: {trial.name} keeps all its channels and layers; give a smaller share "
            "or a narrower architecture"
        )
    return narrow


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UserError(f"--prune {text}: give a share above 0 and below 1, or an architecture")
    return share


def _how(text: str) -> str:
    """Return what `--prune` asks for, as in a title."""
    from studies.record.formats import format_percent

    is_share = re.fullmatch(r"[0-9.eE+-]{1,30}", text)
    return f"{format_percent(float(text))} of its widths" if is_share else text


def _variants(text: str) -> list[Variant]:
    """Return the variants in a lower precision that one part of `--quantize` names.

    Raises:
        UserError: there is none of that name, or it cannot be built here.
    """
    from nas.deploy.variants import PRECISIONS, Variant
    from profiling.backends import BACKENDS, FLOAT32
    from profiling.runtime_files import FILE_BACKENDS

    known = [
        Variant(backend, precision)
        for backend in FILE_BACKENDS
        for precision in PRECISIONS
        if precision != FLOAT32 and precision in BACKENDS[backend].precisions
    ]
    plain = [one for one in known if not BACKENDS[one.backend].rewrites]
    found = [one for one in known if one.stem == text]
    found = found or [one for one in plain if one.precision == text]
    if not found:
        names = list(dict.fromkeys([*(one.precision for one in plain), *(o.stem for o in known)]))
        raise UserError(
            f"--quantize: {quoted(text)} is not one of {', '.join(names)}{nearest(text, names)}"
        )
    for one in found:
        if reason := one.reason_against:
            raise UserError(f"--quantize {text}: {one.name} {reason}")
    return found


def _models(setting: Setting, before: StageFolder | None, root: Path) -> dict[int, Path]:
    """Return the weights of the models to quantise by their seeds.

    They are those of the stage before, or all trainings of the trial that are kept.
    """
    from nas.artefacts import WEIGHTS
    from studies.store.store import StudyStore
    from studies.store.trained import weights_of

    if before is not None:
        return {seed: before.weights(before.stage.words.result, seed) for seed in setting.seeds}
    store, trial = StudyStore.open(root, setting.study.name), setting.trial
    found = {setting.config.training.seed: store.artefacts / trial.digest / WEIGHTS}
    for run in trial.runs:
        store.fetch_confirmed(trial.digest, run.seed)
        found[run.seed] = store.confirmed_weights(trial.digest, run.seed)
    kept = {seed: path for seed, path in found.items() if path.is_file()}
    for path in kept.values():
        weights_of(path, trial.digest)
    return kept


def _teacher(text: str, study: StudyRecord, root: Path) -> Teacher:
    """Return the teacher that one part of `--distil` names."""
    from studies.compress.distillation import Teacher
    from studies.store.finding import address, find_trial
    from studies.store.store import StudyStore

    named = text if text.rpartition("#")[0] else f"{study.name}#{text.removeprefix('#')}"
    home, trial = find_trial(named, root)
    weights = _weights(StudyStore.open(root, home.name), trial, f"--distil {text}")
    size = trial.architecture.image_size, trial.architecture.image_channels
    if size != (study.image_size, study.image_channels):
        raise UserError(
            f"--distil {text}: a teacher for images of {size[0]} pixels and {size[1]} channels; "
            f"those of study {study.name!r} have {study.image_size} and {study.image_channels}"
        )
    name = trial.name if home.name == study.name else address(home, trial)
    return Teacher(name, weights, trial.findings.timings_s.get("training", 0.0))


def _weights(store: StudyStore, trial: TrialRecord, what: str) -> Path:
    """Return the file of a trial's trained weights; refuse a trial without, or with others."""
    from studies.store.finding import best_weights_of
    from studies.store.trained import weights_of

    store.fetch(trial.digest)
    weights, _ = best_weights_of(store, trial)
    if not weights.is_file():
        raise UserError(
            f"{what}: trial {trial.name} has no trained weights in the study's folder; choose a "
            "complete trial of a study that trains"
        )
    weights_of(weights, trial.digest)
    return weights


def _setting(
    study: StudyRecord, trial: TrialRecord, root: Path, options: dict[str, Any]
) -> Setting:
    from copy import deepcopy

    from profiling.allocator import tune_allocator
    from profiling.environment import select_device
    from profiling.resources import cores
    from studies.compress.training import Setting
    from studies.config.loading import overridden
    from studies.confirm.candidates import require_training
    from studies.run.images import load_same_images
    from studies.store.finding import address
    from studies.store.store import StudyStore

    require_training(study)
    store = StudyStore.open(root, study.name)
    weights = _weights(store, trial, address(study, trial))
    config = overridden(deepcopy(dict(study.config)), {}, f"study {study.name}")
    chosen = options["device"]
    device = select_device(config.device if chosen == "auto" else chosen)
    tune_allocator()
    first = config.training.seed
    return Setting(
        study=study,
        trial=trial,
        weights=weights,
        config=config,
        dataset=load_same_images(study, config.data, progress_bar, "restore them"),
        device=device,
        thread_count=options["threads"] or cores(),
        epochs=options["epochs"] or config.training.epochs,
        seeds=tuple((first + one) % 2**32 for one in range(1, options["seeds"] + 1)),
        anchors_ms=store.anchors_ms,
        say=lambda line: stderr.say(line, style="dim"),
        progress_bar=progress_bar,
    )


def _conclude(study: StudyRecord, folders: Sequence[StageFolder]) -> None:
    """Write the models and the pages, and print the stages."""
    from studies.record.compressed_words import stage_words
    from studies.report.compression import write_compression_page
    from studies.report.report import write_report
    from studies.terminal.table import Column, Table

    for folder in folders:
        words = stage_words(study, folder.stage)
        stdout.print()
        stdout.say((folder.stage.title, "bold"), wrap=True)
        table = Table(Column("model", text=True), *(head.lower() for head in words.heads))
        for row in words.rows:
            style = "cyan" if row.is_result else ""
            table.add(row.name, *(cell.text for cell in row.cells), style=style)
        stdout.table(table)
        for verdict in words.verdicts:
            stdout.say(verdict.text, wrap=True)
        stdout.say(f"{folder.publish(study.name)}: the model of the lowest validation loss")
    page = write_compression_page(study)
    write_report(study)
    stdout.print()
    stdout.say(f"page: {page}")
