"""The stage `distil`: a student trained with teachers, beside its two controls.

One control has the same weight on the reconstruction without a teacher, the other one trains
without a teacher for longer: by the time that the teachers take in the steps of the student, and
by that of their own trainings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from nas.checkpoint import load_vae, weights_digest
from nas.compress.distillation import WEIGHT, Guidance
from nas.evaluate import static_costs
from nas.objectives import set_up_of
from studies.compress.folder import StageFolder, stage_name
from studies.compress.training import Setting, train
from studies.record.compressed import Costs, Stage
from studies.record.formats import listed

LONGEST = 10
"""The longer training has at most this many times the epochs of the student."""


@dataclass(frozen=True)
class Teacher:
    """A trained model that teaches.

    Attributes:
        name: Its name for people.
        weights: File of its weights.
        duration_s: Seconds of its own training, 0 if not known.
    """

    name: str
    weights: Path
    duration_s: float


def distil_stage(
    setting: Setting, teachers: Sequence[Teacher], before: StageFolder | None
) -> StageFolder:
    """Train students with and without teachers; return the stage's folder.

    Args:
        setting: What all stages have in common.
        teachers: One teacher or several, which form an ensemble.
        before: The stage whose models the students continue; without one they are networks of the
            trial's architecture with new weights.

    Raises:
        UserError: a training failed, or a file cannot be written.
    """
    guidance = Guidance(WEIGHT, tuple(load_vae(one.weights) for one in teachers))
    starts = {seed: _start(before, seed) for seed in setting.seeds}
    folder = StageFolder(setting.study.folder, _stage(setting, teachers, guidance, before))
    if not folder.begun:
        folder.begin(*_costs(setting, before), *([] if before else [setting.source()]))
    alone = Guidance(WEIGHT)
    for seed in setting.seeds:
        config, start = setting.training(seed), starts[seed]
        train(setting, folder, "distilled", config, start, guidance)
        train(setting, folder, "control", config, start, alone)
    epochs = longer_epochs(folder.stage, setting.epochs)
    for seed in setting.seeds:
        train(setting, folder, "longer", setting.training(seed, epochs), starts[seed])
    return folder


def longer_epochs(stage: Stage, epochs: int) -> int:
    """Return the number of epochs that a student can train in the time that its teachers took.

    It follows from the recorded times of the first seed, so that it does not change when seeds are
    added.

    Args:
        stage: A stage with a distilled student and its control.
        epochs: Number of epochs of both.
    """
    distilled, control = stage.of("distilled")[0], stage.of("control")[0]
    epoch_s = control.duration_s / control.trained
    passes_s = max(0.0, distilled.duration_s - distilled.trained * epoch_s)
    further = (passes_s + stage.settings["teachers_s"]) / epoch_s if epoch_s else 0.0
    return min(epochs + max(1, round(further)), LONGEST * epochs)


def _start(before: StageFolder | None, seed: int) -> Mapping[str, Tensor] | None:
    if before is None:
        return None
    return load_vae(before.weights(before.stage.words.result, seed)).state_dict()


def _stage(
    setting: Setting, teachers: Sequence[Teacher], guidance: Guidance, before: StageFolder | None
) -> Stage:
    trial, after = setting.trial, before.stage if before else None
    architecture = after.architecture if after else trial.architecture
    settings = {
        **setting.common,
        "architecture": architecture.digest,
        "after": after.name if after else None,
        "weight": guidance.weight,
        "teachers": [weights_digest(one.state_dict()) for one in guidance.teachers],
        "teachers_s": sum(one.duration_s for one in teachers),
    }
    names = listed([one.name for one in teachers])
    return Stage(
        kind="distil",
        name=stage_name(trial.number, "distil", settings),
        title=f"{after.title if after else trial.name}, distilled from {names}",
        trial=trial.number,
        after=after.name if after else None,
        architecture=architecture,
        settings=settings,
    )


def _costs(setting: Setting, before: StageFolder | None) -> tuple[Costs, Costs]:
    """Return the costs of the trained model and of the student, which are those before it."""
    if before is not None:
        return before.stage.source, before.stage.costs
    trial = setting.trial
    latencies = {n: v for n, v in trial.objectives.items() if set_up_of(n) is not None}
    own = Costs(
        values={**static_costs(trial.architecture), **latencies},
        intervals={name: trial.intervals[name] for name in latencies if name in trial.intervals},
        contended=trial.contended,
    )
    return own, own
