"""The result of an explanation: the gap between two models, its causes and the evidence.

`nas.explain.terms` has the formulas. Times are in ms.
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
"""The order in which kinds of operation are removed.

Activations are first, because their time depends on their input values (exponentials of negative
ones), and the tensors that replace other operations have other values than their results.
"""

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
"""Cause -> title. `REMAINDER` is the title of the rest of the gap."""

REMAINDER = "unexplained remainder"


class Value(BaseModel):
    """Base of the results: immutable, compared by value, and restored from JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Value):
    """A measured number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, times: Times) -> Self:
        """Return the estimate with element 0 as value and the interval of the other elements."""
        low, high = np.quantile(times[1:], (0.025, 0.975))
        return cls(value=float(times[0]), low=float(low), high=float(high))

    @property
    def clear(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


class Cause(Value):
    """One cause of the gap, model B minus model A, in ms.

    Attributes:
        key: Key of `CAUSES`, or "remainder".
        a_ms, b_ms: The term of each model.
        gap_ms: Their difference.
        share: The difference as a share of the whole gap.
        alone_ms: The difference by the first check, each kind removed alone.
        layers_ms: The difference by the second check, the layer table.
        contended: Whether other work disturbed one of the measurements.
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
        """The title of the cause."""
        return CAUSES.get(self.key, REMAINDER)


class AblationStep(Value):
    """One step of the ablation of a model, which removes `kind`.

    Attributes:
        kind: The removed kind of operation.
        left_ms: Time after the step.
        saved_ms: Time that the step saved.
        alone_ms: Time saved if only this kind is removed.
        contended: Whether other work disturbed one of the measurements.
    """

    kind: str
    left_ms: Estimate
    saved_ms: Estimate
    alone_ms: Estimate
    contended: bool = False


class Variant(Value):
    """A model built in another way, with its costs and its latency over the original one."""

    title: str
    params: int
    macs: int
    ms: Estimate
    ratio: Estimate
    convolution_gmac_s: Estimate | None = None
    contended: bool = False


class Side(Value):
    """One of the two models: exact counts and measured times.

    Attributes:
        counts: Counts for the whole batch.
        ms: Latency with the allocator as it is.
        kept_ms: Latency with freed memory kept by the allocator.
        page_faults, kept_page_faults: Minor page faults of one pass, in the same two cases.
        convolution_gmac_s: Rate of all convolutions, in 10^9 multiply-adds per second.
        explained_by_layers: The layer table's share of `kept_ms`.
        steps: The steps of the ablation.
        variants: The same model built in other ways.
        contention: Signs that other work disturbed the measurements of the latency.
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

    Attributes:
        batch: Batch size.
        a, b: The two models.
        gap_ms: Latency of B minus that of A.
        ratio: Latency of B over that of A.
        causes: The causes, in descending order of their size.
        remainder: The rest of the gap.
        launch_us: Cost of an empty operation.
        call_us: Cost of an empty module call.
        default_samples_ms: Subject -> its time in each round: the models (`a:`, `b:`) with the
            allocator as it is.
        kept_samples_ms: The same with freed memory kept, also for copies and variants.
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
        """Number of rounds."""
        return len(self.kept_samples_ms["a:"])

    @property
    def explained_share(self) -> float:
        """Share of the gap that the causes add up to; 1 means all of it."""
        return 1 - self.remainder.share

    @property
    def contended(self) -> bool:
        """Whether other work disturbed the latency of one of the models."""
        return bool(self.a.contention or self.b.contention)


class Explanation(Value):
    """The causes of the latency gap between architectures `a` and `b`, for each batch size.

    `fed` describes the images that the models got; "" if it was not recorded.
    """

    a_name: str
    b_name: str
    a: Architecture
    b: Architecture
    threads: int
    clock: Clock
    environment: Environment
    comparisons: tuple[LatencyGap, ...]
    fed: str = ""
