"""What tables, figures and pages say about the floors of a study (`nas.floors`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nas.objectives import TRAINED_OBJECTIVE, Objective
from studies.record.formats import (
    counted,
    format_metric,
    format_percent,
    format_value,
    listed,
    named,
)
from studies.record.learning import NO_BETTER_THAN_MEAN, kinds_unlearned
from studies.record.records import StudyRecord, TrialRecord

MEAN_IMAGE = "mean image"


def pca_label(size: int) -> str:
    """Return the name of the PCA with this number of components: `PCA 64`."""
    return f"PCA {size}"


def floor_values(
    study: StudyRecord, trials: Iterable[TrialRecord], name: str = TRAINED_OBJECTIVE
) -> dict[str, float]:
    """Return an objective or metric of the mean image, and of the PCA of each trial's latent size.

    Args:
        study: The study; without floors, or with floors that lack the value, there are no entries.
        trials: The trials.
        name: The name of the objective or metric.

    Returns:
        Label -> value, in ascending order of the latent size.
    """
    floors = study.floors
    if floors is None or floors.mean.value(name) is None:
        return {}
    sizes = sorted({trial.architecture.latent_size for trial in trials} & floors.pca.keys())
    chosen = {MEAN_IMAGE: floors.mean, **{pca_label(size): floors.pca[size] for size in sizes}}
    values = {label: one.value(name) for label, one in chosen.items()}
    return {label: value for label, value in values.items() if value is not None}


def against_mean(study: StudyRecord, trial: TrialRecord) -> str:
    """Compare a loss with that of the mean image: `is 12 % below the mean training image`.

    The text is empty without floors or without a loss.
    """
    loss = trial.objectives.get(TRAINED_OBJECTIVE)
    if study.floors is None or loss is None:
        return ""
    share = loss / study.floors.mean.reconstruction - 1
    where = "below" if share < 0 else "above"
    return f"is {format_percent(abs(share))} {where} the mean training image"


def against_pca(study: StudyRecord, trial: TrialRecord) -> str:
    """Compare a trial's reconstruction loss with that of the PCA of its latent size, as a clause.

    Returns:
        `beats PCA of its latent size (64) by 6.0 %`, `is 12 % above PCA of its latent size (64)`,
        or why there is no such PCA; "" without floors or without a loss.
    """
    loss, size = trial.objectives.get(TRAINED_OBJECTIVE), trial.architecture.latent_size
    if study.floors is None or loss is None:
        return ""
    what = f"PCA of its latent size ({size})"
    if size not in study.floors.pca:
        return f"there is no {what}: {study.floors.absent.get(size, 'it was not computed')}"
    share = loss / study.floors.pca[size].reconstruction - 1
    if share < 0:
        return f"beats {what} by {format_percent(-share)}"
    return f"is {format_percent(share)} above {what}"


def floor_rows(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    metrics: Sequence[str] = (),
) -> list[list[str]]:
    """Return rows for a table of trials: the label of each floor, its objectives, its metrics."""
    columns = [*(objective.name for objective in objectives), *metrics]
    values = {name: floor_values(study, trials, name) for name in columns}
    return [
        [
            label,
            *(format_value(one, values[one.name].get(label)) for one in objectives),
            *(format_metric(name, values[name].get(label)) for name in metrics),
        ]
        for label in dict.fromkeys(label for found in values.values() for label in found)
    ]


def fitted_words(study: StudyRecord) -> str:
    """Return what `PCA n` means, and why some sizes have none; "" without floors."""
    if study.floors is None:
        return ""
    images = counted(study.floors.fitted_on, "training image")
    absent = [f"no {pca_label(n)}: {why}" for n, why in study.floors.absent.items()]
    return "; ".join([f"PCA n: images rebuilt from n principal components of {images}", *absent])


def unlearned_note(study: StudyRecord) -> str | None:
    """Return which models have not learned, why and what to do; None if all have."""
    kinds = kinds_unlearned(study.complete, study.floors)
    if not kinds:
        return None
    count = sum(map(len, kinds.values()))
    parts = [f"{_names(trials)} ({_kind(study, kind)})" for kind, trials in kinds.items()]
    return (
        f"{count:,} of {counted(len(study.complete), 'model')} {'has' if count == 1 else 'have'} "
        f"not learned: {'; '.join(parts)}. Such a loss is no result, so the model is on no front, "
        f"in no comparison and not chosen by `nas study best`. {_remedy(study)}"
    )


def _names(trials: Iterable[TrialRecord]) -> str:
    return named([f"`{trial.name}`" if trial.reference else trial.name for trial in trials])


def _kind(study: StudyRecord, kind: str) -> str:
    if kind != NO_BETTER_THAN_MEAN or study.floors is None:
        return kind
    return f"{kind}, whose loss is {study.floors.mean.reconstruction:.4f}"


def _remedy(study: StudyRecord) -> str:
    """Return what to do about models that have not learned."""
    epochs = _section(study.config, "training").get("epochs")
    images = _section(study.environment, "images").get("train")
    amounts = [counted(epochs, "epoch") if epochs else ""]
    amounts += [counted(images, "training image") if images else ""]
    had = listed([one for one in amounts if one])
    return (
        "Train with more epochs (`--epochs`) or more images (`--images`), in a study of another "
        f"name{f'; this one has {had}' if had else ''}."
    )


def _section(mapping: Mapping[str, object], key: str) -> Mapping[str, int]:
    found = mapping.get(key)
    return found if isinstance(found, Mapping) else {}


def floor_clauses(study: StudyRecord, trial: TrialRecord) -> list[str]:
    """Return how a trial's loss compares with both floors, as clauses; empty without floors."""
    return [text for text in (against_mean(study, trial), against_pca(study, trial)) if text]
