"""Makes the embedded models: vocabulary, data, three trained models, three GGUF files.

pip install torch
python -m lcpu.models.recipe.train --work /tmp/stories --out models
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
    """The sizes of one model and its two peak learning rates."""

    shape: Shape
    matrix_lr: float
    other_lr: float


@dataclass(frozen=True)
class Stage:
    """Models that are trained side by side on the same batches.

    They learn the probabilities of the model that `teacher` names, and begin with its embedding; or, without one, the
    text itself.
    """

    steps: int
    recipes: dict[str, Recipe]
    teacher: str | None = None


STORIES = Shape(dim=256, layers=3, heads=4, kv_heads=2, ff=512, vocab=VOCABULARY)
DRAFT = Shape(dim=64, layers=3, heads=2, kv_heads=1, ff=192, vocab=VOCABULARY)
TERNARY = Shape(dim=128, layers=4, heads=4, kv_heads=2, ff=384, vocab=VOCABULARY, ternary=True)

STAGES = (
    Stage(1000, {"stories": Recipe(STORIES, 0.02, 4e-3)}),
    Stage(
        600,
        {"stories-draft": Recipe(DRAFT, 0.03, 6e-3), "stories-ternary": Recipe(TERNARY, 0.02, 4e-3)},
        teacher="stories",
    ),
)


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


def targets_of(batch: Tensor, teacher: Model | None) -> Tensor:
    """What to predict at each position that is not padding: ids [n], or the teacher's probabilities [n, vocab]."""
    following = batch[:, 1:]
    if teacher is None:
        return following[following >= 0]
    with torch.no_grad():
        return teacher(batch[:, :-1].clamp(min=0))[following >= 0].softmax(dim=-1)


def loss_of(model: Model, batch: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy per token, in nats."""
    return F.cross_entropy(model(batch[:, :-1].clamp(min=0))[batch[:, 1:] >= 0], targets)


@torch.no_grad()
def validate(model: Model, tokenizer: sentencepiece.SentencePieceProcessor, count: int = 8) -> float:
    """Mean cross-entropy per token on stories that training does not see."""
    held_out = batches(tokenizer, count, VALIDATION_SEED)
    return float(np.mean([loss_of(model, batch, targets_of(batch, None)).item() for batch in held_out]))


@dataclass
class Trainee:
    """A model in training, with its optimizers and the file of its checkpoint."""

    name: str
    model: Model
    optimizers: list[torch.optim.Optimizer]
    checkpoint: Path

    def step(self, batch: Tensor, targets: Tensor, step: int, steps: int) -> float:
        """One step on this process's rows; gives their loss."""
        loss = loss_of(self.model, batch, targets)
        self.model.zero_grad()
        loss.backward()
        average_gradients(self.model)
        for optimizer in self.optimizers:
            set_rate(optimizer, step, steps)
            optimizer.step()
        return loss.item()

    def save(self, step: int) -> None:
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save({"model": self.model.state_dict(), "optimizers": states, "step": step}, self.checkpoint)

    def resume(self) -> int:
        """Restores the checkpoint, if there is one; gives the step to go on with."""
        if not self.checkpoint.exists():
            return 0
        state = torch.load(self.checkpoint)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return state["step"]


def new_trainee(name: str, recipe: Recipe, teacher: Model | None, work: Path) -> Trainee:
    torch.manual_seed(SEED)
    model = Model(recipe.shape)
    if teacher:
        model.start_as_student(teacher)
    return Trainee(name, model, optimizers(model, recipe.matrix_lr, recipe.other_lr), work / f"{name}.pt")


def train(stage: Stage, tokenizer: sentencepiece.SentencePieceProcessor, work: Path) -> list[Trainee]:
    """Trains a stage's models, or continues from their checkpoints; the processes share the rows of every batch."""
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    teacher = None
    if stage.teacher:
        teacher = Model(STORIES)
        teacher.load_state_dict(torch.load(work / f"{stage.teacher}.pt")["model"])
    trainees = [new_trainee(name, recipe, teacher, work) for name, recipe in stage.recipes.items()]
    first = min([trainee.resume() for trainee in trainees])
    began = time.time()
    for step, batch in enumerate(batches(tokenizer, stage.steps, SEED, first), first):
        rows = batch[rank::processes]
        targets = targets_of(rows, teacher)
        losses = [trainee.step(rows, targets, step, stage.steps) for trainee in trainees]
        if rank == 0 and step % 20 == 0:
            report = ", ".join(f"{trainee.name} {loss:.4f}" for trainee, loss in zip(trainees, losses, strict=True))
            print(f"step {step}, {time.time() - began:.0f} s: {report}", flush=True)
        if rank == 0 and ((step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == stage.steps):
            for trainee in trainees:
                trainee.save(step + 1)
    return trainees


def average_gradients(model: Model) -> None:
    """Every process ends with the mean of all processes' gradients."""
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def work_on(rank: int, args: argparse.Namespace) -> None:
    """What each process does: one thread, its share of every batch; the first one also writes the files."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(args.work / "processes"), args.processes)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=args.processes)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.work / VOCABULARY_FILE))
    for stage in STAGES:
        for trainee in train(stage, tokenizer, args.work):
            if rank == 0:
                print(f"{trainee.name} validation loss {validate(trainee.model, tokenizer):.4f}", flush=True)
                write_model(args.out / f"{trainee.name}.gguf", trainee.name, trainee.model, tokenizer)
        distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the vocabulary and the checkpoints")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1], help="folder for the GGUF files")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / VOCABULARY_FILE).exists():
        train_vocabulary(args.work / VOCABULARY_FILE)
    (args.work / "processes").unlink(missing_ok=True)
    torch.multiprocessing.spawn(work_on, (args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
