"""The words and tables of an explanation: sentences and rows derived from its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.explain.explanation import (
    AblationStep,
    Cause,
    Estimate,
    Explanation,
    LatencyGap,
    Side,
    Variant,
)
from nas.objectives import OBJECTIVES
from studies.record.formats import describe_change, format_factor, format_value, listed

_NAMED_SHARE = 0.05  # causes with a smaller share of the gap are not named in the verdict
_NAMED_CAUSES = 4

MODIFICATIONS = {
    "concatenation": "concatenation",
    "activation": "activations",
    "batch_norm": "BatchNorm",
    "resampling": "resampling",
    "linear": "linear layers",
    "pointwise": "pointwise convolutions",
    "depthwise": "depthwise convolutions",
    "convolution": "full convolutions",
}
"""The kind of operation that each step removes, in words."""


@dataclass(frozen=True)
class Words:
    """The texts of an explanation's comparison at one batch size."""

    explanation: Explanation
    comparison: LatencyGap

    @property
    def verdict(self) -> str:
        """One or two sentences: the slow-down, its causes, the effect of the arithmetic alone."""
        a, b = f"`{self.explanation.a_name}`", f"`{self.explanation.b_name}`"
        found, ratio = self.comparison, self.comparison.ratio
        times = f"({self._time(found.b.ms)} against {self._time(found.a.ms)})"
        if ratio.low <= 1 <= ratio.high:
            return (
                f"{b} and {a} cannot be distinguished at batch {found.batch} {times}: "
                f"the ratio's 95 % interval is {ratio.low:.2f} to {ratio.high:.2f}."
            )
        lead = f"{b} has {self._parameters()} is {_pace(ratio.value)} at batch {found.batch}"
        return f"{lead} {times}: {self._reasons()}; {self._arithmetic(a)}."

    @property
    def notes(self) -> list[str]:
        """Warnings about the accuracy of the numbers; empty after a quiet run."""
        signs = [f"`{name}`: {side.contention[0]}" for name, side in self._sides if side.contention]
        busy = f"Batch {self.comparison.batch}: the machine was busy during the measurement"
        return [f"{busy} ({'; '.join(signs)})."] if signs else []

    @property
    def causes(self) -> list[dict[str, object]]:
        """One row per cause and the remainder; the last row is their sum."""
        found = self.comparison
        rows = [self._cause(cause) for cause in (*found.causes, found.remainder)]
        return [*rows, self._sum()]

    @property
    def counts(self) -> list[tuple[str, str, str, str]]:
        """Rows (quantity, A, B, B / A) of all quantities counted and measured."""
        found, a, b = self.comparison, self.comparison.a, self.comparison.b
        rows = [
            _row("Parameters", a.counts.params, b.counts.params, "params"),
            _row("MACs", a.counts.macs, b.counts.macs, "macs"),
            *(self._macs_of(kind) for kind in ("convolution", "pointwise", "depthwise", "linear")),
            _row("Bytes moved by operations", a.counts.bytes_moved, b.counts.bytes_moved, "bytes"),
            _row("Operations launched", a.counts.launches, b.counts.launches),
            _row("Module calls", a.counts.calls, b.counts.calls),
            ("Time", self._time(a.ms), self._time(b.ms), format_factor(found.ratio.value)),
            self._ratio_row("Time with freed memory kept", a.kept_ms, b.kept_ms),
            _row("Page faults per pass", a.page_faults, b.page_faults),
            _row("- with freed memory kept", a.kept_page_faults, b.kept_page_faults),
            self._rates(),
        ]
        return [row for row in rows if (row[1], row[2]) != ("0", "0")]

    def steps(self, side: Side) -> list[dict[str, object]]:
        """Return one row per step: the kind removed, the time left, the time saved, and alone."""
        intact = {"kind": "as it is, freed memory kept", "left": self._with_interval(side.kept_ms)}
        return [intact | {"saved": "", "alone": "", "busy": False}, *map(self._step, side.steps)]

    def variants(self, side: Side) -> list[dict[str, object]]:
        """Return one row per other way to build the model."""
        return [self._variant(entry) for entry in side.variants]

    @property
    def order_check(self) -> str:
        """The results of the two checks of the split, in a sentence."""
        checked = [c for c in self.comparison.causes if c.alone_ms and c.layers_ms is not None]
        steps, alone, layers = (
            sum(c.gap_ms.value for c in checked),
            sum(c.alone_ms.value for c in checked if c.alone_ms),
            sum(c.layers_ms or 0.0 for c in checked),
        )
        shares = [f" ({_percent(part / steps)})" if steps else "" for part in (alone, layers)]
        return (
            f"Removed in order, the kinds of operation account for {self.ms(steps)} ms of the "
            f"gap; each removed alone, for {self.ms(alone)} ms{shares[0]}; in the layer tables, "
            f"for {self.ms(layers)} ms{shares[1]}."
        )

    def ms(self, value: float) -> str:
        """Return a time with decimals that suit the gap: one for 20 to 200 ms, none above."""
        size = max(abs(self.comparison.gap_ms.value), 1e-3)
        text = f"{value:,.{max(0, 2 - math.floor(math.log10(size / 2)))}f}"
        return text.removeprefix("-") if not text.strip("-0.") else text

    @property
    def _sides(self) -> list[tuple[str, Side]]:
        names = (self.explanation.a_name, self.explanation.b_name)
        return list(zip(names, (self.comparison.a, self.comparison.b), strict=True))

    def _parameters(self) -> str:
        """Return the change in parameters, followed by `and` or `but`."""
        a, b = self.comparison.a.counts.params, self.comparison.b.counts.params
        against = (b < a) == (self.comparison.ratio.value > 1) and a != b
        change = describe_change(OBJECTIVES["params"], b, a)
        return f"{change} {'but' if against else 'and'}"

    def _reasons(self) -> str:
        named = [c for c in self.comparison.causes if c.gap_ms.clear and c.share >= _NAMED_SHARE]
        if not named:
            return "no single cause is larger than the noise"
        first, *others = named[:_NAMED_CAUSES]
        words = [f"{_percent(first.share)} of the gap is {first.title}"]
        words += [f"{_percent(cause.share)} {cause.title}" for cause in others]
        opposed = [c for c in self.comparison.causes if c.gap_ms.clear and c.share <= -_NAMED_SHARE]
        text = listed(words)
        if opposed:
            back = listed([f"{c.title} ({_percent(-c.share)})" for c in opposed])
            text += f", while {back} {'goes' if len(opposed) == 1 else 'go'} the other way"
        return text

    def _arithmetic(self, a: str) -> str:
        found = self.comparison
        factor = found.b.counts.macs / found.a.counts.macs
        gap = next(c.gap_ms.value for c in found.causes if c.key == "arithmetic")
        alone = (found.a.ms.value + gap) / found.a.ms.value
        only = "only " if 1 < alone < found.ratio.value else ""
        return (
            f"it does {factor:.2f}x the MACs, and at the rate of {a}'s convolutions that alone "
            f"would make it {only}{_pace(alone)}"
        )

    def _cause(self, cause: Cause) -> dict[str, object]:
        alone, layers = cause.alone_ms, cause.layers_ms
        return {
            "key": cause.key,
            "title": cause.title,
            "a": self.ms(cause.a_ms.value),
            "b": self.ms(cause.b_ms.value),
            "gap": self.ms(cause.gap_ms.value),
            "interval": self._interval(cause.gap_ms),
            "share": _percent(cause.share),
            "alone": "" if alone is None else self.ms(alone.value),
            "alone_interval": "" if alone is None else self._interval(alone),
            "layers": "" if layers is None else self.ms(layers),
            "busy": cause.contended,
        }

    def _sum(self) -> dict[str, object]:
        found = self.comparison
        return {
            "key": "sum",
            "title": "sum = measured gap",
            "a": self.ms(found.a.ms.value),
            "b": self.ms(found.b.ms.value),
            "gap": self.ms(found.gap_ms.value),
            "interval": self._interval(found.gap_ms),
            "share": _percent(1.0),
            "alone": "",
            "alone_interval": "",
            "layers": "",
            "busy": found.contended,
        }

    def _step(self, step: AblationStep) -> dict[str, object]:
        return {
            "kind": f"without {MODIFICATIONS[step.kind]}",
            "left": self._with_interval(step.left_ms),
            "saved": self._with_interval(step.saved_ms),
            "alone": self._with_interval(step.alone_ms),
            "busy": step.contended,
        }

    def _variant(self, entry: Variant) -> dict[str, object]:
        rate = entry.convolution_gmac_s
        return {
            "title": entry.title,
            "params": format_value(OBJECTIVES["params"], entry.params),
            "macs": format_value(OBJECTIVES["macs"], entry.macs),
            "ms": self._with_interval(entry.ms),
            "ratio": f"{entry.ratio.value:.2f}x ({entry.ratio.low:.2f} to {entry.ratio.high:.2f})",
            "rate": "" if rate is None else f"{rate.value:.3g}",
            "busy": entry.contended,
        }

    def _macs_of(self, kind: str) -> tuple[str, str, str, str]:
        a, b = (side.counts.macs_of.get(kind, 0) for _, side in self._sides)  # type: ignore[call-overload]
        return _row(f"- of {MODIFICATIONS[kind]}", a, b, "macs")

    def _rates(self) -> tuple[str, str, str, str]:
        a, b = (side.convolution_gmac_s.value for _, side in self._sides)
        return ("Rate of its convolutions", f"{a:.3g} GMAC/s", f"{b:.3g} GMAC/s", _factor(a, b))

    def _ratio_row(self, title: str, a: Estimate, b: Estimate) -> tuple[str, str, str, str]:
        return (title, self._time(a), self._time(b), _factor(a.value, b.value))

    def _time(self, estimate: Estimate) -> str:
        return format_value(OBJECTIVES["latency_ms"], estimate.value)

    def _interval(self, estimate: Estimate) -> str:
        return f"{self.ms(estimate.low)} to {self.ms(estimate.high)}"

    def _with_interval(self, estimate: Estimate) -> str:
        return f"{self.ms(estimate.value)} ({self._interval(estimate)})"


def _pace(ratio: float) -> str:
    if 0.995 < ratio < 1.005:
        return "just as fast"
    return f"{_times(ratio)} slower" if ratio > 1 else f"{_times(1 / ratio)} faster"


def _times(factor: float) -> str:
    return f"{factor:.2f}x" if factor < 1.95 else f"{factor:.1f}x"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %".replace("-0 %", "0 %") if abs(share) < 10 else f"{share:.0f}x"


def _row(title: str, a: float, b: float, unit: str = "") -> tuple[str, str, str, str]:
    return (title, _amount(a, unit), _amount(b, unit), _factor(a, b))


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.1f} MB"
    if unit and value:
        return format_value(OBJECTIVES[unit], value)
    return f"{value:,.0f}"


def _factor(a: float, b: float) -> str:
    return format_factor(b / a) if a else ""
