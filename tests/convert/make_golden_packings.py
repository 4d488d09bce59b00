"""Write golden_packings.npz: quantized weights as libraries pack them, and the values that the libraries make of them.

Needs torch, transformers, auto-round, autoawq (its file packing_utils.py alone), compressed-tensors and bitsandbytes,
in an environment of their own:

    python tests/convert/make_golden_packings.py golden_packings.npz
"""

# Keys of the archive: "case", JSON with the packing's settings and each tensor's data type; "case/ending", a tensor;
# "case/values", float32, of every STEP-th row.

from __future__ import annotations

import importlib.util
import json
import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch
from auto_round_extension.torch import qlinear_torch, qlinear_torch_zp
from bitsandbytes import functional as bnb
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

ROWS, K, GROUP = 32, 64, 32
STEP = 3
DTYPES = {torch.int32: "I32", torch.int64: "I64", torch.float16: "F16", torch.float32: "F32", torch.bfloat16: "BF16",
          torch.uint8: "U8", torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
SAME_BITS = {torch.bfloat16: torch.int16, torch.float8_e4m3fn: torch.uint8, torch.float8_e5m2: torch.uint8}
cases: dict[str, np.ndarray] = {}


def save(name: str, settings: dict, tensors: dict[str, torch.Tensor], values: torch.Tensor) -> None:
    dtypes = {ending: DTYPES[tensor.dtype] for ending, tensor in tensors.items()}
    cases[name] = np.array(json.dumps({"settings": settings, "dtypes": dtypes}))
    for ending, tensor in tensors.items():
        cases[f"{name}/{ending}"] = tensor.view(SAME_BITS.get(tensor.dtype, tensor.dtype)).numpy()
    cases[f"{name}/values"] = values.to(torch.float32).flatten(0, -2)[::STEP].numpy()


def gptq(bits: int, symmetric: bool, less_one: bool) -> None:
    """AutoRound's modules pack both versions of GPTQ."""
    module = (qlinear_torch_zp if less_one else qlinear_torch).QuantLinear(bits, GROUP, K, ROWS, bias=False)
    module.device = "cpu"  # which pack takes for granted
    scales = torch.rand(ROWS, K // GROUP) / 50 + 0.005
    middle = 2 ** (bits - 1)
    zeros = middle if symmetric else torch.randint(1, 2**bits, (ROWS, K // GROUP))
    linear = torch.nn.Linear(K, ROWS, bias=False)
    codes = torch.randint(0, 2**bits, (ROWS, K))
    wide = zeros if symmetric else zeros.repeat_interleave(GROUP, 1)
    linear.weight.data = (codes - wide) * scales.half().float().repeat_interleave(GROUP, 1)
    module.pack(linear, scales.half().float(), zeros)
    tensors = {f".{name}": getattr(module, name) for name in ("qweight", "qzeros", "scales")}
    settings = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "sym": symmetric,
                "checkpoint_format": "gptq" if less_one else "gptq_v2"}
    module.scales = module.scales.float()  # so that it does not compute in float16
    save(f"gptq {bits} {'sym' if symmetric else 'asym'} {'v1' if less_one else 'v2'}", settings, tensors,
         module(torch.eye(K)).T)


def awq() -> None:
    path = Path(sysconfig.get_paths()["purelib"], "awq", "utils", "packing_utils.py")
    spec = importlib.util.spec_from_file_location("packing_utils", path)
    packing_utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packing_utils)
    words = (torch.randint(-(2**31), 2**31, (rows, ROWS // 8)).to(torch.int32) for rows in (K, K // GROUP))
    qweight, qzeros = words
    scales = (torch.rand(K // GROUP, ROWS) / 50 + 0.005).half()
    values = packing_utils.dequantize_gemm(qweight, qzeros, scales.float(), 4, GROUP).T
    save("awq", {"quant_method": "awq", "bits": 4, "version": "gemm"},
         {".qweight": qweight, ".qzeros": qzeros, ".scales": scales}, values)


def compressed(name: str, compressor: type, form: str, zero: int | None, **arguments: object) -> None:
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    groups = K // GROUP if arguments["strategy"] == "group" else 1
    shape = (1,) if arguments["strategy"] == "tensor" else (ROWS, groups)
    state = {"weight": torch.randn(ROWS, K) / 10, "weight_scale": (torch.rand(shape) / 50 + 0.02).bfloat16()}
    if zero is not None:
        state["weight_zero_point"] = torch.randint(-zero, zero, shape).to(torch.int8)
    packed = compressor.compress(state, scheme)
    wide = {key: value.float() if key == "weight_scale" else value for key, value in packed.items()}
    values = compressor.decompress(wide, scheme)["weight"]
    save(name, {"quant_method": "compressed-tensors", "format": form},
         {f".{key}": value for key, value in packed.items()}, values)


def bitsandbytes() -> None:
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            weight = torch.randn(ROWS, 768 if nested else K) / 10
            codes, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
            tensors = {f".weight.{key}": value for key, value in state.as_dict(packed=True).items()}
            save(f"{kind}{' nested' if nested else ''}", {"quant_method": "bitsandbytes", "load_in_4bit": True},
                 {".weight": codes, **tensors}, bnb.dequantize_4bit(codes, state))
    codes, scales, _ = bnb.int8_vectorwise_quant((torch.randn(ROWS, K) / 10).half())
    save("int8", {"quant_method": "bitsandbytes", "load_in_8bit": True},
         {".weight": codes, ".SCB": scales, ".weight_format": torch.zeros((), dtype=torch.uint8)},
         bnb.int8_vectorwise_dequant(codes, scales))


def fp8() -> None:
    for name, shape, block in (("block", (3, 2), [12, 40]), ("row", (ROWS, 1), [1, K]), ("tensor", (1, 1), [ROWS, K])):
        weight = (torch.randn(ROWS, K) * 100).to(torch.float8_e4m3fn)
        scales = torch.rand(shape) / 1000
        values = _dequantize_fp8_weight(weight, scales, block, torch.float32)
        settings = {"quant_method": "fp8", "weight_block_size": block if name == "block" else None}
        stored = scales.reshape(()) if name == "tensor" else scales
        save(f"fp8 {name}", settings, {".weight": weight, ".weight_scale_inv": stored}, values)
    every = torch.arange(256, dtype=torch.uint8).reshape(8, 32)
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        save(f"fp8 codes {kind}", {"quant_method": "fp8"},
             {".weight": every.view(kind), ".weight_scale": torch.ones(1)}, every.view(kind).float())


def mxfp4() -> None:
    blocks = torch.randint(0, 256, (2, 16, K // 32, 16), dtype=torch.uint8)
    scales = torch.randint(110, 130, (2, 16, K // 32), dtype=torch.uint8)
    values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
    save("mxfp4", {"quant_method": "mxfp4"}, {"_blocks": blocks, "_scales": scales}, values)


if __name__ == "__main__":
    torch.manual_seed(0)
    for bits in (2, 3, 4, 5, 8):
        for symmetric in (False, True):
            for less_one in (False, True):
                gptq(bits, symmetric, less_one)
    awq()
    PACK, PLAIN = PackedQuantizationCompressor, NaiveQuantizationCompressor
    INT = {"type": "int", "num_bits": 8, "group_size": None, "symmetric": True, "strategy": "channel"}
    INT4 = INT | {"num_bits": 4, "group_size": GROUP, "strategy": "group"}
    compressed("pack 4 group", PACK, "pack-quantized", None, **INT4)
    compressed("pack 4 group asym", PACK, "pack-quantized", 8, **INT4 | {"symmetric": False})
    compressed("pack 8 channel", PACK, "pack-quantized", None, **INT)
    compressed("pack 3 channel", PACK, "pack-quantized", None, **INT | {"num_bits": 3})
    compressed("int8 channel", PLAIN, "int-quantized", None, **INT)
    compressed("int8 tensor", PLAIN, "int-quantized", None, **INT | {"strategy": "tensor"})
    compressed("int8 asym", PLAIN, "int-quantized", 20, **INT | {"symmetric": False})
    compressed("float8 channel", PLAIN, "float-quantized", None, **INT | {"type": "float"})
    bitsandbytes()
    fp8()
    mxfp4()
    np.savez_compressed(sys.argv[1], **cases)
