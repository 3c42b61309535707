"""Format numbers and lists for people, on the command line and on pages."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

from nas.objectives import Objective

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))

MISSING = "-"
"""The text of an unknown value."""

_OPPOSITE = {"lower": "higher", "higher": "lower"}


def format_value(objective: Objective, value: float | None) -> str:
    """Format an objective's value with its unit: `9.35 M`, `664.9 M`, `12.3 ms`, `0.2534`.

    Counts and bytes take decimal prefixes (1 MB = 1e6 B); an unknown value is a dash. Values found
    by training have four decimals, or two with a unit: `18.25 dB`.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if objective.unit == "ms":
        return format_ms(value)
    if objective.unit == "B":
        return format_bytes(value)
    if objective.cost == "training":
        return f"{value:{_digits(value)}} {objective.unit}" if objective.unit else f"{value:.4f}"
    return format_count(value)


def format_metric(name: str, value: float | None) -> str:
    """Format an image-quality metric: PSNR with two decimals, others with four; unknown: a dash."""
    return MISSING if value is None else f"{value:.{2 if 'psnr' in name else 4}f}"


def format_axis(objective: Objective, value: float) -> str:
    """Format a value as an axis tick, in the shortest form: `100M`, `5`, `0.25`."""
    if objective.unit == "ms" or objective.cost == "training":
        return f"{value:g}"
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{value / size:g}{prefix}"
    return f"{value:g}"


def format_factor(factor: float | None) -> str:
    """Format how many times better a value is: `12.3x`; below 1 it is worse."""
    if factor is None or not math.isfinite(factor):
        return MISSING
    return f"{factor:.1f}x" if factor >= 9.95 else f"{factor:.2f}x"


def format_gain(factor: float, better: str = "lower") -> str:
    """Format the factor by which a value is better: `12.3x`.

    A factor within half a per cent of 1 becomes `0.3 % lower` or, below 1, `0.3 % higher`, which
    shows its direction.

    Args:
        factor: How many times better the value is.
        better: How better values are: "lower" or "higher".
    """
    if factor == 1 or not 0.995 < factor < 1.005:
        return format_factor(factor)
    way = better if factor > 1 else _OPPOSITE[better]
    return f"{_share(1 / factor - 1 if better == 'lower' else factor - 1)} {way}"


def format_difference(objective: Objective, change: float) -> str:
    """Format a difference of two values with its direction: `1.25 dB higher`, `equal`."""
    if change == 0:
        return "equal"
    amount = f"{_significant(abs(change))} {objective.unit}".rstrip()
    return f"{amount} {'lower' if change < 0 else 'higher'}"


def format_signed(objective: Objective, change: float | None) -> str:
    """Format a difference of two values with its sign: `+1.25 dB`."""
    if change is None or not math.isfinite(change):
        return MISSING
    sign = "-" if change < 0 else "+" if change > 0 else ""
    return f"{sign}{_significant(abs(change))} {objective.unit}".rstrip()


def format_change(factor: float | None) -> str:
    """Format a factor as a change: `+12 %`, `-8 %`; from a factor of 2 or 0.5 on as `2.10x`."""
    if factor is None or not math.isfinite(factor):
        return MISSING
    if not 0.5 < factor < 2:
        return format_factor(factor)
    percent = round(100 * (factor - 1), 1 if abs(factor - 1) < 0.0995 else None)
    return f"{percent:+g} %" if percent else "0 %"


def format_duration(seconds: float) -> str:
    """Format a time in its two largest units: `38 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    total = round(seconds)
    if total < 60:
        return f"{_significant(seconds)} s" if seconds < 10 else f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def format_ms(time_ms: float) -> str:
    """Format a time with three digits: `12.3 ms`; a value that is not finite is a dash."""
    return f"{_significant(time_ms)} ms" if math.isfinite(time_ms) else MISSING


def format_bytes(count: float) -> str:
    """Format an amount of memory: `1.50 GB`; a value that is not finite is a dash."""
    return f"{_scaled(count)}B" if math.isfinite(count) else MISSING


def format_count(count: float) -> str:
    """Format a large number with a decimal prefix: `9.35 M`; a value that is not finite: a dash."""
    return _scaled(count).strip() if math.isfinite(count) else MISSING


def format_rate(value: float) -> str:
    """Format GFLOP/s, GB/s or FLOPs per byte with two or three digits."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def format_percent(share: float) -> str:
    """Format a share: `57 %`, `3.2 %`, `< 0.1 %`; exactly 0 is `0 %`."""
    value = 100 * share
    if 0 < value < 0.05:
        return "< 0.1 %"
    return f"{value:.1f} %" if 0 < abs(value) < 9.95 else f"{value:.0f} %"


def format_shape(sizes: Sequence[int]) -> str:
    """Format the shape of a tensor without its batch: `64 x 36 x 36`."""
    return " x ".join(map(str, sizes[1:]))


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: `1 layer`, `1,200 layers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(parts: Sequence[str], joint: str = "and") -> str:
    """Join parts as in a sentence: `a, b and c`; no parts give an empty text."""
    *first, last = parts or [""]
    return f"{', '.join(first)} {joint} {last}" if first else last


def named(names: Sequence[str], most: int = 8) -> str:
    """List up to `most` names and the number of the others: `#1, #2 and 30 more`."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"


def describe_change(objective: Objective, value: float, reference: float) -> str:
    """Describe how `value` compares: `12.3x fewer parameters`, `1 % lower reconstruction loss`.

    Factors from 1.5 are written as factors, smaller changes as a share of the reference. Objectives
    without factors have the difference: `1.25 dB higher PSNR`.
    """
    what = noun(objective)
    if not objective.by_factor and value != reference:
        return f"{format_difference(objective, value - reference)} {what}"
    change = value / reference - 1 if objective.by_factor else 0.0
    if abs(change) < 1e-12:
        return f"the same {what}" if _is_amount(objective) else f"as many {what}"
    less, more = ("lower", "higher") if _is_amount(objective) else ("fewer", "more")
    factor = max(value / reference, reference / value)
    if factor >= 1.5:
        amount = f"{factor:.1f}x" if factor < 100 else f"{factor:,.0f}x"
    else:
        amount = _share(change)
    return f"{amount} {less if change < 0 else more} {what}"


def describe_gain(objective: Objective, gain: float) -> str:
    """Describe a value that is better by this factor or difference, as `describe_change` does."""
    if not objective.by_factor:
        return describe_change(objective, -objective.sign * gain, 0)
    return describe_change(objective, 1 / gain if objective.sign > 0 else gain, 1)


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows below their headings as a table of HTML; texts are escaped."""

    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<table><thead>{row(heads, 'th')}</thead><tbody>{body}</tbody></table>"


def reason_kind(reason: str | None) -> str:
    """Replace the numbers of a reason by `…`, so that equal causes can be counted together."""
    return re.sub(r"\d[\d.,e+]*(?:\s?[kMGT]\b)?", "…", reason or "no reason recorded")


def axis_title(objective: Objective) -> str:
    """Return an objective's title with its unit: `Latency (ms)`."""
    return f"{objective.title} ({objective.unit})" if objective.unit else objective.title


def axis_label(objective: Objective) -> str:
    """Return the title of an axis of a figure, which says if higher values are better."""
    title = axis_title(objective)
    return title if objective.direction == "minimise" else f"{title}, higher is better"


def directions(objectives: Sequence[Objective]) -> str:
    """Return a sentence on the direction in which each objective is better."""
    higher = [noun(objective) for objective in objectives if objective.direction == "maximise"]
    if not higher:
        return "Lower is better in every objective."
    if len(higher) == len(objectives):
        return "Higher is better in every objective."
    return f"Lower is better, except in {listed(higher)}, where higher is better."


def noun(objective: Objective) -> str:
    """Return an objective's title as used inside a sentence: `latency`, `MACs`."""
    title = objective.title
    return title if title.isupper() or title in ("MACs", "FLOPs") else title.lower()


def _is_amount(objective: Objective) -> bool:
    """Return whether the quantity is measured (lower) rather than counted (fewer)."""
    return bool(objective.unit) or objective.cost == "training"


def _share(change: float) -> str:
    percent = 100 * abs(change)
    if percent < 0.001:
        return "<0.001 %"
    return f"{percent:.{2 if percent >= 0.5 else 1}g} %"


def _digits(value: float) -> str:
    """Return the format of a value with a unit; that of a training that diverged is huge."""
    return ",.2f" if abs(value) < 1e5 else ".3g"


def _scaled(value: float) -> str:
    for size, prefix in _PREFIXES:
        if value >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.1f} {prefix}" if scaled >= 100 else f"{scaled:.2f} {prefix}"
    return f"{value:.0f} "


def _significant(value: float) -> str:
    """Format three significant digits without an exponent, with thousands separators."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"
