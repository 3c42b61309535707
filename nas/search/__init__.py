"""Which architecture to try next."""

from nas.search.proposer import Proposer
from nas.search.samplers import SAMPLERS

__all__ = ["SAMPLERS", "Proposer"]
