"""Which architecture to try next, and which training to stop."""

from nas.search.early_stopping import EarlyStopping
from nas.search.pareto import ParetoOptions
from nas.search.proposer import Proposal, Proposer, make_proposer
from nas.search.samplers import SAMPLERS

__all__ = ["SAMPLERS", "EarlyStopping", "ParetoOptions", "Proposal", "Proposer", "make_proposer"]
