"""The two models of an explanation and their ablated copies, in the measuring process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import torch
from pydantic import Field
from torch import nn

from nas.explain.explanation import ABLATION_ORDER, SIDES, SideName, Value
from nas.timed_models import TimedImages, timed_model
from nas.vae import VAE
from profiling.ablation import Ablation, Counts
from profiling.environment import select_device
from profiling.kinds import CONVOLUTION_GROUPS, KindGroup
from profiling.latency import Latency, LatencyConfig, Model, measure_latency
from profiling.layers import profile_layers
from profiling.progress import Progress
from profiling.rewrites import fold_batch_norms
from profiling.roofline import Peaks, measure_peaks
from profiling.timing import measuring
from search_spaces.architecture import Architecture

PLAIN, FOLDED = "plain convolutions", "BatchNorm folded"
EMPTY = 1000  # empty operations or module calls in one pass of the subjects "launch" and "call"
_WARM_UP_S = 0.5  # of each copy in each measurement; a single pass if it takes longer


class ExplainConfig(Value):
    """Settings of an explanation.

    Attributes:
        batches: Batch sizes.
        threads: Threads of torch.
        rounds: Number of rounds in which every copy is timed once.
        alternations: How often the two measuring processes alternate; they share the rounds.
        max_s: Time limit of the timed passes at each batch size, in seconds, without warm-up.
        device: Device, or "auto".
    """

    batches: tuple[int, ...] = Field((1,), min_length=1)
    threads: int = Field(1, ge=1)
    rounds: int = Field(15, ge=2)
    alternations: int = Field(3, ge=1)
    max_s: float = Field(90.0, gt=0)
    device: str = "auto"


def subject(side: SideName, taken: Sequence[KindGroup], counts: Counts) -> str:
    """Return the name of the copy of a model without `taken`; absent kinds are not named."""
    return f"{side}:" + "+".join(kind for kind in taken if counts.launches_of.get(kind))


def variant(side: SideName, title: str) -> str:
    """Return the name of a variant of a model."""
    return f"{side}={title}"


def standard(architecture: Architecture) -> Architecture:
    """Return the same architecture with full 3x3 convolutions in every stage."""
    described = architecture.to_dict()
    for part in ("encoder", "decoder"):
        for stage in described[part]["stages"]:
            stage["convolution"] = "standard"
    return Architecture.from_dict(described)


class AblatedPair:
    """Two models, their ablated copies and their variants, in the measuring process.

    Args:
        pair: The architectures.
        batch: Batch size.
        config: Settings.
        images: Images that the models are fed.
        weights: Files of the models' trained weights; None where there are none.
    """

    def __init__(
        self,
        pair: tuple[Architecture, Architecture],
        batch: int,
        config: ExplainConfig,
        images: TimedImages,
        weights: tuple[Path | None, Path | None],
    ) -> None:
        self._pair, self._batch, self._config = dict(zip(SIDES, pair, strict=True)), batch, config
        self._device, self._fed = select_device(config.device), images
        self._weights = dict(zip(SIDES, weights, strict=True))
        self._images = images.tensor(self._device, batch)
        self._ablations = {
            side: self._ablation(self._model(a, self._weights[side]))
            for side, a in self._pair.items()
        }

    def counts(self) -> dict[SideName, Counts]:
        """Return the counts of each model in one pass of the whole batch."""
        return {side: ablation.counts for side, ablation in self._ablations.items()}

    def variant_counts(self) -> dict[str, Counts]:
        """Return the counts of each variant, by its name."""
        return {name: ablation.counts for name, ablation in self._variants.items()}

    def measure(
        self, rounds: int, max_s: float, ablate: bool, *, progress: Progress | None = None
    ) -> dict[str, Latency]:
        """Time both models in the same rounds; with `ablate` also all copies and variants."""
        config = self._latency_config(rounds, max_s)
        subjects = self._copies if ablate else self._intact
        return measure_latency(subjects, self._images, config, self._device, progress=progress)

    def page_faults(self, passes: int = 3) -> dict[SideName, float]:
        """Return the minor page faults of one pass of each model."""
        images, found = self._images[: self._batch], {}
        models = {side: self._intact[f"{side}:"] for side in SIDES}
        with measuring(models.values(), self._config.threads, self._device):
            for side, model in models.items():
                model(images)
                before = _page_faults()
                for _ in range(passes):
                    model(images)
                found[side] = (_page_faults() - before) / passes
        return found

    def peaks(self) -> Peaks:
        """Measure the peak rates of the machine."""
        return measure_peaks(self._config.threads, self._device)

    def layers(self, side: SideName, peaks: Peaks) -> tuple[dict[KindGroup, float], float]:
        """Return each kind's share of the latency by the layer table, and the share of all rows."""
        model: Any = self._intact[f"{side}:"]
        config = self._latency_config(self._config.rounds, self._config.max_s / 10)
        table = profile_layers(model, self._images, config, self._device, peaks=peaks)
        spent = dict.fromkeys(ABLATION_ORDER, 0.0)
        for layer in table.layers:
            if layer.cost.kind in spent:
                spent[layer.cost.kind] += layer.time_ms / table.latency.median_ms
        return spent, table.explained_share

    def _latency_config(self, rounds: int, max_s: float) -> LatencyConfig:
        return LatencyConfig(
            batch=self._batch,
            threads=self._config.threads,
            min_rounds=rounds,
            max_rounds=rounds,
            max_s=max_s,
            warmup_window=1,
            max_warmup=4,
            max_warmup_s=_WARM_UP_S,
        )

    def _model(self, architecture: Architecture, weights: Path | None = None) -> VAE:
        return timed_model(architecture, self._fed, self._device, weights)[0]

    def _ablation(self, model: nn.Module) -> Ablation:
        return Ablation(model, self._images[: self._batch])

    @cached_property
    def _intact(self) -> dict[str, Model]:
        return {f"{side}:": ablation.without() for side, ablation in self._ablations.items()}

    @cached_property
    def _variants(self) -> dict[str, Ablation]:
        found = {}
        for side, architecture in self._pair.items():
            plain = standard(architecture)
            if plain != architecture:
                found[variant(side, PLAIN)] = self._ablation(self._model(plain))
            folded, done, _ = fold_batch_norms(self._model(architecture, self._weights[side]))
            if done:
                found[variant(side, FOLDED)] = self._ablation(folded)
        return found

    @cached_property
    def _copies(self) -> dict[str, Model]:
        copies: dict[str, Model] = dict(self._intact)
        for side, ablation in self._ablations.items():
            for taken in _takings():
                name = subject(side, taken, ablation.counts)
                copies[name] = copies.get(name) or ablation.without(*taken)
        for name, ablation in self._variants.items():
            copies[name] = ablation.without()
            if name.endswith(PLAIN):
                copies[f"{name}:"] = ablation.without(*CONVOLUTION_GROUPS)
        return copies | self._empty()

    def _empty(self) -> dict[str, Model]:
        single, module = torch.ones(1, device=self._device), nn.Identity()

        def launch(*inputs: Any) -> None:
            for _ in range(EMPTY):
                torch.neg(single)

        def call(*inputs: Any) -> None:
            for _ in range(EMPTY):
                module(single)

        return {"launch": launch, "call": call}


def _page_faults() -> int:
    """Return the minor page faults of this process so far; all page faults on Windows."""
    try:
        import resource
    except ModuleNotFoundError:
        return int(getattr(psutil.Process().memory_info(), "num_page_faults", 0))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _takings() -> Iterator[tuple[KindGroup, ...]]:
    """Yield every set of removed kinds: the first ones of the order, and each alone."""
    for number, kind in enumerate(ABLATION_ORDER, start=1):
        yield ABLATION_ORDER[:number]
        yield (kind,)
