"""What an explanation holds: the gap between two models, its causes and what backs them.

How the numbers come about is written down in `nas.explain.terms`. Times are in ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from profiling.ablation import Counts
from profiling.environment import Environment
from profiling.kinds import KindGroup
from search_spaces.architecture import Architecture

Times = npt.NDArray[np.float64]
SideName = Literal["a", "b"]
SIDES: tuple[SideName, SideName] = ("a", "b")
Clock = Literal["wall", "thread CPU"]

ABLATION_ORDER: tuple[KindGroup, ...] = (
    *("activation", "batch_norm", "concatenation", "resampling"),
    *("linear", "pointwise", "depthwise", "convolution"),
)
"""The order in which kinds of operation are taken away.

Activations first: their time depends on the values they see (exponentials of negative ones), and
ready tensors have other values than the operations they stand in for.
"""

CONVOLUTION_GROUPS: tuple[KindGroup, ...] = ("convolution", "depthwise", "pointwise")

CAUSES: dict[str, str] = {
    "arithmetic": "arithmetic of convolutions",
    "convolution": "efficiency of full convolutions",
    "depthwise": "efficiency of depthwise convolutions",
    "pointwise": "efficiency of pointwise convolutions",
    "concatenation": "memory traffic of concatenation",
    "normalisation": "BatchNorm and activations",
    "resampling": "resampling",
    "linear": "linear layers (heads, seed)",
    "overhead": "launches and framework",
    "allocator": "page faults of the allocator",
}
"""Every cause and what it is called; `REMAINDER` is what they leave."""

REMAINDER = "unexplained remainder"


class Value(BaseModel):
    """Base of the results: frozen, equal by value, readable back from JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Value):
    """A measured number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, times: Times) -> Self:
        """Take the value from element 0 and the interval from the other draws."""
        low, high = np.quantile(times[1:], (0.025, 0.975))
        return cls(value=float(times[0]), low=float(low), high=float(high))

    @property
    def clear(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


class Cause(Value):
    """One part of the gap (B minus A), in ms; `share` is its part of the whole gap.

    `alone_ms` and `layers_ms` are the gap by the two checks: kinds taken away alone, layer table.
    `contended` means that something else disturbed a measurement behind it.
    """

    key: str
    a_ms: Estimate
    b_ms: Estimate
    gap_ms: Estimate
    share: float
    alone_ms: Estimate | None = None
    layers_ms: float | None = None
    contended: bool = False

    @property
    def title(self) -> str:
        """What the cause is called."""
        return CAUSES.get(self.key, REMAINDER)


class AblationStep(Value):
    """One model after a step: its time, and what taking `kind` away saved, in order and alone."""

    kind: str
    left_ms: Estimate
    saved_ms: Estimate
    alone_ms: Estimate
    contended: bool = False


class Variant(Value):
    """The same model built in another way, as one could: what that would change."""

    title: str
    params: int
    macs: int
    ms: Estimate
    ratio: Estimate
    convolution_gmac_s: Estimate | None = None
    contended: bool = False


class Side(Value):
    """One of the two models: its exact counts for the whole batch, and its measured times.

    `page_faults` are minor faults per pass with the allocator as it is, `kept_page_faults` with
    freed memory kept. `explained_by_layers` is the layer table's share of `kept_ms`.
    """

    counts: Counts
    ms: Estimate
    kept_ms: Estimate
    page_faults: float
    kept_page_faults: float
    convolution_gmac_s: Estimate
    explained_by_layers: float
    steps: tuple[AblationStep, ...]
    variants: tuple[Variant, ...]
    contention: tuple[str, ...]


class LatencyGap(Value):
    """The gap at one batch size.

    `default_samples_ms` and `kept_samples_ms` hold the times of every subject in each round: the
    models as they are (`a:`, `b:`) and with freed memory kept, copies named by what they lack.
    """

    batch: int
    a: Side
    b: Side
    gap_ms: Estimate
    ratio: Estimate
    causes: tuple[Cause, ...]
    remainder: Cause
    launch_us: Estimate
    call_us: Estimate
    default_samples_ms: Mapping[str, tuple[float, ...]] = Field(repr=False)
    kept_samples_ms: Mapping[str, tuple[float, ...]] = Field(repr=False)

    @property
    def rounds(self) -> int:
        """How often every copy was timed."""
        return len(self.kept_samples_ms["a:"])

    @property
    def explained_share(self) -> float:
        """How much of the gap the named causes add up to; 1 means all of it."""
        return 1 - self.remainder.share

    @property
    def contended(self) -> bool:
        """Whether either model's own time was disturbed."""
        return bool(self.a.contention or self.b.contention)


class Explanation(Value):
    """Why `b` takes another time than `a`, at each batch size; reads itself back from JSON."""

    a_name: str
    b_name: str
    a: Architecture
    b: Architecture
    threads: int
    clock: Clock
    environment: Environment
    comparisons: tuple[LatencyGap, ...]
