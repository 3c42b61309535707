"""The search: samplers that propose architectures, and early stopping of trainings."""

from nas.search.early_stopping import EarlyStopping
from nas.search.pareto import ParetoOptions
from nas.search.proposer import Proposal, Proposer, make_proposer
from nas.search.samplers import SAMPLERS

__all__ = ["SAMPLERS", "EarlyStopping", "ParetoOptions", "Proposal", "Proposer", "make_proposer"]
