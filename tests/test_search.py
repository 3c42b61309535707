"""Proposals: every sampler, no repetition, used-up spaces, learning from results."""

from collections.abc import Mapping

import numpy as np
import pytest

from nas.search import SAMPLERS, Proposer
from search_spaces.references import ORIGINAL
from search_spaces.space import SearchSpace

TINY = SearchSpace.load("tiny")
NAMES = ("reconstruction_loss", "params")


def values(digest: str) -> list[float]:
    number = int(digest, 16)
    return [1 + number % 97, 1 + number % 89]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_each_network_once_and_then_ends(sampler: str) -> None:
    proposer = Proposer(TINY, sampler, NAMES, seed=1)
    digests = []
    while (proposal := proposer.propose()) is not None:
        assert TINY.problem(proposal.assignment) is None
        assert TINY.architecture(proposal.assignment) == proposal.architecture
        digests.append(proposal.architecture.digest)
        proposer.tell(digests[-1], values(digests[-1]))
    assert len(digests) == len(set(digests)) == TINY.distinct()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_works_on_a_conditional_space_with_a_reference(sampler: str) -> None:
    space = SearchSpace.load("quickstart")
    proposer = Proposer(space, sampler, NAMES, seed=0)
    reference = ORIGINAL.resized(64)
    proposer.register(space.assignment(reference), reference)
    proposer.tell(reference.digest, [1.0, 1.0])
    for _ in range(20):
        proposal = proposer.propose()
        assert proposal is not None
        proposer.tell(proposal.architecture.digest, values(proposal.architecture.digest))
    assert proposer.seen == 21


def test_registered_architectures_are_not_proposed_again() -> None:
    proposer = Proposer(TINY, "random", NAMES, seed=0)
    rest = [TINY.architecture(a) for a in TINY.enumerate()]
    kept = rest.pop()
    for architecture in rest:
        proposer.register(TINY.assignment(architecture), architecture)
    proposal = proposer.propose()
    assert proposal is not None
    assert proposal.architecture == kept
    assert proposer.propose() is None


def test_a_non_member_counts_as_seen_without_disturbing_the_sampler() -> None:
    proposer = Proposer(TINY, "nsga2", NAMES, seed=0)
    proposer.register(None, ORIGINAL)
    proposer.tell(ORIGINAL.digest, [1.0, 1.0])
    assert proposer.seen == 1
    assert proposer.propose() is not None


def test_failures_and_limit_violations_can_be_reported() -> None:
    proposer = Proposer(SearchSpace.load("quickstart"), "tpe", NAMES, seed=0)
    for number in range(30):
        proposal = proposer.propose()
        assert proposal is not None
        digest = proposal.architecture.digest
        if number % 3 == 0:
            proposer.tell(digest, None, {"params": 0.5})
        elif number % 3 == 1:
            proposer.tell(digest, None)
        else:
            proposer.tell(digest, values(digest), {"params": -0.5})


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_learning_sampler_finds_better_points_than_chance(sampler: str) -> None:
    """Objectives reward small latents and narrow decoders: later proposals must move there."""
    space = SearchSpace.load("paper")

    def cost(assignment: Mapping[str, object]) -> float:
        return float(str(assignment["latent_size"])) + float(str(assignment["decoder.seed_width"]))

    proposer = Proposer(space, sampler, NAMES, seed=3)
    costs = []
    for _ in range(160):
        proposal = proposer.propose()
        assert proposal is not None
        costs.append(cost(proposal.assignment))
        proposer.tell(proposal.architecture.digest, [costs[-1], costs[-1] ** 0.5])
    rng = np.random.default_rng(0)
    chance = np.mean([cost(space.sample(rng)) for _ in range(500)])
    assert np.mean(costs[-40:]) < 0.7 * chance
