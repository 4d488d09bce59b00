#!/usr/bin/env python3
"""Whether llama.cpp goes on from a text with the same tokens as lcpu, for the checkpoints of `golden_cases`.

    python -m tests.convert.compare_llama_cpp --peer .venv-peers/bin/python [--type f32] [NAME ...]

Greedy, until the two part; near ties are shown with what lies between. Logits of all tokens of a text are compared too.
--peer is the Python that has llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONTEXT = 256
GREEDY = 100  # tokens


def serve() -> None:
    """Answers a line of JSON on stdin, a model's path and tokens: for each token, the logits after it."""
    import llama_cpp as llama  # type: ignore[import-not-found]  # it is in the peer's environment

    silence = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silence, None)
    model = context = path = None
    for line in sys.stdin:
        task = json.loads(line)
        if task["path"] != path:
            path = task["path"]
            model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
            settings = llama.llama_context_default_params()
            settings.n_ctx = settings.n_batch = settings.n_ubatch = CONTEXT
            settings.flash_attn_type = 0
            context = llama.llama_init_from_model(model, settings) if model else None
        if context is None:
            print(json.dumps(None), flush=True)
            continue
        llama.llama_memory_seq_rm(llama.llama_get_memory(context), 0, -1, -1)
        tokens, vocab = task["tokens"], llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        batch = llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        assert llama.llama_decode(context, batch) == 0
        print(json.dumps([llama.llama_get_logits_ith(context, i)[:vocab] for i in range(len(tokens))]), flush=True)
        llama.llama_batch_free(batch)


def compare(name: str, kind: str, peer: subprocess.Popen[str], folder: Path) -> None:
    import numpy as np

    from lcpu import LLM
    from lcpu.convert.checkpoint import open_checkpoint
    from lcpu.convert.plan import plan
    from lcpu.convert.write import write_plan

    from .checkpoints import write_checkpoint
    from .golden_cases import case, text

    tensors, how = case(name)
    path = folder / f"{name}.gguf"
    with open_checkpoint(write_checkpoint(folder / name, tensors, **how)) as checkpoint:
        write_plan(plan(checkpoint, kind, "Tiny"), path)

    def theirs(tokens: list[int]) -> Any:
        assert peer.stdin
        assert peer.stdout
        print(json.dumps({"path": str(path), "tokens": tokens}), file=peer.stdin, flush=True)
        answer = json.loads(peer.stdout.readline())
        return None if answer is None else np.array(answer, np.float32)

    with LLM.load(path, threads=1, context=CONTEXT) as llm:
        wanted = theirs(text())
        if wanted is None:
            print(f"{name}: llama.cpp does not load it")
            return
        logits = llm.logits(text())
        difference = np.abs(logits - wanted).max() / np.abs(wanted).max()
        off = [(i, float(np.ptp(np.sort(wanted[i])[-2:]))) for i in range(len(logits))
               if logits[i].argmax() != wanted[i].argmax()]
        tokens, parted = text(), ""
        for _ in range(GREEDY):
            ours, peers = llm.logits(tokens)[-1], theirs(tokens)[-1]
            if ours.argmax() != peers.argmax():
                parted = f", parted at {len(tokens)} where the best two are {np.ptp(np.sort(peers)[-2:]):.2g} apart"
                break
            tokens.append(int(ours.argmax()))
        print(f"{name}: {len(tokens) - len(text())} greedy tokens equal{parted}; logits differ by {difference:.1e} of "
              f"the largest; other best tokens in the text: {off}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python that has llama-cpp-python")
    parser.add_argument("--type", default="f32")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    from .golden_cases import CASES

    peer = subprocess.Popen([arguments.peer, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, text=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in arguments.names or CASES:
                compare(name, arguments.type, peer, Path(folder))
    finally:
        peer.kill()
        peer.wait()


if __name__ == "__main__":
    main()
