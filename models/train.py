"""Makes the embedded models: vocabulary, data, three trained models, three GGUF files.

pip install torch
python -m lcpu.models.train --work /tmp/stories --out models
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor

from .export import write_model
from .muon import optimizers, set_rate
from .stories_text import stories
from .torch_model import CONTEXT, Model, Shape

VOCABULARY = 1536
SEED = 2026
VALIDATION_SEED = 7
VOCABULARY_FILE = "vocabulary.model"
BATCH_STORIES = 16
LONG_ROWS_EVERY = 8
CHECKPOINT_STEPS = 100


@dataclass(frozen=True)
class Recipe:
    """How one model is trained. `teacher` names the model whose probabilities it learns, none for the text itself."""

    shape: Shape
    steps: int
    matrix_lr: float
    other_lr: float
    teacher: str | None = None


RECIPES = {
    "stories": Recipe(
        Shape(dim=256, layers=3, heads=4, kv_heads=2, ff=512, vocab=VOCABULARY), 1000, 0.02, 4e-3
    ),
    "stories-draft": Recipe(
        Shape(dim=64, layers=3, heads=2, kv_heads=1, ff=192, vocab=VOCABULARY), 700, 0.02, 8e-3, "stories"
    ),
    "stories-ternary": Recipe(
        Shape(dim=128, layers=4, heads=4, kv_heads=2, ff=384, vocab=VOCABULARY, ternary=True),
        700, 0.02, 6e-3, "stories",
    ),
}  # fmt: skip


def train_vocabulary(path: Path) -> None:
    """A BPE vocabulary with bytes as the fallback, which changes no text: tokens and scores alone rebuild it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=stories(4000, SEED),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=1,
    )
    path.write_bytes(model.getvalue())


def batches(tokenizer: sentencepiece.SentencePieceProcessor, count: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """`count` batches of ids [rows, tokens], padded with -1. A row is a story between BOS and EOS.

    Every LONG_ROWS_EVERY batches, a row is two stories, a long one with a short one, so that the model sees the length
    of its whole context. Batch n depends on (seed, n) alone, so training can start again at n.
    """
    for n in range(start, count):
        texts = list(stories(BATCH_STORIES, seed * 1_000_003 + n))
        rows = [[tokenizer.bos_id(), *tokenizer.encode(text), tokenizer.eos_id()] for text in texts]
        if n % LONG_ROWS_EVERY == 0:
            rows.sort(key=len)
            rows = [rows[i] + rows[-1 - i] for i in range(len(rows) // 2)]
        batch = np.full((len(rows), min(max(map(len, rows)), CONTEXT + 1)), -1)
        for row, ids in zip(batch, rows, strict=True):
            row[: len(ids)] = ids[: len(row)]
        yield torch.from_numpy(batch)


def loss_of(model: Model, batch: Tensor, teacher: Model | None) -> Tensor:
    """Mean cross-entropy per token, in nats: against the text, or against the teacher's probabilities."""
    inputs, targets = batch[:, :-1].clamp(min=0), batch[:, 1:].flatten()
    logits = model(inputs).flatten(0, 1)
    if teacher is None:
        return F.cross_entropy(logits, targets, ignore_index=-1)
    with torch.no_grad():
        wanted = teacher(inputs).flatten(0, 1)[targets >= 0].softmax(dim=-1)
    return F.cross_entropy(logits[targets >= 0], wanted)


@torch.no_grad()
def validate(model: Model, tokenizer: sentencepiece.SentencePieceProcessor, count: int = 8) -> float:
    """Mean cross-entropy per token on stories that training does not see."""
    return float(np.mean([loss_of(model, batch, None).item() for batch in batches(tokenizer, count, VALIDATION_SEED)]))


def train(name: str, tokenizer: sentencepiece.SentencePieceProcessor, work: Path) -> Model:
    """Trains one model, or continues from its checkpoint in `work`; the processes share the rows of every batch."""
    recipe = RECIPES[name]
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    teacher = load(recipe.teacher, work) if recipe.teacher else None
    torch.manual_seed(SEED)
    model = Model(recipe.shape)
    chain = optimizers(model, recipe.matrix_lr, recipe.other_lr)
    checkpoint = work / f"{name}.pt"
    first = resume(checkpoint, model, chain) if checkpoint.exists() else 0
    began = time.time()
    for step, batch in enumerate(batches(tokenizer, recipe.steps, SEED, first), first):
        loss = loss_of(model, batch[rank::processes], teacher)
        model.zero_grad()
        loss.backward()
        average_gradients(model)
        for optimizer in chain:
            set_rate(optimizer, step, recipe.steps)
            optimizer.step()
        if rank == 0 and step % 20 == 0:
            print(f"{name} step {step} loss {loss.item():.4f} seconds {time.time() - began:.0f}", flush=True)
        if rank == 0 and ((step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == recipe.steps):
            states = [optimizer.state_dict() for optimizer in chain]
            torch.save({"model": model.state_dict(), "optimizers": states, "step": step + 1}, checkpoint)
    return model


def average_gradients(model: Model) -> None:
    """Every process ends with the mean of all processes' gradients."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def resume(checkpoint: Path, model: Model, chain: list[torch.optim.Optimizer]) -> int:
    """Restores model and optimizers; gives the step to continue with."""
    state = torch.load(checkpoint)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(chain, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["step"]


def load(name: str, work: Path) -> Model:
    """A model from its checkpoint."""
    model = Model(RECIPES[name].shape)
    model.load_state_dict(torch.load(work / f"{name}.pt")["model"])
    return model


def work_on(rank: int, args: argparse.Namespace) -> None:
    """What each process does: one thread, its share of every batch; the first one also writes the files."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(args.work / "processes"), args.processes)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=args.processes)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.work / VOCABULARY_FILE))
    for name in args.names:
        model = train(name, tokenizer, args.work)
        if rank == 0:
            print(f"{name} validation loss {validate(model, tokenizer):.4f}", flush=True)
            write_model(args.out / f"{name}.gguf", name, model, tokenizer)
        distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the vocabulary and the checkpoints")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the GGUF files")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    parser.add_argument("names", nargs="*", default=list(RECIPES), help="which models; all by default")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    train_vocabulary(args.work / VOCABULARY_FILE)
    (args.work / "processes").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work_on, (args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
