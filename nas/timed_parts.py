"""What is timed of an architecture in a set-up, and how its measurement is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

from torch import Tensor, nn

from nas.datasets.cache import cache_directory
from nas.setups import SetUp, inputs_of, part_of
from nas.timed_models import INITIAL
from nas.vae import VAE
from profiling.paired import InterleavedLatencies
from profiling.quiet import QuietSpeed
from profiling.symbolic import Example
from search_spaces.architecture import Architecture


@dataclass(frozen=True)
class TimedPart:
    """The part of a model that is timed.

    Attributes:
        module: The part, in evaluation mode.
        inputs: Its arguments, for all images.
        weights: Description of its weights.
    """

    module: nn.Module
    inputs: Example
    weights: str

    @classmethod
    def of(cls, built: tuple[VAE, str], images: Tensor, setup: SetUp) -> Self:
        """Return the part that a set-up times, of a result of `nas.timed_models.timed_model`."""
        model, weights = built
        return cls(part_of(model, setup.part), inputs_of(model, images, setup), weights)


def quiet_speed(
    original: Architecture, setup: SetUp, where: str, fed: str, weights: str = INITIAL
) -> QuietSpeed:
    """Return the recorded quiet speed of `original`.

    Args:
        original: The reference.
        setup: What is timed.
        where: Description of the environment; equal for equal environments.
        fed: Description of the images.
        weights: Description of its weights.
    """
    what = f"{setup.batch} {setup.differing} {setup.runtime}"
    key = f"{where} {original.digest} {what} {fed} {weights}"
    name = sha256(key.encode()).hexdigest()[:16]
    return QuietSpeed(cache_directory() / "speeds" / f"{name}.json")


def described(
    found: InterleavedLatencies,
    setup: SetUp,
    fed: str,
    states: Mapping[str, str],
    digests: Mapping[str, str] | None = None,
) -> InterleavedLatencies:
    """Return the latencies with a record of what was timed.

    Args:
        found: The latencies.
        setup: What was timed.
        fed: Description of the images.
        states: Name -> description of the model's weights.
        digests: Name -> digest of the architecture; None leaves the recorded ones.
    """
    taken = {}
    for name, one in found.taken.items():
        subject = replace(
            one.subject,
            backend=one.subject.backend if name == "graph" else setup.backend,
            precision=setup.precision,
            part=setup.part,
            fed=fed,
            weights=states.get(name, INITIAL),
            digest=one.subject.digest if digests is None else digests[name],
        )
        taken[name] = replace(one, subject=subject)
    return replace(found, taken=taken)
