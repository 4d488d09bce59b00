"""Speculative decoding: a cheap drafter proposes the next tokens, and the model verifies them in one step.

A step of several tokens costs little more than a step of one token, and its logits are bit for bit those of single
steps. A drafted token is accepted only if the sampler chooses it itself. So the text is the same with and without
drafts, greedy or sampled. Each drafter is one file: `ngram` finds repetitions in the text so far, `draft_model` runs a
smaller model. `Speculator` decides what to draft; its docstring has the formula.
"""

from .cost_model import CostModel
from .draft_model import DraftModel, DraftModelStatistics, check_vocabulary
from .drafter import MAX_DRAFT, Acceptance, Drafter, Proposal, Statistics
from .ngram import NGrams
from .speculator import NO_DRAFT, Draft, Figures, Speculator, verify

__all__ = ["MAX_DRAFT", "NO_DRAFT", "Acceptance", "CostModel", "Draft", "DraftModel", "DraftModelStatistics", "Drafter",
           "Figures", "NGrams", "Proposal", "Speculator", "Statistics", "check_vocabulary", "verify"]
