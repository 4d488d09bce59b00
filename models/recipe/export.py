"""Writes a trained model as a GGUF file: matrices as F16, norms as F32, the vocabulary inside."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import sentencepiece

from .torch_model import NORM_EPS, ROPE_BASE, Model, ternary_weight

TITLES = {
    "stories": "lcpu stories",
    "stories-draft": "lcpu stories, draft for speculative decoding",
    "stories-ternary": "lcpu stories, ternary weights",
}


def write_model(path: Path, name: str, model: Model, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    """Writes `model` to `path`. Ternary matrices are written as their quantized values: every one is 0 or +-scale."""
    shape = model.shape
    writer = gguf.GGUFWriter(path, "bitnet-b1.58" if shape.ternary else "llama")
    writer.add_name(TITLES[name])
    writer.add_author("the lcpu authors")
    writer.add_license("mit")
    writer.add_description("Tells short children's stories. Trained from scratch on text that lcpu's recipe generates.")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    add_vocabulary(writer, tokenizer)
    for tensor_name, weight in model.state_dict().items():
        if weight.ndim == 1:
            writer.add_tensor(tensor_name, weight.numpy().astype(np.float32))
        else:
            is_ternary = shape.ternary and tensor_name.startswith("blk.")
            values = ternary_weight(weight) if is_ternary else weight
            writer.add_tensor(tensor_name, values.numpy().astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    """Tokens, scores and types, as llama.cpp's converter takes them from a SentencePiece model."""

    def token_type(token: int) -> gguf.TokenType:
        if tokenizer.is_unknown(token):
            return gguf.TokenType.UNKNOWN
        if tokenizer.is_control(token):
            return gguf.TokenType.CONTROL
        return gguf.TokenType.BYTE if tokenizer.is_byte(token) else gguf.TokenType.NORMAL

    tokens = range(tokenizer.vocab_size())
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.id_to_piece(token) for token in tokens])
    writer.add_token_scores([tokenizer.get_score(token) for token in tokens])
    writer.add_token_types([token_type(token) for token in tokens])
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
