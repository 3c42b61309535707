"""Table 1: the costs of both models, here and as published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from nas.evaluate import static_costs
from search_spaces.architecture import Architecture
from search_spaces.references import PUBLISHED, REFERENCES
from search_spaces.sizes import Size, size_in_words
from studies.paper.timing import Timing

PUBLISHED_SIZE = 144


@dataclass(frozen=True)
class CostRow:
    """One row: the value of each model, their relation, and the published values (dash: none)."""

    what: str
    original: str
    modified: str
    relation: str
    published: tuple[str, str, str] = ("-", "-", "-")
    detail: tuple[tuple[str, ...], ...] = ((), (), ())
    contended: bool = False


def table_1(architectures: Mapping[str, Architecture], timings: Sequence[Timing]) -> list[CostRow]:
    """Return the rows of table 1: exact counts, then times by both protocols at each batch size."""
    costs = {name: static_costs(one) for name, one in architectures.items()}
    size = architectures["original"].image_size
    return [
        *_counts(costs, size),
        *(row for timing in timings for row in (_ours(timing), _papers(timing))),
    ]


@cache
def reduction(name: str, size: Size = PUBLISHED_SIZE) -> float:
    """Return the exact relative reduction of a counted cost from `original` to `modified`.

    It is negative if `modified` costs more.
    """
    first, second = (static_costs(one.resized(size))[name] for one in REFERENCES.values())
    return 1 - second / first


def _counts(costs: Mapping[str, Mapping[str, float]], size: Size) -> list[CostRow]:
    original, modified = PUBLISHED["original"], PUBLISHED["modified"]
    params = (original.params, modified.params)
    at = f" at {size_in_words(size)} px"
    rows = []
    for name, title, published in (
        ("params", "Parameters", params),
        ("macs", "MACs, one image", None),
        ("flops", "FLOPs, one image", None),
    ):
        values = [costs[model][name] for model in ("original", "modified")]
        shown = ("-", "-", "-")
        if published:
            shown = (f"{published[0]:,}", f"{published[1]:,}", _change(*published))
        first, second = (f"{int(value):,}" for value in values)
        rows.append(CostRow(title + at, first, second, _change(*values), shown))
    return rows


def _ours(timing: Timing) -> CostRow:
    middle, low, high = timing.slower
    details = [
        (
            f"{timing.interval_ms[name][0]:.4g} to {timing.interval_ms[name][1]:.4g}",
            f"interquartile range {100 * timing.spread[name]:.0f} %",
        )
        for name in ("original", "modified")
    ]
    return CostRow(
        f"Batch {timing.batch}, our protocol",
        f"{timing.median_ms['original']:.4g} ms",
        f"{timing.median_ms['modified']:.4g} ms",
        f"{middle:.2f}x slower" if middle >= 1 else f"{1 / middle:.2f}x faster",
        detail=(*details, (f"{low:.2f} to {high:.2f}", f"speed ratio {1 / middle:.2f}x")),
        contended=bool(timing.contention),
    )


def _papers(timing: Timing) -> CostRow:
    means = [timing.papers_ms[name] for name in ("original", "modified")]
    ratio = means[1][0] / means[0][0]
    return CostRow(
        f"Batch {timing.batch}, the paper's protocol",
        _mean_and_deviation(*means[0]),
        _mean_and_deviation(*means[1]),
        f"{ratio:.2f}x slower" if ratio >= 1 else f"{1 / ratio:.2f}x faster",
        _published_times(timing.batch),
        detail=((), (), (f"speed ratio {1 / ratio:.2f}x",)),
    )


def _published_times(batch: int) -> tuple[str, str, str]:
    times = [
        one.latency_batch_1_ms if batch == 1 else one.latency_batch_32_ms
        for one in (PUBLISHED["original"], PUBLISHED["modified"])
    ]
    ratio = times[1][0] / times[0][0]
    # With two digits, as printed in the paper.
    first, second = (f"{mean:.2f} ± {deviation:.2f} ms" for mean, deviation in times)
    return first, second, f"{ratio:.1f}x slower"


def _mean_and_deviation(mean: float, deviation: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(max(deviation, 0.01))))
    return f"{mean:.{digits}f} ± {deviation:.{digits}f} ms"


def _change(first: float, second: float) -> str:
    ratio = second / first
    return f"{100 * (1 - ratio):.1f} % fewer" if ratio <= 1 else f"{ratio:.2f}x as many"
