"""Tiny Hugging Face checkpoints with random weights, written without torch, transformers or safetensors."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from lcpu.engine.tokenizer.pretokenizers import PRETOKENIZERS

EMBED, FFN, HEADS, KV_HEADS, HEAD, BLOCKS, VOCAB = 64, 96, 4, 2, 16, 2, 384

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": EMBED,
    "intermediate_size": FFN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_hidden_layers": BLOCKS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}

_ATTENTION = {
    "q_proj": (HEADS * HEAD, EMBED),
    "k_proj": (KV_HEADS * HEAD, EMBED),
    "v_proj": (KV_HEADS * HEAD, EMBED),
    "o_proj": (EMBED, HEADS * HEAD),
}
_MLP = {"gate_proj": (FFN, EMBED), "up_proj": (FFN, EMBED), "down_proj": (EMBED, FFN)}

TEXT = """Once upon a time there was a little robot who liked to count: 1, 22, 333, 4444 and 55555.
It's not that we'll have found what they'd hidden; I'M sure YOU'RE not. Tabs\tand  spaces   and

empty lines!!! (See "here"?) Größe, naïve, 日本語, Ελλάδα, 🙂."""


def llama_tensors(seed: int = 0, blocks: int = BLOCKS, **changes: tuple[int, ...] | None) -> dict[str, np.ndarray]:
    """Random float32 weights of a Llama; `changes` replace or add shapes by names with dots written "__"."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, EMBED)}
    for block in range(blocks):
        name = f"model.layers.{block}."
        shapes |= {f"{name}self_attn.{part}.weight": shape for part, shape in _ATTENTION.items()}
        shapes |= {f"{name}mlp.{part}.weight": shape for part, shape in _MLP.items()}
        shapes |= {f"{name}{norm}.weight": (EMBED,) for norm in ("input_layernorm", "post_attention_layernorm")}
    shapes |= {"model.norm.weight": (EMBED,), "lm_head.weight": (VOCAB, EMBED)}
    for name, shape in changes.items():
        name = name.replace("__", ".")
        if shape is None:
            del shapes[name]
        else:
            shapes[name] = shape
    random = np.random.default_rng(seed)
    return {name: (1 + random.standard_normal(shape) / 8 if "norm" in name
                   else random.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)
            for name, shape in shapes.items()}


def mixtral_tensors(experts: int) -> dict[str, np.ndarray]:
    """Random weights of a Mixtral."""
    return llama_tensors(**expert_shapes(experts, FFN, "block_sparse_moe", ("w1", "w3", "w2")))


def expert_shapes(experts: int, ffn: int, place: str = "mlp", names: tuple[str, str, str] = ("gate_proj", "up_proj",
                  "down_proj")) -> dict[str, tuple[int, ...] | None]:
    """Changes for `llama_tensors`: a router and experts instead of a dense feed-forward. names: of a gate's matrix, of
    that beside it, and of the one after both."""
    shapes = block_shapes(f"{place}.gate.weight", (experts, EMBED))
    for name, part in zip(names, _MLP, strict=True):
        shapes |= block_shapes(f"mlp.{part}.weight", None)
        for expert in range(experts):
            shapes |= block_shapes(f"{place}.experts.{expert}.{name}.weight",
                                   (EMBED, ffn) if part == "down_proj" else (ffn, EMBED))
    return shapes


def block_shapes(ending: str, shape: tuple[int, ...] | None) -> dict[str, tuple[int, ...] | None]:
    """Changes for `llama_tensors`: a tensor that every block has."""
    return {f"model.layers.{block}.{ending}".replace(".", "__"): shape for block in range(BLOCKS)}


QKV_BIASES = (
    block_shapes("self_attn.q_proj.bias", (HEADS * HEAD,))
    | block_shapes("self_attn.k_proj.bias", (KV_HEADS * HEAD,))
    | block_shapes("self_attn.v_proj.bias", (KV_HEADS * HEAD,))
)
FUSED = (
    block_shapes("self_attn.q_proj.weight", None) | block_shapes("self_attn.k_proj.weight", None)
    | block_shapes("self_attn.v_proj.weight", None) | block_shapes("mlp.gate_proj.weight", None)
    | block_shapes("mlp.up_proj.weight", None)
    | block_shapes("self_attn.qkv_proj.weight", ((HEADS + 2 * KV_HEADS) * HEAD, EMBED))
    | block_shapes("mlp.gate_up_proj.weight", (2 * FFN, EMBED))
)
HEAD_NORMS = block_shapes("self_attn.q_norm.weight", (HEAD,)) | block_shapes("self_attn.k_norm.weight", (HEAD,))


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Cut off, not rounded: what a bfloat16 checkpoint would hold is not the point."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


# ---- weights ----

FLOAT8 = np.dtype([("e4m3", np.uint8)])  # what NumPy does not have

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "uint8": "U8", "int8": "I8",
           "int32": "I32", "int64": "I64"}
_STORAGES = {"F64": "DoubleStorage", "F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage",
             "U8": "ByteStorage", "I64": "LongStorage"}


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], **header_changes: Any) -> None:
    """uint16 arrays are bfloat16, and arrays of the dtype FLOAT8 are E4M3.

    `header_changes` replace entries of the header, dots written "__".
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        dtype = "F8_E4M3" if array.dtype == FLOAT8 else _DTYPES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    header |= {name.replace("__", "."): entry for name, entry in header_changes.items()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """As torch.save writes a state_dict. A transposed array is stored as it lies in memory, with its strides."""
    storages: list[bytes] = []
    pieces = [b"\x80\x02", _global("collections", "OrderedDict"), b")R("]
    for name, array in tensors.items():
        dtype = _DTYPES[array.dtype.name]
        storage = array if array.flags.c_contiguous else array.T
        assert storage.flags.c_contiguous
        strides = tuple(stride // array.itemsize for stride in array.strides)
        pieces += [
            _plain(name), _global("torch._utils", "_rebuild_tensor_v2"), b"((", _plain("storage"),
            _global("torch", _STORAGES[dtype]), _plain(str(len(storages))), _plain("cpu"), _plain(array.size), b"tQ",
            _plain(0), _plain(array.shape), _plain(strides), b"\x89", _global("collections", "OrderedDict"), b")RtR",
        ]  # fmt: skip
        storages.append(storage.tobytes())
    write_torch_archive(path, b"".join([*pieces, b"u."]), storages)


def write_torch_archive(path: Path, pickled: bytes, storages: list[bytes], compression: int = zipfile.ZIP_STORED,
                        byteorder: bytes = b"little") -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", byteorder)
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")


def _global(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def _plain(value: Any) -> bytes:
    """The opcodes for a number, string or tuple, without the frame around them."""
    return pickle.dumps(value, protocol=2)[2:-1]


# ---- tokenizers ----


def train_bpe(pre: str = "llama-bpe", size: int = 300) -> Tokenizer:
    """A byte-level BPE with the rules of one of the engine's pre-tokenizers, BOS and two tokens that end a turn."""
    rules = PRETOKENIZERS[pre]
    tokenizer = Tokenizer(BPE(ignore_merges=rules.ignore_merges))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<stop>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    return tokenizer


def train_sentencepiece(size: int = VOCAB, model_type: str = "bpe", **options: Any) -> bytes:
    """A tokenizer.model with byte tokens, as Llama's is made."""
    model = io.BytesIO()
    settings = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True,
                "split_digits": True, "character_coverage": 1.0} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n") * 20), model_writer=model, vocab_size=size, model_type=model_type,
        minloglevel=2, **settings
    )  # fmt: skip
    return model.getvalue()


# ---- whole checkpoints ----


def write_checkpoint(folder: Path, tensors: Mapping[str, np.ndarray] | None = None, *, tokenizer: str = "bpe",
                     tokenizer_config: Mapping[str, Any] | None = None, generation: Mapping[str, Any] | None = None,
                     weights: str = "safetensors", **config: Any) -> Path:
    """A checkpoint in a new folder: `config` changes CONFIG, None removes a key; `tokenizer` is "bpe" or "spm"."""
    folder.mkdir(parents=True)
    settings = {key: value for key, value in (CONFIG | config).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = llama_tensors() if tensors is None else tensors
    if weights == "safetensors":
        write_safetensors(folder / "model.safetensors", tensors)
    else:
        write_torch(folder / "pytorch_model.bin", tensors)
    if tokenizer == "bpe":
        train_bpe().save(str(folder / "tokenizer.json"))
        defaults = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "chat_template": "{{ messages }}"}
    else:
        (folder / "tokenizer.model").write_bytes(train_sentencepiece(settings["vocab_size"]))
        defaults = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(defaults | dict(tokenizer_config or {})))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
