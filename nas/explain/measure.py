"""Why one architecture is slower than another: measured by ablation, split into causes.

How the gap is split is written down in `nas.explain.terms`; this module has the measurements taken.
Both models are measured in two fresh processes that alternate: one starts as this process did, the
other keeps freed memory. The second also times all ablated copies of both models, interleaved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch

from nas.explain.copies import AblatedPair, ExplainConfig
from nas.explain.explanation import SIDES, Explanation
from nas.explain.gap import Measured, clock, explain_gap
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
    progress: Progress | None = None,
) -> Explanation:
    """Measure both architectures and their ablations, and split the gap of B over A into causes.

    Takes one to two minutes for a pair of 50 and 200 ms at batch 1. Nothing in this process
    changes: all measurements are made in processes of their own.

    Raises:
        UserError: a batch size below 1.
        ProfilingError: unknown device, or a model does not fit in memory.
    """
    config = config or ExplainConfig()
    _check(a, b, config)
    report = _Steps(progress, len(config.batches), config)
    taken = [_measure((a, b), batch, config, report) for batch in config.batches]
    last = taken[-1]
    return Explanation(
        a_name=names[0],
        b_name=names[1],
        a=a,
        b=b,
        threads=config.threads,
        clock=clock(last.default["a:"]),
        environment=last.environment,
        comparisons=tuple(explain_gap(measured) for measured in taken),
    )


class _Steps:
    """Turns the progress of many short measurements into one."""

    def __init__(self, progress: Progress | None, batches: int, config: ExplainConfig) -> None:
        self._progress, self._done = progress, 0
        self._total = batches * (2 * config.turns * _per_turn(config) + 2)

    def next(self, size: int) -> Progress:
        """Return the progress of a part that counts for `size`."""
        start, self._done = self._done, self._done + size

        def report(done: int, total: int) -> None:
            if self._progress:
                self._progress(start + round(size * done / total), self._total)

        return report


def _per_turn(config: ExplainConfig) -> int:
    return max(2, -(-config.rounds // config.turns))


def _check(a: Architecture, b: Architecture, config: ExplainConfig) -> None:
    if wrong := [batch for batch in config.batches if batch < 1]:
        raise UserError(f"batch: {wrong[0]} is not a positive number of images")
    if (a.image_size, a.image_channels) != (b.image_size, b.image_channels):
        raise UserError(
            f"architectures: one takes {a.image_channels}x{a.image_size}x{a.image_size} images, "
            f"the other {b.image_channels}x{b.image_size}x{b.image_size}: explain compares models "
            "of the same input (original@64 is original for 64 pixels)"
        )
    device = select_device(config.device)
    for architecture in (a, b):
        shape = (max(config.batches), architecture.image_channels, *2 * [architecture.image_size])
        with torch.device("meta"):
            model, images = build_vae(architecture), torch.empty(shape)
        require_memory(model, images, device)


def _measure(
    pair: tuple[Architecture, Architecture], batch: int, config: ExplainConfig, report: _Steps
) -> Measured:
    """Take all measurements at one batch size, in two processes that alternate."""
    with ExitStack() as stack:
        plain, keeping = (
            stack.enter_context(FreshProcess(AblatedPair, pair, batch, config, tuned=tuned))
            for tuned in (False, True)
        )
        # Both have built their models, and so come to rest, before either measures.
        counts, _ = keeping.call("counts"), plain.call("counts")
        variants = keeping.call("variant_counts")
        default, kept = _turns(plain, keeping, config, report)
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


def _turns(
    plain: FreshProcess, keeping: FreshProcess, config: ExplainConfig, report: _Steps
) -> tuple[dict[str, Latency], dict[str, Latency]]:
    rounds, max_s = _per_turn(config), config.max_s / config.turns
    parts: tuple[list[dict[str, Latency]], ...] = ([], [])
    for _ in range(config.turns):
        for taken, process, ablate in zip(parts, (plain, keeping), (False, True), strict=True):
            progress = report.next(rounds)
            taken.append(process.call("measure", rounds, max_s, ablate, progress=progress))
            progress(1, 1)
    return _joined(parts[0]), _joined(parts[1])


def _joined(parts: Sequence[Mapping[str, Latency]]) -> dict[str, Latency]:
    """Join the samples that several measurements took of the same subjects."""
    return {
        name: replace(first, samples=tuple(s for part in parts for s in part[name].samples))
        for name, first in parts[0].items()
    }
