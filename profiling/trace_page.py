"""Draw a trace as an HTML page that needs no network: timeline, memory curve, operator table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from profiling.errors import ProfilingError
from profiling.files import write_whole
from profiling.spans import Span, SpanKind, TraceStep
from profiling.trace import Setup, Trace

FAMILIES: dict[str, tuple[str, ...]] = {
    "convolution": ("conv", "thnn_conv", "slow_conv"),
    "BatchNorm": ("batch_norm", "batchnorm", "norm_backward"),
    "activation": ("elu", "relu", "silu", "gelu", "sigmoid", "tanh", "softplus"),
    "concatenation": ("::cat", "catbackward"),
    "resampling": ("pool", "upsample", "pixel_shuffle", "pixel_unshuffle"),
    "linear": ("::mm", "addmm", "::bmm", "linear", "matmul"),
}
"""Family of operators -> parts of their names. Each family has a colour in the page."""

_OTHER = "other operators"
_MOST_SPANS, _MOST_POINTS = 40_000, 20_000


@dataclass(frozen=True)
class OperatorRow:
    """All calls of one operator in one step.

    Attributes:
        name: Name of the operator, or shapes of its inputs in a row of `by_shape`.
        family: Its family.
        calls: Number of calls.
        self_us: Time without the operators that it calls.
        total_us: Time including them.
        allocated_bytes: Bytes that it allocated itself.
        by_shape: The same calls, split by the shapes of their inputs.
    """

    name: str
    family: str
    calls: int
    self_us: float
    total_us: float
    allocated_bytes: int
    by_shape: tuple[OperatorRow, ...] = ()


def operator_rows(step: TraceStep) -> tuple[OperatorRow, ...]:
    """Return one row per operator, in descending order of self time."""
    return _rows(step, "operator", split=True)


def family_of(name: str) -> str:
    """Return the family of a forward or backward operator."""
    short = name.lower()
    for family, parts in FAMILIES.items():
        if any(part in short for part in parts):
            return family
    return _OTHER


def write_trace_html(trace: Trace, path: Path) -> None:
    """Write the page of a trace's median step.

    Raises:
        ProfilingError: `path` cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("profiling"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"ms": _ms, "size": _size, "share": _share}
    html = environment.get_template("trace.html").render(page=_Page(trace))
    try:
        write_whole(path, html.encode())
    except OSError as error:
        raise ProfilingError(f"{path}: cannot be written ({error.strerror})") from None


@dataclass(frozen=True)
class _Page:
    """The content of the template."""

    trace: Trace

    @property
    def setup(self) -> Setup:
        return self.trace.setup

    @property
    def step(self) -> TraceStep:
        return self.trace.step

    @cached_property
    def rows(self) -> tuple[OperatorRow, ...]:
        return operator_rows(self.step)

    @cached_property
    def kernels(self) -> tuple[OperatorRow, ...]:
        return _rows(self.step, "kernel", split=False)

    @cached_property
    def families(self) -> tuple[tuple[str, float], ...]:
        """(family, self time) in descending order, then the time between operators."""
        times: dict[str, float] = defaultdict(float)
        for row in self.rows:
            times[row.family] += row.self_us
        ordered = sorted(times.items(), key=lambda item: -item[1])
        return (*ordered, ("between operators", self.between_us))

    @property
    def between_us(self) -> float:
        return self.step.duration_us - sum(row.self_us for row in self.rows)

    @property
    def colours(self) -> list[str]:
        return [*FAMILIES, _OTHER]

    @property
    def kind(self) -> str:
        return "training step" if self.setup.training else "inference step"

    @property
    def what(self) -> str:
        shapes = " and ".join("x".join(map(str, shape)) for shape in self.setup.input_shapes)
        threads = f"{self.setup.threads} thread{'s' * (self.setup.threads != 1)}"
        return f"{self.kind} on {shapes}, {self.setup.device}, {threads}"

    @property
    def headline(self) -> str:
        family, spent_us = self.families[0]
        share = _share(spent_us, self.step.duration_us)
        return f"One {self.kind} takes {_ms(self.setup.plain_ms * 1000)}; {share} is {family}"

    @property
    def facts(self) -> list[tuple[str, str]]:
        recorded = f"{_ms(self.step.duration_us)}, {self.trace.inflation:.2f} times as long"
        calls = sum(row.calls for row in self.rows)
        return [
            ("Time without profiler", _ms(self.setup.plain_ms * 1000)),
            ("The recorded step", recorded),
            ("Peak memory", _size(self.trace.peak_bytes)),
            ("of which in every step", _size(self.setup.resident_bytes)),
            ("Operator calls", f"{calls:,}"),
        ]

    @property
    def chart(self) -> dict[str, Any]:
        """The timeline and the memory curve; texts are indices into `texts`."""
        spans, texts = _longest(self.step.spans), _Texts()
        packed = [
            (
                *(texts[span.name], texts[span.kind], texts[family_of(span.name)], span.level),
                *(round(span.start_us, 1), round(span.duration_us, 1), round(span.self_us, 1)),
                *(texts[span.module], texts[span.shapes], span.allocated_bytes),
            )
            for span in spans
        ]
        return {
            "spans": packed,
            "texts": list(texts),
            "memory": [(round(at, 1), live) for at, live in _thinned(self.step.memory)],
            "resident": self.setup.resident_bytes,
            "duration": round(self.step.duration_us, 1),
        }

    @property
    def left_out(self) -> int:
        return len(self.step.spans) - len(_longest(self.step.spans))


class _Texts(dict[str, int]):
    """Text -> number, in the order of their first use."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def _rows(step: TraceStep, kind: SpanKind, *, split: bool) -> tuple[OperatorRow, ...]:
    groups = _grouped((span for span in step.spans if span.kind == kind), attrgetter("name"))
    rows = []
    for name, calls in groups.items():
        shapes = _grouped(calls, attrgetter("shapes")) if split else {}
        parts = _by_time(_row(shape, name, some, ()) for shape, some in shapes.items())
        rows.append(_row(name, name, calls, parts))
    return _by_time(rows)


def _row(
    label: str, operator: str, calls: list[Span], by_shape: tuple[OperatorRow, ...]
) -> OperatorRow:
    return OperatorRow(
        label,
        family_of(operator),
        len(calls),
        sum(span.self_us for span in calls),
        sum(span.duration_us for span in calls),
        sum(span.allocated_bytes for span in calls),
        by_shape,
    )


def _by_time(rows: Iterable[OperatorRow]) -> tuple[OperatorRow, ...]:
    return tuple(sorted(rows, key=lambda row: -row.self_us))


def _grouped(spans: Iterable[Span], key: Callable[[Span], str]) -> dict[str, list[Span]]:
    groups: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        groups[key(span)].append(span)
    return groups


def _longest(spans: Sequence[Span]) -> Sequence[Span]:
    """Return the spans without the shortest operators, so that the page is not too large."""
    if len(spans) <= _MOST_SPANS:
        return spans
    shortest = sorted((span.duration_us for span in spans), reverse=True)[_MOST_SPANS]
    return [span for span in spans if span.kind != "operator" or span.duration_us > shortest]


def _thinned(points: Sequence[tuple[float, int]]) -> Sequence[tuple[float, int]]:
    """Return the highest of every few points, so that peaks remain."""
    size = -(-len(points) // _MOST_POINTS)
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [max(group, key=lambda point: point[1]) for group in groups]


def _ms(us: float) -> str:
    ms = us / 1000
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms" if ms >= 0.001 else "0 ms"


def _size(nbytes: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.3g} {unit}"
    return f"{nbytes:.0f} B"


def _share(part: float, whole: float) -> str:
    percent = 100 * part / whole if whole else 0.0
    return (
        f"{percent:.0f}\N{NO-BREAK SPACE}%"
        if percent >= 10
        else f"{percent:.1f}\N{NO-BREAK SPACE}%"
    )
