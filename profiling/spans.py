"""The nested spans of each step of a trace, with self time and memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

SpanKind = Literal["step", "phase", "module", "operator", "kernel"]
TraceEvent = Mapping[str, Any]

PHASES = ("forward", "backward", "optimiser")
_STEP = "ProfilerStep#"
_OPTIMISER = "Optimizer."  # marks of torch's optimisers
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
_ENGINE = "autograd::engine::evaluate_function: "
_ACCUMULATE = "AccumulateGrad"
_CLOCK_US = 0.002  # rounding error of the times in a trace


@dataclass
class Span:
    """One call in a trace.

    Attributes:
        name: Name of the phase, module, operator or kernel.
        kind: What was called.
        start_us: Start, relative to the start of the step.
        duration_us: Duration.
        self_us: Duration without the spans inside.
        level: Depth of nesting; 0 for the step.
        module: Path of the innermost module around it; in the backward phase, the module of the
            forward operator that it differentiates.
        shapes: Shapes of the operands.
        allocated_bytes: Bytes allocated by itself, without the spans inside.
        thread: Thread that made the call.
        sequence: Autograd's number of an operator; -1 without one.
        parent: The span around it.
    """

    name: str
    kind: SpanKind
    start_us: float
    duration_us: float
    self_us: float = 0.0
    level: int = 0
    module: str = ""
    shapes: str = ""
    allocated_bytes: int = 0
    thread: str = field(default="", repr=False)
    sequence: int = field(default=-1, repr=False)
    parent: Span | None = field(default=None, repr=False)

    @property
    def end_us(self) -> float:
        """End, relative to the start of the step."""
        return self.start_us + self.duration_us

    def around(self) -> Iterator[Span]:
        """Yield the span, its parent, and so on up to the outermost."""
        span: Span | None = self
        while span is not None:
            yield span
            span = span.parent


@dataclass(frozen=True)
class TraceStep:
    """One recorded step; times are relative to its start.

    Attributes:
        duration_us: Duration.
        spans: Its spans in the order of their start.
        memory: (time in us, live bytes): bytes that the step allocated and has not freed.
    """

    duration_us: float
    spans: tuple[Span, ...]
    memory: tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class _Moment:
    """A change of memory: bytes allocated (positive) or freed (negative)."""

    at_us: float
    nbytes: int
    thread: str


def steps_of(events: Iterable[TraceEvent], *, on_cuda: bool) -> tuple[TraceStep, ...]:
    """Return the steps of a trace's events, with the memory of the CPU or the CUDA device.

    Raises:
        ValueError: there are no steps.
    """
    events = list(events)
    spans = sorted(
        (_span(event) for event in events if _is_span(event)),
        key=lambda span: (span.start_us, -span.duration_us),
    )
    _nest(spans)
    moments = [_moment(event) for event in events if _is_memory(event, on_cuda)]
    moments.sort(key=lambda moment: moment.at_us)
    steps = tuple(_step(span, spans, moments) for span in spans if span.kind == "step")
    if not steps:
        raise ValueError("no steps")
    return steps


def _is_span(event: TraceEvent) -> bool:
    return event.get("ph") == "X" and event.get("cat") in ("cpu_op", "user_annotation", *_DEVICE)


def _is_memory(event: TraceEvent, on_cuda: bool) -> bool:
    return event.get("name") == "[memory]" and event["args"]["Device Type"] == int(on_cuda)


def _moment(event: TraceEvent) -> _Moment:
    return _Moment(float(event["ts"]), int(event["args"]["Bytes"]), str(event["tid"]))


def _span(event: TraceEvent) -> Span:
    args = event.get("args", {})
    return Span(
        str(event["name"]),
        _kind(str(event["name"]), event["cat"]),
        start_us=float(event["ts"]),
        duration_us=float(event["dur"]),
        self_us=float(event["dur"]),
        shapes=_shapes(args.get("Input Dims", ())),
        thread=str(event["tid"]),
        sequence=int(args.get("Sequence number", -1)),
    )


def _kind(name: str, category: str) -> SpanKind:
    if category in _DEVICE:
        return "kernel"
    if category == "cpu_op":
        return "operator"
    if name.startswith(_STEP):
        return "step"
    return "phase" if name.startswith(_OPTIMISER) else "module"


def _shapes(dims: Iterable[Any]) -> str:
    """Return the shapes of an operator's tensors as text: "1x3x144x144, 64x3x3x3"."""
    tensors = [shape for shape in dims if shape and all(isinstance(size, int) for size in shape)]
    return ", ".join("x".join(map(str, shape)) for shape in tensors)


def _nest(spans: list[Span]) -> None:
    """Set parent, level, self time and module of each span from the spans of its thread."""
    running: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        if span.kind == "kernel":
            continue
        stack = running[span.thread]
        while stack and stack[-1].end_us <= span.start_us + _CLOCK_US:
            stack.pop()
        if stack:
            _place(span, stack[-1])
        stack.append(span)


def _place(span: Span, parent: Span) -> None:
    span.parent, span.level = parent, parent.level + 1
    parent.self_us -= span.duration_us
    if parent.kind == "step" and span.name in PHASES:
        span.kind = "phase"
    span.module = span.name if span.kind == "module" else parent.module


def _step(step: Span, spans: list[Span], moments: list[_Moment]) -> TraceStep:
    start, end = step.start_us, step.end_us
    inside = [span for span in spans if start <= span.start_us < end]
    changes = [moment for moment in moments if start <= moment.at_us < end]
    _attribute(changes, inside)
    inside += _backward_modules(inside)
    inside.sort(key=lambda span: (span.start_us, span.level))
    for span in inside:
        span.start_us -= start
    return TraceStep(step.duration_us, tuple(inside), _curve(changes, start))


def _curve(changes: list[_Moment], start: float) -> tuple[tuple[float, int], ...]:
    live, points = 0, [(0.0, 0)]
    for change in changes:
        live += change.nbytes
        points.append((change.at_us - start, live))
    return tuple(points)


def _attribute(changes: list[_Moment], spans: list[Span]) -> None:
    """Add each allocation to the innermost span that was running in its thread."""
    threads: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        if span.kind != "kernel":
            threads[span.thread].append(span)
    for change in changes:
        known = threads[change.thread]
        before = bisect_right(known, change.at_us, key=lambda span: span.start_us)
        around = known[before - 1].around() if before and change.nbytes > 0 else ()
        owner = next((span for span in around if span.end_us >= change.at_us), None)
        if owner:
            owner.allocated_bytes += change.nbytes


def _backward_modules(spans: list[Span]) -> list[Span]:
    """Return spans for the modules in the backward phase, and set the level of spans inside.

    This phase calls no modules. But autograd numbers the operators of the forward phase, and each
    backward call has the number of the operator that it differentiates.
    """
    calls = [span for span in spans if span.name.startswith(_ENGINE)]
    called = {span.name for span in spans if span.kind == "module"}
    owner = {
        span.sequence: span.module  # autograd records the last operator of a number
        for span in spans
        if span.kind == "operator" and any(s.name == "forward" for s in span.around())
    }
    chains: dict[int, tuple[str, ...]] = {}
    path = ""
    for call in calls:
        if not call.name.endswith(_ACCUMULATE):  # it stores the gradient of the call before
            path = owner.get(call.sequence, "")
        chains[id(call)] = _chain(path, called)
    for span in spans:
        _move_under_modules(span, chains)
    return list(_runs(calls, chains))


def _chain(path: str, called: set[str]) -> tuple[str, ...]:
    """Return the called modules around `path` and itself, outermost first."""
    parts = path.split(".")
    paths = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return tuple(path for path in paths if path in called)


_BELOW_PHASE = 2  # step, phase


def _move_under_modules(span: Span, chains: Mapping[int, tuple[str, ...]]) -> None:
    """Set level and module of a span if it is a backward call or inside one."""
    for depth, outer in enumerate(span.around()):
        if id(outer) in chains:
            chain = chains[id(outer)]
            span.level = _BELOW_PHASE + len(chain) + depth
            span.module = chain[-1] if chain else ""


def _runs(calls: list[Span], chains: Mapping[int, tuple[str, ...]]) -> Iterator[Span]:
    """Yield one span for adjacent calls of the same module, level by level."""
    for depth in range(max(map(len, chains.values()), default=0)):
        for chain, group in groupby(calls, key=lambda call: chains[id(call)][: depth + 1]):
            run = list(group)
            if len(chain) == depth + 1:
                start, duration = run[0].start_us, run[-1].end_us - run[0].start_us
                level, path = _BELOW_PHASE + depth, chain[-1]
                yield Span(path, "module", start, duration, level=level, module=path)
