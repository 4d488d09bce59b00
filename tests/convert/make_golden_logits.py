"""Writes golden_logits.npz: `python -m tests.convert.make_golden_logits [CASE ...]`, where transformers is installed.

With names, other cases stay as they are. Nothing else needs torch and transformers. The weights are random and made
anew from a seed, so only logits are kept.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoints import write_checkpoint
from .golden_cases import CASES, GOLDEN, ROWS, case, text


def main(names: list[str]) -> None:
    import torch
    import transformers

    golden: dict[str, Any] = dict(np.load(GOLDEN)) if names else {}
    golden["transformers"] = transformers.__version__
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            tensors, how = case(name)
            folder = write_checkpoint(Path(scratch) / name, tensors, **how)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                                      attn_implementation="eager").eval()
            with torch.no_grad():
                golden[name] = model(torch.tensor([text()])).logits[0].numpy()[ROWS].astype(np.float32)
        print(name, golden[name].shape, np.abs(golden[name]).max())
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main(sys.argv[1:])
