"""What a deployment says: the table of variants, sentences and facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nas.deploy.builder import EAGER, REFERENCE
from nas.deploy.on_target import EXPORTED
from nas.deploy.quality import Quality
from nas.deploy.variants import Built, Variant
from nas.evaluate import static_costs
from profiling.latency import Latency, Ratio
from studies.deploy.deployment import Deployment
from studies.record.compressed_words import Cell
from studies.record.deployed import format_cost
from studies.record.formats import (
    MISSING,
    counted,
    format_bytes,
    format_count,
    format_ms,
    format_percent,
    listed,
)

_NAMES = {EAGER: "eager float32", EXPORTED: "float32, as exported"}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: What was timed.
        cells: The values, in the order of `heads`.
        verdict: What becomes of it.
        deployed: Whether it is deployed.
    """

    name: str
    cells: tuple[Cell, ...]
    verdict: str
    deployed: bool = False


def heads(found: Deployment) -> tuple[str, ...]:
    """Return the titles of the columns between a variant's name and what becomes of it."""
    over = "Over eager" if found.wish.target is None else "Over float32"
    return ("Latency", over, "Loss", "SSIM", "Worst image", "Files")


def baseline_name(found: Deployment) -> str:
    """Return the name of the model beside which variants were timed, as in the table."""
    return _NAMES[found.examined.found.reference]


def rows(found: Deployment) -> list[Row]:
    """Return the rows of the table: first the model and `original`, as variants are beside them."""
    taken, name = found.examined.found, baseline_name(found)
    values = (*_times(found, taken.reference), *_quality(found.examined.base), Cell(""))
    timed = [Row(name, values, "baseline")]
    if REFERENCE in taken.taken:
        cells = (*_times(found, REFERENCE), *[Cell("")] * 4)
        timed.append(Row(f"original, {name}", cells, "another model, of the same image size"))
    return [*timed, *(_row(found, *one) for one in found.variants)]


def _row(found: Deployment, variant: Variant, built: Built | None) -> Row:
    reason = found.examined.reasons.get(variant)
    verdict = f"rejected: {reason}" if reason else "deployed"
    if built is None:
        return Row(variant.name, (Cell(MISSING),) * len(heads(found)), verdict)
    size = Cell(format_bytes(built.file_bytes))
    cells = (*_times(found, variant.name), *_quality(built.quality), size)
    return Row(variant.name, cells, verdict, reason is None)


def _times(found: Deployment, name: str) -> tuple[Cell, Cell]:
    latency, ratio = found.examined.found.counted(name), found.over(name)
    low, high = (format_ms(bound).removesuffix(" ms") for bound in latency.interval_ms)
    return Cell(format_ms(latency.median_ms), f"{low} to {high}"), Cell(
        f"{ratio.median:.2f}x", f"{ratio.interval.low:.2f} to {ratio.interval.high:.2f}"
    )


def _quality(quality: Quality) -> tuple[Cell, Cell, Cell]:
    low, high = (format_cost(bound) for bound in quality.interval)
    loss = Cell(f"{quality.loss:.4f} ({format_cost(quality.cost)})", f"{low} to {high}")
    return loss, Cell(f"{quality.ssim:.4f}"), Cell(format_cost(quality.worst))


def verdict(found: Deployment) -> str:
    """Return one sentence: what is deployed, how fast it is and what it costs."""
    name = found.chosen.variant.name
    latency, ratio = found.examined.found.counted(name), found.over(name)
    others = [f"{_ratio(ratio)} of the time of the model in {found.baseline}"]
    if REFERENCE in found.examined.found.taken:
        others.append(f"{_ratio(found.over(name, REFERENCE))} of that of `original`")
    return (
        f"`{name}` is deployed{_where(found)}: it takes {format_ms(latency.median_ms)}, "
        f"{listed(others)}, and changes the loss by {format_cost(found.chosen.quality.cost)}."
    )


def _where(found: Deployment) -> str:
    return f" for {found.wish.target.address.name}" if found.wish.target else ""


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.3g}x [{ratio.interval.low:.3g}, {ratio.interval.high:.3g}]"


def notes(found: Deployment) -> Iterator[str]:
    """Yield what the reader must know besides: contention, slowness, layers in floating point."""
    eager = found.examined.found.reference == EAGER
    if eager and found.over(found.chosen.variant.name).interval.low > 1:
        yield "No variant is as fast as eager PyTorch; this one needs no torch."
    if found.examined.found.contended:
        signs = "; ".join(found.examined.found.contention)
        yield f"The machine was busy during the measurement ({signs}): measure again for figures."
    if found.chosen.keep:
        yield (
            f"Because they are sensitive, {listed(found.chosen.keep)} "
            f"{'stay' if len(found.chosen.keep) > 1 else 'stays'} in floating point."
        )
    if found.chosen.note:
        yield f"{found.chosen.variant.name}: {found.chosen.note}."


def method(found: Deployment) -> str:
    """Return how it was measured and judged, in sentences."""
    taken = found.examined.found
    latency: Latency = taken.counted(taken.reference)
    quality, wish = found.chosen.quality, found.wish
    return (
        f"All variants were loaded from their files and timed in the same "
        f"{counted(len(latency.samples), 'round')}, in shuffled order, beside the model in "
        f"{found.baseline}, and a second copy of it: batch 1, "
        f"{counted(wish.config.threads, 'thread')}, on {found.place}. Latencies are "
        "medians over the rounds at the quiet speed of the machine, with 95 % intervals. All "
        "decode the latent mean. The loss is the "
        f"reconstruction loss on {counted(quality.images, 'validation image')}; what a variant "
        "costs is its relative increase over eager float32, with a 95 % interval by a paired "
        "bootstrap over images; the worst image is the one whose loss increases most. A variant "
        f"may cost {format_percent(wish.bounds.floating)} in float32 and bfloat16, "
        f"{format_percent(wish.bounds.int8)} in int8, and ten times as much on one image. Of those "
        "the fastest is deployed; of those that are not measurably slower, the one that costs "
        "least."
    )


def facts(found: Deployment) -> list[tuple[str, str]]:
    """Return what the model is and what it was trained on: (label, value)."""
    subject, costs = found.subject, static_costs(found.subject.architecture)
    trial = f"{subject.study}#{subject.trial}" if subject.study else subject.trained.name
    whose = f" ({subject.trained.whose})" if subject.trained.whose else ""
    return [
        ("Model", f"{trial}{whose}"),
        ("Architecture", subject.architecture.summary),
        ("Digest", subject.architecture.digest),
        ("Parameters", format_count(costs["params"])),
        ("MACs", format_count(costs["macs"])),
        ("Trained on", f"images {subject.data_fingerprint}" if subject.data_fingerprint else "-"),
        ("Judged on", f"{subject.dataset.name} {subject.dataset.fingerprint}"),
        ("Measured on", found.place),
        *((f"{title} in the study", value) for title, value in subject.recorded),
    ]
