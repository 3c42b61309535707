"""Which architectures to time, so that few of them suffice for a model of whole latencies.

`nas.predict.linear_times` takes a latency as a sum over kinds of operations. Architectures drawn at
random have much of what is common and little of what is rare, and kinds that occur together in most
of them cannot be told apart. So the next architecture is the one of a large sample whose latency is
least certain after all earlier ones: a sequential D-optimal design (Wynn 1970), which needs no
measured time. Its effect is measured in docs/deployment.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from nas.predict.calibration import Part, drawn
from nas.predict.cost_model import Floats
from nas.predict.linear_times import sums_by_kind
from nas.predict.operations import operations
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace

_SAMPLE, _SEED = 1000, 3


def informative(
    space: SearchSpace, timed: Sequence[Architecture], part: Part, batch: int
) -> Iterator[Architecture]:
    """Yield members of a sample of `space`, each the least certain after all before it.

    Args:
        space: The search space.
        timed: Architectures that are timed already.
        part: The part of the model that is timed.
        batch: Images in a pass.
    """
    sample = list(islice(drawn(space, _SEED), _SAMPLE))
    shares = _shares([*timed, *sample], part, batch)
    covariance = np.eye(shares.shape[1])
    for row in shares[: len(timed)]:
        covariance = _observed(covariance, row)
    shares = shares[len(timed) :]
    left = np.ones(len(sample), dtype=bool)
    while left.any():
        variance = np.where(left, ((shares @ covariance) * shares).sum(axis=1), -np.inf)
        chosen = int(variance.argmax())
        left[chosen] = False
        covariance = _observed(covariance, shares[chosen])
        yield sample[chosen]


def _shares(architectures: Sequence[Architecture], part: Part, batch: int) -> Floats:
    """Return the terms of each kind of operation, relative to the architecture: (n, terms).

    Errors of a latency are relative to it. Before it is known, the mean of the four sums over all
    operations stands for it, each relative to its mean over the architectures. Columns have a mean
    square of 1.
    """
    _, sums = sums_by_kind([operations(one, part) for one in architectures], batch)
    totals = sums.sum(axis=1)
    size = (totals / np.maximum(totals.mean(axis=0), 1)).mean(axis=1)
    shares: Floats = sums.reshape(len(sums), -1) / size[:, None]
    shares /= np.sqrt(np.maximum((shares**2).mean(axis=0), np.finfo(float).tiny))
    return shares


def _observed(covariance: Floats, row: Floats) -> Floats:
    """Return the covariance of the coefficients after one more observation (rank-one update)."""
    gain = covariance @ row
    updated: Floats = covariance - np.outer(gain, gain) / (1 + row @ gain)
    return updated
