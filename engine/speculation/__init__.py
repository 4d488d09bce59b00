"""Speculative decoding: cheap drafts of the next tokens, which the model verifies in one step.

A step of several tokens costs little more than a step of one, and its logits are bit for bit those of single steps. A
drafted token is kept if the sampler chooses it itself, so the text is the same with and without drafts, greedy or
sampled. Drafters are one file each: `ngram` looks into the text so far, `draft_model` asks a smaller model.
"""

from .costs import StepCosts
from .draft_model import DraftExperience, DraftModel, check_vocabulary
from .drafter import MOST, Acceptance, Drafter, Experience, Offer
from .ngram import NGrams
from .speculator import NO_DRAFT, Draft, Figures, Speculator, verify

__all__ = ["MOST", "NO_DRAFT", "Acceptance", "Draft", "DraftExperience", "DraftModel", "Drafter", "Experience",
           "Figures", "NGrams", "Offer", "Speculator", "StepCosts", "check_vocabulary", "verify"]
