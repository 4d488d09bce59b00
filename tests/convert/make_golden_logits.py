"""Writes golden_logits.npz: `python -m tests.convert.make_golden_logits [NAME ...]`, where torch and transformers are.

Nothing else needs them. The weights are random and made anew from a seed, so only logits are kept. With names of cases,
only theirs are made anew; without, those of all (BitNet's needs accelerate, too).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoints import write_checkpoint
from .golden_cases import CASES, GOLDEN, ROWS, case, text


def in_floats(tensors: dict[str, np.ndarray], how: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """MXFP4 as transformers reads it, whose way to load such a checkpoint needs another package and makes bfloat16."""
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    if (how.get("quantization_config") or {}).get("quant_method") != "mxfp4":
        return tensors, how
    floats = {name: array for name, array in tensors.items() if not name.endswith(("_blocks", "_scales"))}
    for name in (name.removesuffix("_blocks") for name in tensors if name.endswith("_blocks")):
        parts = (torch.from_numpy(tensors[name + ending]) for ending in ("_blocks", "_scales"))
        floats[name] = convert_moe_packed_tensors(*parts, dtype=torch.float32).numpy()
    return floats, {key: value for key, value in how.items() if key != "quantization_config"}


def main() -> None:
    import torch
    import transformers

    kept = np.load(GOLDEN) if sys.argv[1:] else {}
    golden: dict[str, Any] = {**{name: kept[name] for name in CASES if name in kept},
                              "transformers": transformers.__version__}
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            tensors, how = in_floats(*case(name))
            folder = write_checkpoint(Path(scratch) / name, tensors, **how)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                                      attn_implementation="eager").eval()
            with torch.no_grad():
                golden[name] = model(torch.tensor([text()])).logits[0].numpy()[ROWS].astype(np.float32)
        print(name, golden[name].shape, np.abs(golden[name]).max())
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main()
