"""A draft model beside its target: what it computes, what it may lack, and how the two end."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from lcpu import models
from lcpu.engine.llm import LLM
from lcpu.engine.options import GenerationOptions
from lcpu.engine.sampler import Sampler
from lcpu.engine.speculation import DraftModel
from lcpu.kernels.errors import LcpuError

GREEDY = Sampler(GenerationOptions(temperature=0.0))


class Counting:
    """A model whose next token is the last one plus 1; it remembers how long the texts were that it was given."""

    def __init__(self, vocab: int) -> None:
        self.vocab, self.lengths, self.texts = vocab, [], []  # type: ignore[var-annotated]

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        self.lengths.append(len(ids))
        self.texts.append(list(ids))
        return np.eye(self.vocab, dtype=np.float32)[(ids[-1] + 1) % self.vocab]


def test_it_drafts_what_it_would_say() -> None:
    model = Counting(10)
    drafter = DraftModel(model, 100, 10, 10)
    drafter.start([1, 2, 3])
    proposal = drafter.propose([1, 2, 3, 4], GREEDY)
    assert proposal is not None
    assert proposal.tokens(3) == [5, 6, 7]
    assert model.lengths == [3, 3, 3, 3, 4, 5, 6]  # the prompt's last token a few times more, for its cost


def test_a_prompt_waits_for_the_first_draft() -> None:
    """Unless it is long, or what a token costs is new."""
    first = DraftModel(Counting(10), 100, 10, 10)
    first.start([1, 2, 3])
    model = Counting(10)
    drafter = DraftModel(model, 100, 10, 10, first.statistics)
    drafter.start([1, 2, 3])
    assert model.lengths == []
    proposal = drafter.propose([1, 2, 3, 4], GREEDY)
    assert proposal is not None
    assert proposal.first_token_seconds > proposal.next_token_seconds > 0
    assert proposal.tokens(2) == [5, 6]
    drafter.start([1] * 50)
    assert model.lengths == [4, 5, 50]


def test_what_it_has_not_seen_costs_more() -> None:
    drafter = DraftModel(Counting(10), 100, 10, 10)
    drafter.start([1, 2, 3])
    near, far = drafter.propose([1, 2, 3, 4], GREEDY), drafter.propose(list(range(40)), GREEDY)
    assert near is not None
    assert far is not None
    assert far.first_token_seconds > near.first_token_seconds == near.next_token_seconds > 0


@pytest.mark.parametrize(("length", "most"), [(1, 8), (7, 2), (8, 1), (9, None), (20, None)])
def test_its_context_ends(length: int, most: int | None) -> None:
    """The last drafted token is only chosen."""
    drafter = DraftModel(Counting(10), 8, 10, 10)
    drafter.start([1] * length)
    proposal = drafter.propose([1] * length, GREEDY)
    assert (proposal and proposal.max_tokens) == most
    if proposal is not None:
        assert len(proposal.tokens(proposal.max_tokens)) == most


def test_a_smaller_vocabulary() -> None:
    """Tokens that it lacks are never drafted, and do not stop it."""
    model = Counting(5)
    drafter = DraftModel(model, 100, 5, 8)
    drafter.start([1, 7])
    proposal = drafter.propose([1, 7, 6, 2], GREEDY)
    assert proposal is not None
    assert proposal.tokens(4) == [3, 4, 0, 1]
    assert model.texts[4] == [1, 0, 0, 2]


def test_a_larger_vocabulary() -> None:
    drafter = DraftModel(Counting(10), 100, 10, 6)
    proposal = drafter.propose([1, 4], GREEDY)
    assert proposal is not None
    assert proposal.tokens(3) == [5, 0, 1]  # all that the target knows is equally unlikely after its last token


def test_another_vocabulary(write_tiny: Callable[..., Path]) -> None:
    """The first difference is named."""
    with LLM.load(write_tiny(), threads=1) as llm:
        tokens = list(llm.tokenizer.vocabulary.tokens)
        message = f"another vocabulary: token 261 is 'other' there and {tokens[261]!r} in the model"
        tokens[261], tokens[270] = "other", "another"
        with LLM.load(write_tiny(**{"tokenizer.ggml.tokens": tokens}), beside=llm) as draft:
            with pytest.raises(LcpuError, match=re.escape(message)) as error:
                llm.stream([1, 2], draft=draft)
            assert "\n" not in str(error.value)


def test_beside(tiny_gguf: Path) -> None:
    """The same threads, the same text, and the target is the one to close last."""
    options = GenerationOptions(max_tokens=40, temperature=0.0, ignore_eos=True)
    with LLM.load(tiny_gguf, threads=2) as llm:
        plain = "".join(llm.stream([1, 14], options, None))
        with LLM.load(tiny_gguf, beside=llm) as draft:
            assert draft.threads == 2
            assert draft._model.team is llm._model.team
            assert "".join(llm.stream([1, 14], options, draft)) == plain
        assert "".join(llm.stream([1, 14], options)) == plain  # the draft's end was not the threads' end
        with pytest.raises(LcpuError, match="leave out `threads`"):
            LLM.load(tiny_gguf, threads=1, beside=llm)


def test_closed_in_the_wrong_order(tiny_gguf: Path) -> None:
    llm = LLM.load(tiny_gguf, threads=2)
    draft = LLM.load(tiny_gguf, beside=llm)
    llm.close()
    with pytest.raises(LcpuError, match="have ended with the model that they belong to"):
        draft.logits([1, 2, 3])
    draft.close()


def test_a_draft_with_threads_of_its_own(tiny_gguf: Path) -> None:
    options = GenerationOptions(max_tokens=40, temperature=0.0, ignore_eos=True)
    with LLM.load(tiny_gguf, threads=1) as llm, LLM.load(tiny_gguf, threads=2) as draft:
        assert "".join(llm.stream([1, 14], options, draft)) == "".join(llm.stream([1, 14], options, None))


@pytest.mark.skipif(not models.path().exists(), reason="the embedded models are not there")
def test_the_embedded_pair() -> None:
    """A real draft is right most of the time, and both caches roll back exactly: a second text is as good."""
    options = GenerationOptions(max_tokens=150, temperature=0.0, ignore_eos=True)
    with LLM.load(threads=1) as llm, LLM.load(models.path().parent / "stories-draft.gguf", beside=llm) as draft:
        for prompt in ("Once upon a time", "One day a dog", "Once upon a time"):
            plain = llm.stream(llm.tokenize(prompt), options, None)
            drafted = llm.stream(llm.tokenize(prompt), options, draft)
            assert "".join(drafted) == "".join(plain)
            ids = [*llm.tokenize(prompt), *plain.generated_ids]
            right = (draft.logits(ids[:-1]).argmax(1) == ids[1:])[-150:]
            assert right.mean() > 0.75
