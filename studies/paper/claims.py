"""What the paper says or shows, held against our numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.references import PUBLISHED
from studies.paper.clusters import accuracies, accuracy_difference
from studies.paper.differences import Difference, Verdict, paired_difference, verdict_of
from studies.paper.inference import QUALITY
from studies.paper.results import PaperResults
from studies.paper.smoothness import MEASURES
from studies.paper.stored import Array
from studies.paper.table import PUBLISHED_SIZE, reduction
from studies.paper.timing import Timing

LEAST_SPAN = 0.3
"""Where a model's faces differ less than this from each other, as a share of what the photos do,
it has learned too little for its smoothness to mean anything."""

BUSY_ROOM = 0.3
"""What is added to both ends of a ratio's interval that was measured on a busy machine, where it
may be biased by this much."""


@dataclass(frozen=True)
class Claim:
    """A statement about `modified` against `original`, and what became of it here.

    Attributes:
        key: Short name.
        statement: What is tested.
        published: What the paper gives for it.
        found: Our numbers.
        verdict: By the interval: `undecided` where it includes no difference.
    """

    key: str
    statement: str
    published: str
    found: str
    verdict: Verdict


@dataclass(frozen=True)
class Compared:
    """One score of both models over test images or pairs: means, deviations, their difference."""

    name: str
    original: tuple[float, float]
    modified: tuple[float, float]
    difference: Difference


def claims(results: PaperResults) -> list[Claim]:
    """Return the statements, each with its verdict from the numbers."""
    size = results.study.image_size
    even = {one.name: one for one in smoothness(results)}
    found = [
        fewer_parameters(reduction("params"), reduction("params", size), size),
        *(slower(timing) for timing in results.timings),
        higher_loss(quality(results)[0]),
        smoother(*(even[name] for name in ("step_variation", "span"))),
    ]
    clusters = clustering(results)
    return [*found, better_clusters(clusters)] if clusters else found


def quality(results: PaperResults) -> list[Compared]:
    """Return the loss and its terms over the test images."""
    return [
        _compared(name, *(one.test[name] for one in results.models.values())) for name in QUALITY
    ]


def smoothness(results: PaperResults) -> list[Compared]:
    """Return the measures of evenness over pairs of test images."""
    return [
        _compared(name, *(one.ways[name] for one in results.models.values())) for name in MEASURES
    ]


def clustering(results: PaperResults) -> Compared | None:
    """Return the balanced accuracy of the neighbours' votes, its deviation over attributes."""
    if not results.judged:
        return None
    first, second = (one.scores["seen"] for one in results.models.values())
    means = [accuracies(seen, results.labels) for seen in (first, second)]
    original, modified = ((float(one.mean()), float(one.std())) for one in means)
    difference = accuracy_difference(first, second, results.labels)
    return Compared("neighbours", original, modified, difference)


def fewer_parameters(published: float, here: float, size: int) -> Claim:
    """Judge the reduction of parameters at the paper's image size, where the count is exact."""
    found = f"{_share(published)} at {PUBLISHED_SIZE} px, counted exactly"
    if size != PUBLISHED_SIZE:
        found += f"; at {size} px {_share(here)}"
    verdict: Verdict = "holds" if published > 0 else "does not hold"
    return Claim("parameters", "`modified` has fewer parameters", "32.8 % fewer", found, verdict)


def slower(timing: Timing) -> Claim:
    """Judge the paper's slow-down at one batch size by the paired ratio's interval."""
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
    """Judge whether `modified` ends with the higher loss, as in the paper's curves."""
    original, modified = (one.losses[-1][1] for one in PUBLISHED.values())
    return Claim(
        "quality",
        "`modified` reconstructs worse: its loss is higher",
        f"{modified:.4f} against {original:.4f} (validation)",
        f"{total.modified[0]:.4f} against {total.original[0]:.4f} (test): {_signed(total)}",
        verdict_of(total.difference, 1),
    )


def smoother(variation: Compared, span: Compared) -> Claim:
    """Judge smoothness by how evenly the image changes between two faces.

    Where the images of a model hardly differ from each other there is nothing to judge.
    """
    narrow = min(span.original[0], span.modified[0])
    found = (
        f"step variation {variation.modified[0]:.3f} against {variation.original[0]:.3f}: "
        f"{_signed(variation)}"
    )
    if narrow < LEAST_SPAN:
        little = f"a model's faces differ by {100 * narrow:.0f} % of what the photos do"
        measured = f"{found}; but " if np.isfinite(variation.difference.value) else ""
        found = f"{measured}{little}, which is too little to judge"
    return Claim(
        "smoothness",
        "`modified` has the smoother latent space",
        "pictures of traversals, no number",
        found,
        verdict_of(variation.difference, -1) if narrow >= LEAST_SPAN else "undecided",
    )


def better_clusters(votes: Compared) -> Claim:
    """Judge clusters by how well the neighbours in the latent space tell attributes."""
    return Claim(
        "clusters",
        "`modified` has latents that cluster better by attribute",
        "t-SNE pictures, no number",
        f"neighbours right in {votes.modified[0]:.3f} against {votes.original[0]:.3f} (0.5 is "
        f"chance): {_signed(votes)}",
        verdict_of(votes.difference, 1),
    )


def _compared(name: str, original: Array, modified: Array) -> Compared:
    difference = paired_difference(original, modified)
    return Compared(name, _mean_and_deviation(original), _mean_and_deviation(modified), difference)


def _mean_and_deviation(values: Array) -> tuple[float, float]:
    """Leave out what is not finite; where nothing is left, both are NaN."""
    finite = values[np.isfinite(values)]
    return (float(finite.mean()), float(finite.std())) if len(finite) else (np.nan, np.nan)


def _signed(compared: Compared) -> str:
    value, low, high = compared.difference
    return f"{value:+.4f} (95 %: {low:+.4f} to {high:+.4f})"


def _share(reduction: float) -> str:
    percent = f"{100 * abs(reduction):.1f} %"
    return f"{percent} fewer" if reduction > 0 else f"{percent} more"
