"""Measure two architectures by ablation, and split their latency gap into causes.

Both models are measured in two new processes that alternate. In the first the allocator is as in
this process, in the second it keeps freed memory. The second process also times all ablated copies
of both models in the same rounds. `nas.explain.terms` has the formulas by which the gap is split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from nas.explain.copies import AblatedPair, ExplainConfig
from nas.explain.explanation import SIDES, Explanation
from nas.explain.gap import Measured, clock, explain_gap
from nas.timed_models import TimedImages
from nas.vae import build_vae
from profiling.environment import select_device
from profiling.fresh_process import FreshProcess
from profiling.latency import Latency
from profiling.memory import require_memory
from profiling.progress import Progress
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

__all__ = ["ExplainConfig", "explain_latency"]


def explain_latency(
    a: Architecture,
    b: Architecture,
    names: tuple[str, str] = ("a", "b"),
    config: ExplainConfig | None = None,
    *,
    images: TimedImages | None = None,
    weights: tuple[Path | None, Path | None] = (None, None),
    progress: Progress | None = None,
) -> Explanation:
    """Measure two architectures and their ablations, and split the gap of B minus A into causes.

    It takes one to two minutes for latencies of 50 and 200 ms at batch 1. All measurements are made
    in separate processes, so the state of this process does not change.

    Args:
        a: The first architecture, model A.
        b: The second architecture, model B, for images of the same shape.
        names: Their names in the result.
        config: Settings.
        images: Images that both models are fed; None takes noise.
        weights: Files of the trained weights of A and B; None where there are none.
        progress: Called with the steps done so far and the total.

    Raises:
        UserError: a batch size is below 1, or the architectures take different images.
        ProfilingError: the device is unknown, or a model does not fit in memory.
    """
    config = config or ExplainConfig()
    _check(a, b, config)
    images = (images or TimedImages.noise(a.image_size, a.image_channels)).fit(a)
    report = _Steps(progress, len(config.batches), config)
    taken = [_measure((a, b), batch, config, images, weights, report) for batch in config.batches]
    last = taken[-1]
    return Explanation(
        a_name=names[0],
        b_name=names[1],
        a=a,
        b=b,
        threads=config.threads,
        clock=clock(last.default["a:"]),
        environment=last.environment,
        fed=images.about,
        comparisons=tuple(explain_gap(measured) for measured in taken),
    )


class _Steps:
    """Combines the progress of many short measurements."""

    def __init__(self, progress: Progress | None, batches: int, config: ExplainConfig) -> None:
        self._progress, self._done = progress, 0
        self._total = batches * (2 * config.alternations * _rounds_per_alternation(config) + 2)

    def next(self, size: int) -> Progress:
        """Return the progress function of a part that has `size` steps."""
        start, self._done = self._done, self._done + size

        def report(done: int, total: int) -> None:
            if self._progress:
                self._progress(start + round(size * done / total), self._total)

        return report


def _rounds_per_alternation(config: ExplainConfig) -> int:
    return max(2, -(-config.rounds // config.alternations))


def _check(a: Architecture, b: Architecture, config: ExplainConfig) -> None:
    if wrong := [batch for batch in config.batches if batch < 1]:
        raise UserError(f"batch: {wrong[0]} is not a positive number of images")
    if a.image_shape != b.image_shape:
        raise UserError(
            f"architectures: one takes {_shape(a)} images, the other {_shape(b)}: explain "
            "compares models of the same input (original@64 is original for 64 pixels)"
        )
    device = select_device(config.device)
    for architecture in (a, b):
        shape = (max(config.batches), *architecture.image_shape)
        with torch.device("meta"):
            model, images = build_vae(architecture), torch.empty(shape)
        require_memory(model, images, device)


def _shape(architecture: Architecture) -> str:
    return "x".join(map(str, architecture.image_shape))


def _measure(
    pair: tuple[Architecture, Architecture],
    batch: int,
    config: ExplainConfig,
    images: TimedImages,
    weights: tuple[Path | None, Path | None],
    report: _Steps,
) -> Measured:
    """Return all measurements at one batch size, from two processes that alternate."""
    with ExitStack() as stack:
        args = pair, batch, config, images, weights
        plain, keeping = (
            stack.enter_context(FreshProcess(AblatedPair, *args, tuned=tuned))
            for tuned in (False, True)
        )
        # Both processes build their models before either of them measures.
        counts, _ = keeping.call("counts"), plain.call("counts")
        variants = keeping.call("variant_counts")
        default, kept = _alternating(plain, keeping, config, report)
        faults = [process.call("page_faults") for process in (plain, keeping)]
        peaks = keeping.call("peaks")
        layers = {}
        for side in SIDES:
            layers[side] = keeping.call("layers", side, peaks)
            report.next(1)(1, 1)
    return Measured(
        batch=batch,
        counts=counts,
        variants=variants,
        default=default,
        kept=kept,
        page_faults={side: (faults[0][side], faults[1][side]) for side in SIDES},
        layer_shares={side: spent for side, (spent, _) in layers.items()},
        explained_by_layers={side: share for side, (_, share) in layers.items()},
    )


def _alternating(
    plain: FreshProcess, keeping: FreshProcess, config: ExplainConfig, report: _Steps
) -> tuple[dict[str, Latency], dict[str, Latency]]:
    rounds, max_s = _rounds_per_alternation(config), config.max_s / config.alternations
    parts: tuple[list[dict[str, Latency]], ...] = ([], [])
    for _ in range(config.alternations):
        for taken, process, ablate in zip(parts, (plain, keeping), (False, True), strict=True):
            progress = report.next(rounds)
            taken.append(process.call("measure", rounds, max_s, ablate, progress=progress))
            progress(1, 1)
    return _joined(parts[0]), _joined(parts[1])


def _joined(parts: Sequence[Mapping[str, Latency]]) -> dict[str, Latency]:
    """Concatenate the samples of several measurements of the same subjects."""
    return {
        name: replace(first, samples=tuple(s for part in parts for s in part[name].samples))
        for name, first in parts[0].items()
    }
