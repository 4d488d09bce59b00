"""Every error that a user can bring about: the situation, the exit code, and the line on stderr, word for word.

Each says the cause and then the way out. A usage error names the help in the end; its exit code is 2. Files have
relative names here, so that lines are the same everywhere.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lcpu.cli.main import SUBCOMMANDS, exit_code
from lcpu.engine import memory, random_model
from lcpu.engine.gguf_file import GGUFFile

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 32}
HEADER = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
EXPERTS = {"general.architecture": "qwen3", "qwen3.expert_count": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., Path]) -> Path:
    """Files that people name, by mistake or not."""
    folder = tmp_path_factory.mktemp("errors")
    shutil.copy(write_tiny(), folder / "model.gguf")
    data = (folder / "model.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(data[:-1000])
    (folder / "head.gguf").write_bytes(data[:200])
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "page.gguf").write_bytes(b"<!DOCTYPE html>" + bytes(50))
    (folder / "old.gguf").write_bytes(b"tjgg" + bytes(50))
    (folder / "first.gguf").write_bytes(b"GGUF\1\0\0\0" + bytes(50))
    (folder / "big.gguf").write_bytes(b"GGUF\0\0\0\3" + bytes(50))
    (folder / "pickle.bin").write_bytes(b"PK\3\4" + bytes(50))
    (folder / "lfs.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    header = json.dumps(HEADER).encode().ljust(64)
    (folder / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    (folder / "folder").mkdir()
    (folder / "binary.txt").write_bytes(b"abc\xff\xfe")
    (folder / "short.txt").write_text("once upon a time")
    (folder / "requests.jsonl").write_text('{"prompt": "a"}\n')
    for name, changes in {
        "experts.gguf": EXPERTS,
        "mamba.gguf": {"general.architecture": "mamba"},
        "heads.gguf": {"llama.attention.head_count": 3},
        "huge.gguf": {"llama.context_length": 2**40},
        "unnamed.gguf": {"llama.context_length": None},
        "bert.gguf": {"tokenizer.ggml.model": "bert"},
        "words.gguf": {"tokenizer.ggml.tokens": None},
    }.items():
        shutil.copy(write_tiny(**changes), folder / name)
    with GGUFFile.open(folder / "model.gguf") as file:
        tokens = [{"z": "Z"}.get(token, token) for token in file.metadata["tokenizer.ggml.tokens"]]
    shutil.copy(write_tiny(**{"tokenizer.ggml.tokens": tokens}), folder / "other.gguf")
    weights = (folder / "weights.safetensors").read_bytes()
    for name, contents in {
        "bare": {},
        "config": {"config.json": json.dumps(CONFIG).encode()},
        "gpt": {"config.json": b'{"architectures": ["GPT2LMHeadModel"]}', "model.safetensors": weights},
        "damaged": {"config.json": b"{"},
        "adapter": {"adapter_config.json": b"{}"},
    }.items():
        (folder / name).mkdir()
        for file_name, content in contents.items():
            (folder / name / file_name).write_bytes(content)
    (folder / "there.gguf").write_bytes(b"x")
    return folder


# situation, command line, exit code, what follows "lcpu: error: " (... stands for anything, {folder} for its path)
ERRORS: list[tuple[str, str, int, str]] = [
    ("no such subcommand", "walk", 2,
     "No such command 'walk'"),
    ("no such option", "run --nonsense", 2,
     "No such option: --nonsense..."),
    ("an option without its value", "run -p", 2,
     "Option '-p' requires an argument"),
    ("not a number", "run -p x -n many", 2,
     "Invalid value for '-n' / '--predict' / '--n-predict' (env var: 'LCPU_N_PREDICT'): ..."),
    ("out of range", "run -p x --top-p 2", 2,
     "Invalid value for '--top-p' (env var: 'LCPU_TOP_P'): ..."),
    ("a negative temperature", "run -p x --temp -1", 2,
     "Invalid value for '--temp' (env var: 'LCPU_TEMP'): ..."),
    ("two prompts", "run -p a -f short.txt", 2,
     "-p and -f are both prompts: give one of them"),
    ("a system prompt without a conversation", "run -p a -sys b", 2,
     "-sys is the system prompt of a conversation: add --chat"),
    ("no prompt", "run -m model.gguf", 2,
     "no prompt: give -p TEXT, -f FILE or a pipe on stdin, or converse with --chat"),
    ("a draft model that nothing uses", "run -p a -md model.gguf --spec none", 2,
     "-md names a draft model, but --spec none has no use for it: leave out one of them"),
    ("no such kind of speculation", "run -p a --spec fast", 2,
     "Invalid value for '--spec' (env var: 'LCPU_SPEC'): ..."),
    ("a prompt cache without a file", "run -p a --prompt-cache-ro", 2,
     "--prompt-cache-ro needs a file: add --prompt-cache FILE"),
    ("a prompt cache that is read and written", "run -p a --prompt-cache x --prompt-cache-ro --prompt-cache-all", 2,
     "--prompt-cache-ro writes nothing, not even what --prompt-cache-all asks for: leave out one of them"),
    ("a prompt cache in no folder", "run -p a --prompt-cache none/x", 1,
     "none/x: its folder {folder}/none is not there: make it first or name another file"),
    ("another file as prompt cache", "run -p a -m model.gguf --prompt-cache short.txt", 1,
     "short.txt: is not a prompt cache: delete it or name another file"),
    ("a folder as prompt cache", "run -p a -m model.gguf --prompt-cache folder", 1,
     "folder: is not a regular file: name another file"),
    ("no such model", "run -p a -m none.gguf", 1,
     "none.gguf: no such file: check the path"),
    ("no such model, but maybe on the hub", "run -p a -m acme/tiny", 1,
     "acme/tiny: no such file: check the path; a model on the hub is named with -hf acme/tiny"),
    ("no such model, and its type", "run -p a -m acme/tiny:Q4_0", 1,
     "acme/tiny:Q4_0: no such file: check the path; a model on the hub is named with -hf acme/tiny:Q4_0"),
    ("no such model in a folder", "run -p a -m folder/none.gguf", 1,
     "folder/none.gguf: no such file: check the path"),
    ("a model named twice", "run -p a -m model.gguf -hf acme/tiny", 2,
     "-m and -hf both name a model: leave out one of them"),
    ("a draft model named twice", "run -p a -md model.gguf -hfd acme/tiny", 2,
     "-md and -hfd both name a model: leave out one of them"),
    ("a file of no repository", "run -p a --hf-file model.gguf", 2,
     "--hf-file is about a repository on the hub: name it with -hf OWNER/NAME, or leave it out"),
    ("a revision of no repository", "run -p a --revision main", 2,
     "--revision is about a repository on the hub: name it with -hf OWNER/NAME, or leave it out"),
    ("a checkpoint of no repository", "run -p a --convert", 2,
     "--convert is about a repository on the hub: name it with -hf OWNER/NAME, or leave it out"),
    ("a file to convert", "run -p a -hf acme/tiny --convert -hff model.gguf", 2,
     "--hf-file names a GGUF file, and --convert takes a checkpoint: leave out one of them"),
    ("no name of a repository", "run -p a -hf tiny", 1,
     "tiny: is not the name of a model on the hub, which is OWNER/NAME or OWNER/NAME:TYPE"),
    ("no such type to convert to", "run -p a -m config --type q9", 2,
     "no type 'q9': --type is auto, f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, "
     "q4_0, iq4_nl, iq4_xs, q3_k_l, q3_k_m, q3_k_s, q2_k, q2_k_s, iq3_m, iq3_s, iq3_xs, iq3_xxs, iq2_m, iq2_s, "
     "iq2_xs, iq2_xxs, iq1_m, iq1_s, mxfp4, mxfp4_moe, nvfp4, q2_0, q1_0, tq2_0, tq1_0, i2_s"),
    ("a type for a GGUF file", "run -p a -m model.gguf --type q4_0", 1,
     "model.gguf: is a GGUF file, whose types are settled, and type 'q4_0' is for checkpoints: leave it out, or make "
     "another file with `lcpu quantize`"),
    ("a checkpoint without weights", "run -p a -m config", 1,
     "config: has no weights: neither model.safetensors nor pytorch_model.bin, nor an index of parts; "
     "download the rest of it"),
    ("no such model of Ollama", "run -p a -m ollama:none", 1,
     "ollama:none: no such model: `lcpu models` lists what there is"),
    ("no such model of llama.cpp", "run -p a -md llama.cpp:none.gguf", 1,
     "llama.cpp:none.gguf: no such model: `lcpu models` lists what there is"),
    ("too long a name", f"run -p a -m {'a' * 300}", 1,
     f"{'a' * 300}: cannot be read: File name too long; check its path and permissions"),
    ("a folder as model", "run -p a -m folder", 1,
     "folder: is a folder: name the GGUF file in it"),
    ("an empty file", "run -p a -m empty.gguf", 1,
     "empty.gguf: is empty: download or copy it again"),
    ("a web page", "run -p a -m page.gguf", 1,
     "page.gguf: is not a GGUF file but a web page, not a model: download the model itself"),
    ("an old GGML file", "run -p a -m old.gguf", 1,
     "old.gguf: is not a GGUF file but an old GGML file (ggjt), from before GGUF: get the model as GGUF"),
    ("GGUF version 1", "run -p a -m first.gguf", 1,
     "first.gguf: is GGUF version 1, which is too old: get the model as version 3"),
    ("a big-endian file", "run -p a -m big.gguf", 1,
     "big.gguf: is a big-endian GGUF file: convert it to little-endian"),
    ("a PyTorch checkpoint", "run -p a -m pickle.bin", 1,
     "pickle.bin: is not a GGUF file but a zip archive, perhaps a PyTorch checkpoint: convert its folder "
     "with `lcpu convert`"),
    ("a Git LFS pointer", "run -p a -m lfs.gguf", 1,
     "lfs.gguf: is not a GGUF file but a Git LFS pointer, not the file itself: run `git lfs pull`"),
    ("a safetensors file", "run -p a -m weights.safetensors", 1,
     "weights.safetensors: is not a GGUF file but looks like safetensors: convert it with `lcpu convert`"),
    ("a text", "run -p a -m short.txt", 1,
     "short.txt: is not a GGUF file: it starts with b'once', not b'GGUF'; check the path"),
    ("a download that was cut", "run -p a -m cut.gguf", 1,
     "cut.gguf: tensor 'output.weight' ends at byte 155712 but the file has 154712: truncated or damaged; "
     "download the file again"),
    ("a download that was cut soon", "run -p a -m head.gguf", 1,
     "head.gguf: the tensor count is 21, more than the file can hold: truncated or damaged; download the "
     "file again"),
    ("a device", "run -p a -m /dev/null", 1,
     "/dev/null: is not a regular file: save the model to a file first"),
    ("experts", "run -p a -m experts.gguf", 1,
     "experts.gguf: key 'qwen3.expert_count' is 8: mixture-of-experts models of this architecture are not "
     "supported; take a dense model"),
    ("an architecture that lcpu does not have", "run -p a -m mamba.gguf", 1,
     "mamba.gguf: architecture 'mamba' is not supported; lcpu runs BitNet (bitnet, bitnet-25, bitnet-b1.58); ...; "
     "Gemma (gemma, gemma2, gemma3, gemma4); ...; Llama and Mistral (llama...); ...; Qwen (qwen2, ...)..."),
    ("heads that do not divide", "run -p a -m heads.gguf", 1,
     "heads.gguf: key 'llama.attention.head_count_kv' is 2, which does not divide the 3 heads: damaged; "
     "download the file again"),
    ("a wrong number", "run -p a -m huge.gguf", 1,
     "huge.gguf: key 'llama.context_length' is 1099511627776, not 1 to 134217728: damaged; download the "
     "file again"),
    ("a key that is missing", "run -p a -m unnamed.gguf", 1,
     "unnamed.gguf: key 'llama.context_length' is missing: the file is not a model that lcpu can run, or "
     "damaged; download the file again"),
    ("a tokenizer that lcpu does not have", "run -p a -m bert.gguf", 1,
     "tokenizer.ggml.model = 'bert' is not supported; use a model that has \"llama\", \"gpt2\" or \"gemma4\""),
    ("no vocabulary", "run -p a -m words.gguf", 1,
     "the model has no tokenizer.ggml.tokens: the file is damaged or badly converted; convert or download "
     "the model again"),
    ("no such prompt file", "run -f none.txt", 1,
     "cannot read the file none.txt: No such file or directory; check the path after -f"),
    ("a folder as prompt", "run -f folder", 1,
     "cannot read the file folder: Is a directory; check the path after -f"),
    ("a prompt that is not text", "run -f binary.txt", 1,
     "the prompt in binary.txt is not UTF-8 text (byte 0xff at offset 3); convert it first"),
    ("a prompt longer than the context", "run -m model.gguf -f short.txt -c 4", 1,
     "the prompt has 18 tokens and the context only 4: shorten it, or set a larger context (-c)"),
    ("a context too large", "run -m model.gguf -p a -c 99999999", 1,
     "a context of 99999999 tokens: choose 1 to 16777216 (-c)"),
    ("too many threads", "run -m model.gguf -p a -t 1000", 1,
     "1000 threads: choose 1 to 512 (-t)"),
    ("no such output type", "run -m model.gguf -p a --output-type q9", 1,
     "output type 'q9' is unknown: choose one of keep, f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, "
     "q4_k, q5_k, q6_k, tq1_0, tq2_0, iq4_nl, iq4_xs, mxfp4, nvfp4, q1_0, q2_0, iq3_s, iq3_xxs, iq2_s, iq2_xs, "
     "iq2_xxs, iq1_m, iq1_s"),
    ("a model that is not for chat", "run -m model.gguf --chat -p a", 1,
     "this model is not made for chat (no chat template); take another with -m, or leave out --chat"),
    ("a draft model of another vocabulary", "run -m model.gguf -p a -md other.gguf", 1,
     "the draft model has another vocabulary: token 285 is 'Z' there and 'z' in the model; take a draft "
     "model of the same family"),
    ("an empty stop", "run -m model.gguf -p a -r \"\"", 1,
     "a stop string is empty: it would end every text at once; leave it out"),
    ("no memory", "run -m model.gguf -p a", 1,
     "model.gguf: needs 66 MiB of memory (weights 0.2 MiB, context of 128 tokens 0.2 MiB, buffers 66 "
     "MiB), but only 1 MiB are available (limit of the container or cgroup): take a smaller model or "
     "type; --no-memory-check loads it anyway"),
    ("no such type of the cache", "run -m model.gguf -p a -ctk q4_0", 2,
     "Invalid value for '-ctk' / '--cache-type-k' (env var: 'LCPU_CACHE_TYPE_K'): ..."),
    ("a type of the cache that heads do not fit", "run -m model.gguf -p a -ctv q8_0", 1,
     "cache type q8_0 needs heads of a multiple of 16 values, and this model's have 8: choose f16"),
    ("batch: no such file", "batch -m model.gguf -f none.jsonl", 1,
     "cannot read none.jsonl: No such file or directory; check the path after -f"),
    ("batch: the output is there", "batch -m model.gguf -f requests.jsonl -o short.txt", 1,
     "short.txt: is there already; --resume continues it, --force overwrites it"),
    ("batch: the output is the input", "batch -m model.gguf -f requests.jsonl -o requests.jsonl --force", 2,
     "requests.jsonl is the input and the output: name another file with -o"),
    ("batch: no such folder", "batch -m model.gguf -f requests.jsonl -o none/out", 1,
     "cannot write none/out: No such file or directory; check the path after -o"),
    ("batch: nothing to continue", "batch -m model.gguf -f requests.jsonl --resume", 2,
     "--resume continues a file: name it with -o"),
    ("batch: continued and overwritten", "batch -m model.gguf -f requests.jsonl -o out --resume --force", 2,
     "--resume continues the output and --force overwrites it: give one of them"),
    ("batch: a file that has no answers", "batch -m model.gguf -f requests.jsonl -o short.txt --resume", 1,
     "short.txt: line 1 is no answer of lcpu batch: name the file to continue with -o, or overwrite this one with "
     "--force instead of --resume"),
    ("batch: no texts at once", "batch -m model.gguf -f requests.jsonl -np 0", 2,
     "Invalid value for '-np' / '--parallel' (env var: 'LCPU_PARALLEL'): ..."),
    ("batch: out of range", "batch -m model.gguf -f requests.jsonl --top-p 2", 2,
     "Invalid value for '--top-p' (env var: 'LCPU_TOP_P'): ..."),
    ("batch: a draft model of another vocabulary", "batch -m model.gguf -f requests.jsonl -md other.gguf", 1,
     "the draft model has another vocabulary: token 285 is 'Z' there and 'z' in the model; take a draft "
     "model of the same family"),
    ("batch: a draft model that nothing uses", "batch -m model.gguf -f requests.jsonl -md model.gguf --spec ngram", 2,
     "-md names a draft model, but --spec ngram has no use for it: leave out one of them"),
    ("batch: a prompt cache of something else", "batch -m model.gguf -f requests.jsonl --prompt-cache short.txt", 1,
     "short.txt: is not a prompt cache: delete it or name another file"),
    ("batch: a prompt cache in no folder", "batch -m model.gguf -f requests.jsonl --prompt-cache none/x", 1,
     "none/x: its folder {folder}/none is not there: make it first or name another file"),
    ("batch: a prompt cache without a name", "batch -m model.gguf -f requests.jsonl --prompt-cache-ro", 2,
     "--prompt-cache-ro needs a file: add --prompt-cache FILE"),
    ("bench: no such model", "bench -m none.gguf", 1,
     "none.gguf: no such file: check the path"),
    ("bench: no such shape", "bench --shape llama9", 2,
     "no shape is named 'llama9': choose one of smollm2-135m, tinyllama-1.1b, llama3.2-1b, llama3.2-3b, "
     "llama2-7b, llama3-8b, ...llama3-70b, ..."),
    ("bench: no such type", "bench --shape llama3-8b --type q9", 2,
     "no type is named 'q9': choose one of f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, "
     "q4_k, q5_k, q6_k, i2_s, tq1_0, tq2_0, iq4_nl, iq4_xs, mxfp4, nvfp4, q1_0, q2_0, iq3_s, iq3_xxs, iq2_s, iq2_xs, "
     "iq2_xxs, iq1_m, iq1_s"),
    ("bench: a type without a shape", "bench --type q4_0", 2,
     "--type is the type of random weights: name their shape with --shape"),
    ("bench: nothing to measure", "bench -p 0 -n 0", 2,
     "nothing to measure: -p, -n, -pg and -tgb are all 0 or left out; give one of them a number"),
    ("bench: not a list", "bench -p '1;2'", 2,
     "Invalid value for '-p': '1;2' is not a number, a list such as 1,2,4, or a range such as 1-4, 8-64+8 "
     "or 128-1024*2"),
    ("bench: a range that goes down", "bench -p 9-1", 2,
     "Invalid value for '-p': '9-1' goes down: name the smaller number first"),
    ("bench: out of range", "bench -ub 9999", 2,
     "Invalid value for '-ub': 9999 is not 1 to 512"),
    ("bench: a range without end", "bench -p 1-9*1", 2,
     "Invalid value for '-p': '1-9*1' has no end, or too many values: take a larger step or factor"),
    ("bench: not a pair", "bench -pg 5", 2,
     "Invalid value for '-pg': '5' is not PROMPT,GENERATED, such as 512,128"),
    ("bench: not a share", "bench --spec --acceptance 2", 2,
     "Invalid value for '--acceptance': '2' is not a share, 0 to 1, such as 0.8"),
    ("bench: drafts without --spec", "bench --acceptance 0.5", 2,
     "--acceptance, --draft-n and -md belong to --spec: add it, or leave them out"),
    ("bench: prompts with --spec", "bench --spec -p 5", 2,
     "--spec measures generation with drafts and nothing else: leave out -p, -pg, -tgb and -d"),
    ("bench: many sequences and other tests", "bench -np 2 -tgb 4", 2,
     "-np measures many sequences at once and nothing else: leave out --spec, -pg, -tgb and -d"),
    ("bench: a prompt that nobody shares", "bench -pps", 2,
     "-pps shares the prompt of many sequences: say how many with -np, or leave it out"),
    ("bench: no such type of the cache", "bench -ctv q4_0", 2,
     "Invalid value for '-ctv': 'q4_0' is not f16 or q8_0"),
    ("bench: too many threads", "bench -t 1000", 2,
     "1000 threads: choose 1 to 512 (-t)"),
    ("bench: no such format", "bench -o xml", 2,
     "Invalid value for '-o' / '--output': ..."),
    ("bench: a plot in no folder", "bench --plot none/speeds.svg", 2,
     "Invalid value for '--plot': the folder {folder}/none does not exist"),
    ("bench: a shape larger than memory", "bench --shape llama3-70b --type f32", 1,
     "random-llama3-70b-f32: needs 262.8 GiB of memory for its weights alone, but only 8.0 GiB are "
     "available: take a smaller shape or type; --no-memory-check loads it anyway"),
    ("perplexity: no text", "perplexity -m model.gguf", 2,
     "no text: give -f FILE or a pipe on stdin"),
    ("perplexity: no windows", "perplexity -m model.gguf -f short.txt --chunks 0", 2,
     "--chunks 0 scores nothing: give a number of windows, or -1 for all"),
    ("perplexity: too short a text", "perplexity -m model.gguf -f short.txt", 1,
     "the text has 18 tokens, but at least 1024 are needed, two windows of 512: give a longer text, or a "
     "smaller window: -c 9"),
    ("perplexity: a little too short", "perplexity -m model.gguf -f short.txt -c 16", 1,
     "the text has 18 tokens, but at least 32 are needed, two windows of 16: give a longer text, or a "
     "smaller window: -c 9"),
    ("perplexity: too small windows", "perplexity -m model.gguf -f short.txt -c 4", 2,
     "Invalid value for '-c' / '--ctx-size': ..."),
    ("perplexity: no such text", "perplexity -m model.gguf -f none.txt", 1,
     "cannot read the file none.txt: No such file or directory; check the path after -f"),
    ("perplexity: other vocabularies", "perplexity -m model.gguf --kl other.gguf -f short.txt", 1,
     "model.gguf and other.gguf have different vocabularies (token 285 is 'z' against 'Z'): --kl compares "
     "files of one model"),
    ("perplexity: no such base", "perplexity -m model.gguf --kl none.gguf -f short.txt", 1,
     "none.gguf: no such file: check the path"),
    ("imatrix: no such text", "imatrix -m model.gguf -f none.txt", 1,
     "cannot read the file none.txt: No such file or directory; check the path after -f"),
    ("imatrix: too short a text", "imatrix -m model.gguf -f short.txt", 1,
     "the text has 18 tokens, but at least 1024 are needed, two windows of 512: give a longer text, or a "
     "smaller window: -c 9"),
    ("imatrix: no chunks", "imatrix -m model.gguf -f short.txt --chunks 0", 2,
     "--chunks 0 measures nothing: give a number of chunks, or -1 for all"),
    ("imatrix: the file is there", "imatrix -m model.gguf -o other.gguf", 1,
     "other.gguf: is there already; --force overwrites it"),
    ("inspect: no such file", "inspect none.gguf", 1,
     "none.gguf: no such file: check the path"),
    ("inspect: not a model", "inspect short.txt", 1,
     "short.txt: is not a GGUF file: it starts with b'once', not b'GGUF'; check the path"),
    ("quantize: an argument is missing", "quantize model.gguf", 2,
     "Missing argument 'OUT'"),
    ("quantize: no such type", "quantize model.gguf out.gguf q9", 2,
     "no type 'q9': TYPE is f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, "
     "iq4_nl, iq4_xs, q3_k_l, q3_k_m, q3_k_s, q2_k, q2_k_s, iq3_m, iq3_s, iq3_xs, iq3_xxs, iq2_m, iq2_s, iq2_xs, "
     "iq2_xxs, iq1_m, iq1_s, mxfp4, mxfp4_moe, nvfp4, q2_0, q1_0, tq2_0, tq1_0, i2_s, copy"),
    ("quantize: no importance matrix there", "quantize model.gguf out.gguf q4_0 --imatrix none.gguf", 1,
     "none.gguf: cannot be read: No such file or directory; check its path and permissions"),
    ("quantize: a model as importance matrix", "quantize model.gguf out.gguf q4_0 --imatrix model.gguf", 1,
     "model.gguf: is not an importance matrix but another GGUF file"),
    ("quantize: the output is there", "quantize model.gguf there.gguf q8_0", 1,
     "there.gguf: is there already; --force overwrites it"),
    ("quantize: the output is a folder", "quantize model.gguf folder q8_0", 1,
     "folder: is not a file: name the file to write"),
    ("quantize: no such folder", "quantize model.gguf none/out.gguf q8_0", 1,
     "{folder}/none: no such folder: make it first, or write elsewhere"),
    ("quantize: no such input", "quantize none.gguf out.gguf q8_0", 1,
     "none.gguf: no such file: check the path"),
    ("quantize: not ternary", "quantize model.gguf out.gguf i2_s", 1,
     "tensor 'blk.0.attn_q.weight' has rows of 32 values, and I2_S needs a multiple of 128: give it "
     "another type with --tensor-type 'blk\\.0\\.attn_q\\.weight=f16'"),
    ("quantize: a way to round that is none", "quantize model.gguf out.gguf i2_s --ternarize max", 2,
     "--ternarize max: it can be absmean"),
    ("quantize: not REGEX=TYPE", "quantize model.gguf out.gguf q8_0 --tensor-type ffn", 2,
     "--tensor-type 'ffn': it is REGEX=TYPE, such as 'ffn_down=q6_k'"),
    ("quantize: not a regex", "quantize model.gguf out.gguf q8_0 --tensor-type '(=q8_0'", 2,
     "--tensor-type '(=q8_0': not a regular expression (...); write one such as 'ffn_down=q6_k'"),
    ("quantize: no such type for a tensor", "quantize model.gguf out.gguf q8_0 --output-type q9", 2,
     "no type 'q9' for a tensor: there are f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, q4_k, q4_1, q4_0, iq4_nl, "
     "iq4_xs, q3_k, q2_k, iq3_s, iq3_xxs, iq2_s, iq2_xs, iq2_xxs, iq1_m, iq1_s, mxfp4, nvfp4, q2_0, q1_0, tq2_0, "
     "tq1_0, i2_s, keep"),
    ("models: nothing to delete", "models rm", 2,
     "nothing to delete: name models after rm"),
    ("models: names to list", "models list acme/tiny", 2,
     "list takes no names; to delete acme/tiny, use rm"),
    ("models: no such action", "models remove acme/tiny", 2,
     "Invalid value for 'list|rm': ..."),
    ("models: no such model", "models rm acme/no-such-model", 1,
     "acme/no-such-model: no such model in the cache: `lcpu models` lists what there is"),
    ("models: no such model of Ollama", "models rm ollama:none", 1,
     "ollama:none: no such model: `lcpu models` lists what there is"),
    ("convert: nothing to convert", "convert", 2,
     "Missing argument 'MODEL'"),
    ("convert: no such folder", "convert no/such/folder", 1,
     "no/such/folder: no such folder, nor a model's name on the hub, which is OWNER/NAME"),
    ("convert: a file", "convert model.gguf", 1,
     "model.gguf: is a file: name the folder of the checkpoint, or a model on the hub as OWNER/NAME"),
    ("convert: not a checkpoint", "convert folder", 1,
     "folder/config.json: no such file: this is not a Hugging Face model, or not all of it"),
    ("convert: without config.json", "convert bare", 1,
     "bare/config.json: no such file: this is not a Hugging Face model, or not all of it"),
    ("convert: without weights", "convert config", 1,
     "config: has no weights: neither model.safetensors nor pytorch_model.bin, nor an index of parts; "
     "download the rest of it"),
    ("convert: an architecture that lcpu does not have", "convert gpt", 1,
     "gpt/config.json: has the architecture 'GPT2LMHeadModel'; lcpu converts LlamaForCausalLM, "
     "LLaMAForCausalLM, MistralForCausalLM, MixtralForCausalLM, ..., Gemma3ForCausalLM, ..., BitNetForCausalLM"),
    ("convert: a config.json that is damaged", "convert damaged", 1,
     "damaged/config.json: is not JSON (...): download it again"),
    ("convert: an adapter", "convert adapter", 1,
     "adapter: is a LoRA adapter, not a model: merge it into its model first"),
    ("convert: no such type", "convert config --type q9", 2,
     "no type 'q9': --type is auto, f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, "
     "q4_0, iq4_nl, iq4_xs, q3_k_l, q3_k_m, q3_k_s, q2_k, q2_k_s, iq3_m, iq3_s, iq3_xs, iq3_xxs, iq2_m, iq2_s, "
     "iq2_xs, iq2_xxs, iq1_m, iq1_s, mxfp4, mxfp4_moe, nvfp4, q2_0, q1_0, tq2_0, tq1_0, i2_s"),
    ("convert: a revision of a folder", "convert config --revision main", 2,
     "--revision is for models on the hub, and config is a folder: leave it out"),
]


@pytest.mark.parametrize(("situation", "line", "code", "text"), ERRORS, ids=[row[0] for row in ERRORS])
def test_user_errors(situation: str, line: str, code: int, text: str, folder: Path,
                     monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    if situation == "no memory":
        monkeypatch.setattr(memory, "room", lambda: memory.Room(1 << 20, grouped=True))
    monkeypatch.setattr(random_model, "room", lambda: memory.Room(8 << 30))
    assert exit_code(shlex.split(line)) == code
    out, err = capfd.readouterr()
    assert out == ""
    command = line.split()[0] if line.split()[0] in SUBCOMMANDS else ""
    help = f"; see '{' '.join(['lcpu', command]).strip()} --help'" if code == 2 else ""
    expected = re.escape(f"lcpu: error: {text}{help}".replace("{folder}", str(folder))).replace(r"\.\.\.", ".*")
    assert re.fullmatch(expected, err.removesuffix("\n")), err
    assert err.count("\n") == 1
    assert not (folder / "out.gguf").exists()


def test_every_subcommand_has_its_errors_here() -> None:
    assert {line.split()[0] for _, line, _, _ in ERRORS} >= set(SUBCOMMANDS)
