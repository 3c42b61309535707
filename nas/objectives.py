"""The objectives of studies: directions and improvements, domination, and the hypervolume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError, nearest
from search_spaces.import_strings import is_import_string

Array = npt.NDArray[np.float64]

Cost = Literal["static", "device", "training"]
"""The source of a value: the architecture alone, a measurement, or training."""

Direction = Literal["minimise", "maximise"]
"""Whether lower or higher values are better."""


@dataclass(frozen=True)
class Objective:
    """A quantity of a candidate that is minimised or maximised.

    Attributes:
        name: Its name in configurations, records and tables.
        title: Its title for people.
        unit: Its unit; "" without one.
        cost: The source of its values.
        explanation: Its definition in a few words.
        direction: Whether lower or higher values are better.
        compared_by: `factor`: values are positive, and a quotient of two values says how much
            better one is. `difference`: values may be zero or negative, or their quotient means
            nothing, as with decibels. The logarithm is used only of values compared by factors.
        ideal: A bound of the values on the better side, from which the hypervolume counts.
    """

    name: str
    title: str
    unit: str
    cost: Cost
    explanation: str
    direction: Direction = "minimise"
    compared_by: Literal["factor", "difference"] = "factor"
    ideal: float = 0.0

    @property
    def sign(self) -> int:
        """The factor that makes lower values better: 1 or -1."""
        return 1 if self.direction == "minimise" else -1

    @property
    def by_factor(self) -> bool:
        """Whether values are compared by their quotient."""
        return self.compared_by == "factor"

    @property
    def better(self) -> str:
        """How better values are: "lower" or "higher"."""
        return "lower" if self.direction == "minimise" else "higher"

    @property
    def worse(self) -> str:
        """How worse values are: "higher" or "lower"."""
        return "higher" if self.direction == "minimise" else "lower"

    def gain(self, ours: float, theirs: float) -> float:
        """Return by how much `ours` is better than `theirs`.

        A factor above 1, or a difference above 0 in the objective's unit, is better.
        """
        if not self.by_factor:
            return self.sign * (theirs - ours)
        return theirs / ours if self.direction == "minimise" else ours / theirs


TRAINED_OBJECTIVE = "reconstruction_loss"
"""The default of the objectives found by training; every trained trial records its value."""

LATENCY = "latency_ms"
"""The latency in the first set-up of a study; `latency_ms:NAME` is that in a further one."""


def latency_in(setup: str) -> str:
    """Return the name of the latency in a set-up; "" is the first one."""
    return f"{LATENCY}:{setup}" if setup else LATENCY


def set_up_of(name: str) -> str | None:
    """Return the set-up of a latency by its name, "" for the first one; None of other names."""
    base, colon, setup = name.partition(":")
    return setup if base == LATENCY and bool(colon) == bool(setup) else None


def measures_latency(names: Iterable[str]) -> bool:
    """Whether a latency in any set-up is among the names; then it is measured in all of them."""
    return any(set_up_of(name) is not None for name in names)


_OWN: dict[str, Objective] = {}
"""The objectives of the user's own that this process knows, by import string."""


def is_own(name: str) -> bool:
    """Whether a name is an import string: that of an objective of the user's own."""
    return set_up_of(name) is None and is_import_string(name)


def declare(objective: Objective) -> None:
    """Make an objective of the user's own known to this process, by its import string.

    Raises:
        UserError: the process knows it with another direction or scale, from another study.
    """
    known = _OWN.get(objective.name, objective)
    for key in ("cost", "direction", "compared_by", "ideal"):
        before, now = getattr(known, key), getattr(objective, key)
        if before != now:
            raise UserError(
                f"{objective.name}: its {key} is {before} in one study and {now} in another; "
                "look at one of them in another process"
            )
    _OWN[objective.name] = objective


class _Objectives(dict[str, Objective]):
    """The objectives by name.

    The latencies in further set-ups and the objectives of the user's own are not listed.
    """

    def __contains__(self, name: object) -> bool:
        return (
            super().__contains__(name)
            or name in _OWN
            or (isinstance(name, str) and bool(set_up_of(name)))
        )

    def __missing__(self, name: str) -> Objective:
        if name in _OWN:
            return _OWN[name]
        if not (setup := set_up_of(name)):
            raise KeyError(name)
        return replace(self[LATENCY], name=name, title=f"{setup} latency")


OBJECTIVES: dict[str, Objective] = _Objectives(
    (objective.name, objective)
    for objective in (
        Objective(
            TRAINED_OBJECTIVE,
            "Reconstruction loss",
            "",
            "training",
            "(1 - SSIM) + 0.5 L1 on the validation images, at the epoch of lowest total loss",
        ),
        Objective(
            "total_loss",
            "Total loss",
            "",
            "training",
            "reconstruction loss + 0.001 KL, which the training minimises; its lowest epoch",
        ),
        Objective(
            "kl",
            "KL",
            "nats",
            "training",
            "rate: Kullback-Leibler divergence of the latent from the prior, per validation image",
            compared_by="difference",
        ),
        Objective(
            "psnr_db",
            "PSNR",
            "dB",
            "training",
            "peak signal-to-noise ratio, mean over the validation images",
            "maximise",
            "difference",
            # The error of rounding to 8 bits alone is 58.9 dB: more than this cannot be seen.
            ideal=60.0,
        ),
        Objective(
            "ms_ssim",
            "MS-SSIM",
            "",
            "training",
            "structural similarity at several scales, mean over the validation images",
            "maximise",
            "difference",
            ideal=1.0,
        ),
        Objective(
            "ssim",
            "SSIM",
            "",
            "training",
            "structural similarity, as in the loss, mean over the validation images",
            "maximise",
            "difference",
            ideal=1.0,
        ),
        Objective(
            "l1", "L1", "", "training", "mean absolute error of a pixel on the validation images"
        ),
        Objective("params", "Parameters", "", "static", "trainable parameters"),
        Objective(
            "macs",
            "MACs",
            "",
            "static",
            "multiply-accumulates of convolutions and linears, batch 1 (FLOPs = 2 x MACs)",
        ),
        Objective("flops", "FLOPs", "", "static", "2 x MACs, batch 1"),
        Objective(
            LATENCY,
            "Latency",
            "ms",
            "device",
            "one full forward pass (encoder, sampling, decoder): its ratio to `original`, measured "
            "in the same rounds, times the latency of `original`",
        ),
        Objective(
            "predicted_latency_ms",
            "Predicted latency",
            "ms",
            "static",
            "latency predicted from the operations, without measuring: see `nas profile calibrate`",
        ),
        Objective(
            "peak_memory_bytes",
            "Peak memory",
            "B",
            "static",
            "parameters and live activations at the peak of one forward pass",
        ),
    )
)
"""Name -> objective. `latency_ms:NAME` is the latency in the further set-up NAME of a study."""

DEFAULT_OBJECTIVES = (TRAINED_OBJECTIVE, "params", "macs", LATENCY)

_TINY = 1e-12

_REDUNDANT = {
    ("macs", "flops"): "flops is exactly twice macs; choose one of them",
    (LATENCY, "predicted_latency_ms"): (
        "predicted_latency_ms replaces latency_ms; choose one of them"
    ),
    ("total_loss", "reconstruction_loss", "kl"): (
        "total_loss is a weighted sum of reconstruction_loss and kl; choose two of them"
    ),
    ("reconstruction_loss", "ssim", "l1"): (
        "reconstruction_loss is a weighted sum of 1 - ssim and l1; choose two of them"
    ),
}
"""Sets of objectives of which one is an exact function of the others, with the remedy."""


def select_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Return the named objectives in order.

    Raises:
        UserError: a name is unknown or repeated, an objective is a function of others, or there
            are fewer than two.
    """
    for name in names:
        if name not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise UserError(
                f"objectives: {name!r} is not one of {known}{nearest(name, OBJECTIVES)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"objectives: {', '.join(names)}: name each objective once")
    _require_distinct_titles(names)
    for group, remedy in _REDUNDANT.items():
        if set(group) <= set(names):
            raise UserError(f"objectives: {remedy}")
    if len(names) < 2:
        raise UserError(
            f"objectives: {', '.join(names) or 'none'}: a trade-off needs at least two of "
            f"{', '.join(OBJECTIVES)}"
        )
    return tuple(OBJECTIVES[name] for name in names)


def _require_distinct_titles(names: Sequence[str]) -> None:
    titles: dict[str, str] = {}
    for name in names:
        title = OBJECTIVES[name].title
        if (other := titles.setdefault(title.lower(), name)) != name:
            raise UserError(
                f"objectives: {other} and {name} both have the title {title!r}; give one of them "
                "another by nas.objective(title=...)"
            )


def trained_objectives(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the named objectives that are found by training, in the same order.

    The first one is learned by the sampler, controls early stopping and has a figure of its curves.
    """
    return tuple(n for n in names if n in OBJECTIVES and OBJECTIVES[n].cost == "training")


def sign_of(name: str) -> int:
    """Return the factor that makes lower values of an objective better: 1 or -1.

    Quantities that are not in `OBJECTIVES`, such as the error of another benchmark, are minimised.
    """
    return OBJECTIVES[name].sign if name in OBJECTIVES else 1


def by_factor(name: str) -> bool:
    """Whether an objective is positive and compared by factors, as unknown quantities are."""
    return name not in OBJECTIVES or OBJECTIVES[name].by_factor


def minimised(values: npt.ArrayLike, names: Sequence[str]) -> Array:
    """Return values as they are minimised: those of maximised objectives with the opposite sign.

    Args:
        values: (..., objectives).
        names: Names of the objectives, in the order of the last axis.
    """
    signs = np.array([sign_of(name) for name in names], dtype=np.float64)
    found: Array = np.asarray(values, dtype=np.float64) * signs
    return found


def ideal_point(names: Sequence[str]) -> Array:
    """Return the ideal value of each named objective as it is minimised, (objectives,)."""
    return minimised([OBJECTIVES[name].ideal for name in names], names)


def dominates(a: Mapping[str, float], b: Mapping[str, float], names: Sequence[str]) -> bool:
    """Whether `a` is no worse than `b` in every named objective and better in at least one."""
    pairs = [(sign_of(n) * a[n], sign_of(n) * b[n]) for n in names]
    no_worse = all(ours <= theirs for ours, theirs in pairs)
    return no_worse and any(ours < theirs for ours, theirs in pairs)


def nondominated(points: Array) -> npt.NDArray[np.bool_]:
    """Mark the non-dominated rows of `points` (candidates, objectives); equal rows all stay.

    All columns are minimised: see `minimised`.
    """
    import moocore

    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    mask: npt.NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=True)
    return mask


def reference_point(points: Array, ideal: Array) -> Array:
    """Return 1.1 times the distance of the worst values from the ideal ones, (objectives,).

    Args:
        points: (candidates, objectives), minimised, at least one candidate.
        ideal: (objectives,), see `ideal_point`.
    """
    # A worst value that is ideal would leave a box without volume.
    distance = np.maximum(1.1 * (points.max(axis=0) - ideal), _TINY)
    point: Array = ideal + distance
    return point


def hypervolume(points: Array, nadir: Array, ideal: Array | None = None) -> float:
    """Return the hypervolume of `points` as a share of the box from `ideal` to `nadir`, 0 to 1.

    Args:
        points: (candidates, objectives), minimised.
        nadir: (objectives,), the reference point; points beyond it do not count.
        ideal: (objectives,), the opposite corner, which better values do not exceed; None is zero.
    """
    import moocore

    inside = points[(points < nadir).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    if ideal is None:
        ideal = np.zeros(len(nadir))
    shares = np.maximum(inside - ideal, 0) / (nadir - ideal)
    return float(moocore.hypervolume(shares, ref=np.ones(len(nadir))))
