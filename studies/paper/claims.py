"""The paper's claims, tested against our measurements."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from search_spaces.references import PUBLISHED
from search_spaces.sizes import Size, size_in_words
from studies.paper.clusters import accuracies, accuracy_difference
from studies.paper.differences import Difference, Verdict, paired_difference, verdict_of
from studies.paper.inference import LOSS_TERMS
from studies.paper.results import PaperResults
from studies.paper.smoothness import MEASURES
from studies.paper.stored import Array
from studies.paper.table import PUBLISHED_SIZE, reduction
from studies.paper.timing import Timing
from studies.record.records import StudyRecord

LEAST_SPAN = 0.3
"""Minimum span, relative to the photos, at which the smoothness of a model is judged.

A model whose faces differ less from each other has learned too little.
"""

TRAINED = ("quality", "smoothness", "clusters")
"""Keys of the claims about trained models."""

BUSY_ROOM = 0.3
"""Bias of a ratio measured on a busy machine, by which its interval is extended on both sides."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper about `modified` against `original`, with our verdict.

    Attributes:
        key: Short name.
        statement: The statement that is tested.
        published: The paper's evidence.
        found: Our measurement.
        verdict: From the 95 % interval: `undecided` if the interval includes no difference, and
            `not judged` if the claim is about trained models and one has not learned.
    """

    key: str
    statement: str
    published: str
    found: str
    verdict: Verdict


@dataclass(frozen=True)
class Compared:
    """One score of both models over test images or pairs.

    Attributes:
        name: Name of the score.
        original: Mean and standard deviation of `original`.
        modified: Mean and standard deviation of `modified`.
        difference: Difference of the means.
    """

    name: str
    original: tuple[float, float]
    modified: tuple[float, float]
    difference: Difference


def claims(results: PaperResults) -> list[Claim]:
    """Return all claims with their verdicts."""
    size = results.study.image_size
    even = {one.name: one for one in compare_smoothness(results)}
    found = [
        fewer_parameters(reduction("params"), reduction("params", size), size),
        *(slower(timing) for timing in results.timings),
        higher_loss(compare_quality(results)[0]),
        smoother(*(even[name] for name in ("step_variation", "span"))),
    ]
    if clusters := compare_clusters(results):
        found.append(better_clusters(clusters))
    return [_judged(results.study, claim) for claim in found]


def _judged(study: StudyRecord, claim: Claim) -> Claim:
    """Return a claim without a verdict if it rests on a model that has not learned."""
    reasons = {name: study.unlearned(trial) for name, trial in study.references.items()}
    told = [f"`{name}` has not learned ({reason})" for name, reason in reasons.items() if reason]
    if not told or claim.key not in TRAINED:
        return claim
    return replace(claim, verdict="not judged", found=f"not judged: {'; '.join(told)}")


def compare_quality(results: PaperResults) -> list[Compared]:
    """Compare the loss and its terms over the test images."""
    return [
        _compared(name, *(one.test[name] for one in results.models.values())) for name in LOSS_TERMS
    ]


def compare_smoothness(results: PaperResults) -> list[Compared]:
    """Compare the measures of smoothness over pairs of test images."""
    return [
        _compared(name, *(one.interpolation[name] for one in results.models.values()))
        for name in MEASURES
    ]


def compare_clusters(results: PaperResults) -> Compared | None:
    """Compare the balanced accuracy of the nearest neighbours' votes over attributes.

    Returns None if no attribute has enough images.
    """
    if not results.judged:
        return None
    first, second = (one.scores["seen"] for one in results.models.values())
    means = [accuracies(seen, results.labels) for seen in (first, second)]
    original, modified = ((float(one.mean()), float(one.std())) for one in means)
    difference = accuracy_difference(first, second, results.labels)
    return Compared("neighbours", original, modified, difference)


def fewer_parameters(published: float, here: float, size: Size) -> Claim:
    """Test the reduction of parameters at the paper's image size, by exact counts."""
    found = f"{_share(published)} at {PUBLISHED_SIZE} px, counted exactly"
    if size != PUBLISHED_SIZE:
        found += f"; at {size_in_words(size)} px {_share(here)}"
    verdict: Verdict = "holds" if published > 0 else "does not hold"
    return Claim("parameters", "`modified` has fewer parameters", "32.8 % fewer", found, verdict)


def slower(timing: Timing) -> Claim:
    """Test the slow-down at one batch size by the interval of the paired ratio."""
    original, modified = (
        one.latency_batch_1_ms[0] if timing.batch == 1 else one.latency_batch_32_ms[0]
        for one in (PUBLISHED["original"], PUBLISHED["modified"])
    )
    middle, low, high = timing.slower
    found = f"{middle:.2f}x the time (95 %: {low:.2f} to {high:.2f})"
    room = BUSY_ROOM if timing.contention else 0.0
    if timing.contention:
        found += "; the machine was busy"
    return Claim(
        f"slower-{timing.batch}",
        f"`modified` is slower at batch {timing.batch}",
        f"{modified / original:.1f}x the time",
        found,
        verdict_of(Difference(middle - 1, low - 1 - room, high - 1 + room), 1),
    )


def higher_loss(total: Compared) -> Claim:
    """Test whether `modified` has the higher loss, as in the paper's curves."""
    original, modified = (one.losses[-1][1] for one in PUBLISHED.values())
    return Claim(
        "quality",
        "`modified` reconstructs worse: its loss is higher",
        f"{modified:.4f} against {original:.4f} (validation)",
        f"{total.modified[0]:.4f} against {total.original[0]:.4f} (test): {_signed(total)}",
        verdict_of(total.difference, 1),
    )


def smoother(variation: Compared, span: Compared) -> Claim:
    """Test smoothness by how evenly the image changes between two faces.

    The verdict is `undecided` if the images of a model hardly differ from each other.
    """
    narrow = min(span.original[0], span.modified[0])
    found = (
        f"step variation {variation.modified[0]:.3f} against {variation.original[0]:.3f}: "
        f"{_signed(variation)}"
    )
    if narrow < LEAST_SPAN:
        little = f"a model's faces differ by only {100 * narrow:.0f} % of the photos' difference"
        measured = f"{found}; but " if np.isfinite(variation.difference.value) else ""
        found = f"{measured}{little}, which is too little for a verdict"
    return Claim(
        "smoothness",
        "`modified` has the smoother latent space",
        "pictures of traversals, no number",
        found,
        verdict_of(variation.difference, -1) if narrow >= LEAST_SPAN else "undecided",
    )


def better_clusters(votes: Compared) -> Claim:
    """Test clusters by how well nearest neighbours in the latent space predict attributes."""
    return Claim(
        "clusters",
        "`modified` has latents that cluster better by attribute",
        "t-SNE pictures, no number",
        f"accuracy of neighbours {votes.modified[0]:.3f} against {votes.original[0]:.3f} (0.5 is "
        f"chance): {_signed(votes)}",
        verdict_of(votes.difference, 1),
    )


def _compared(name: str, original: Array, modified: Array) -> Compared:
    difference = paired_difference(original, modified)
    return Compared(name, _mean_and_deviation(original), _mean_and_deviation(modified), difference)


def _mean_and_deviation(values: Array) -> tuple[float, float]:
    """Return mean and standard deviation of the finite values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return (float(finite.mean()), float(finite.std())) if len(finite) else (np.nan, np.nan)


def _signed(compared: Compared) -> str:
    value, low, high = compared.difference
    return f"{value:+.4f} (95 %: {low:+.4f} to {high:+.4f})"


def _share(reduction: float) -> str:
    percent = f"{100 * abs(reduction):.1f} %"
    return f"{percent} fewer" if reduction > 0 else f"{percent} more"
