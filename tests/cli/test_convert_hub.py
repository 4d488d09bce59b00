"""`lcpu convert` from a hub: the real client, against a server on this machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from lcpu.engine.gguf_file import GGUFFile

from ..convert import hub_server
from ..convert.checkpoints import write_checkpoint

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path):
    folder = write_checkpoint(tmp_path / "source", generation={"eos_token_id": 301})
    (folder / "README.md").write_text("not needed")
    (folder / "pytorch_model.bin").write_bytes(b"not needed either")
    return folder


@pytest.fixture
def convert(lcpu, tmp_path) -> Run:
    """convert(hub, *arguments, **environment) -> `lcpu convert acme/tiny ...` against a hub, with a new cache."""

    def run(hub: hub_server.Hub | None, *arguments: str, model: str = "acme/tiny",
            **environment: str) -> subprocess.CompletedProcess[str]:
        return lcpu("convert", model, *arguments, **(hub_server.environment(hub, tmp_path / "hf") | environment))

    return run


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a failed run."""
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("lcpu: error: ")]
    assert len(lines) == 1
    assert done.stderr.splitlines()[-1] == lines[0]
    return lines[0]


def test_only_what_is_needed_is_downloaded_once(convert, folder, tmp_path):
    with hub_server.serve(folder) as hub:
        done = convert(hub)
        assert done.returncode == 0, done.stderr
        assert (done.stdout, done.stderr) == ("", "wrote tiny-F32.gguf: 21 tensors, F32, 433.25 KiB\n")
        names = {path.rsplit("/", 1)[-1] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path}
        assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                         "tokenizer_config.json"}
        hub.requests.clear()
        assert convert(hub, "--force").returncode == 0
        assert not [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    with GGUFFile.open(tmp_path / "tiny-F32.gguf") as file:
        assert file.metadata["general.name"] == "tiny"
        assert file.metadata["general.organization"] == "acme"
    done = convert(None, "-o", "offline.gguf", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "offline.gguf").read_bytes() == (tmp_path / "tiny-F32.gguf").read_bytes()
    done = convert(None, "-o", "unreachable.gguf")
    assert done.returncode == 0, done.stderr


def test_a_lost_connection_is_taken_up_where_it_broke(convert, folder, tmp_path):
    """The client counts what it has in pieces of some megabytes, which are made smaller here."""
    (tmp_path / "sitecustomize.py").write_text("from huggingface_hub import constants\n"
                                               "constants.DOWNLOAD_CHUNK_SIZE = 1 << 14\n")
    with hub_server.serve(folder, drops={"model.safetensors": [100_000, 50_000]}) as hub:
        done = convert(hub, PYTHONPATH=str(tmp_path))
        assert done.returncode == 0, done.stderr
        first, second, third = hub.gets("model.safetensors")
        assert first is None
        assert second == f"bytes={6 << 14}-"
        assert third == f"bytes={9 << 14}-"
    (cached,) = (tmp_path / "hf").rglob("model.safetensors")
    assert cached.read_bytes() == (folder / "model.safetensors").read_bytes()
    GGUFFile.open(tmp_path / "tiny-F32.gguf").close()


def test_a_download_that_fails_is_one_line_and_goes_on_next_time(convert, folder, tmp_path):
    shards = {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (folder / names[0]).write_bytes(data)
    empty = b"{}      "
    (folder / names[1]).write_bytes(len(empty).to_bytes(8, "little") + empty)
    index = {"weight_map": shards | {"none": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with hub_server.serve(folder) as hub:
        second = hub.files.pop(names[1])
        hub.files[names[1]] = second[:-1]
        drops = hub.drops[names[1]] = [4, 0, 0, 0, 0, 0, 0, 0]
        assert "acme/tiny: the download failed (" in error(convert(hub))
        assert not (tmp_path / "tiny-F32.gguf").exists()
        drops.clear()
        hub.files[names[1]] = second
        hub.requests.clear()
        done = convert(hub)
        assert done.returncode == 0, done.stderr
        assert hub.gets(names[0]) == []
        assert hub.gets(names[1])


def test_a_dry_run_downloads_no_weights(convert, folder, tmp_path):
    with hub_server.serve(folder) as hub:
        done = convert(hub, "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[-1] == "tiny-F32.gguf: 21 tensors, 433.25 KiB, F32"
        assert all(wanted is not None for wanted in hub.gets("model.safetensors"))
    assert not list((tmp_path / "hf").rglob("model.safetensors"))
    assert not (tmp_path / "tiny-F32.gguf").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"architectures": ["GPT9"]}, "has the architecture 'GPT9'; lcpu converts"),
        ("config.json", {"quantization_config": {"quant_method": "exl2"}}, "the weights are quantized by 'exl2'"),
        ("config.json", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("quant_config.json", {"version": "GEMV"}, "has the layout 'gemv'; of AWQ, lcpu reads 'gemm'"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "the normalizer {'type': 'Lowercase'} changes texts"),
    ],
)
def test_what_cannot_be_converted_is_said_before_weights_are_downloaded(convert, folder, name, content, message):
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | content))
    with hub_server.serve(folder) as hub:
        assert message in error(convert(hub))
        assert hub.gets("model.safetensors") == []


def test_a_revision(convert, folder):
    with hub_server.serve(folder) as hub:
        assert convert(hub, "--revision", hub_server.COMMIT).returncode == 0
        assert "acme/tiny: has no revision 'v9': check --revision" in error(convert(hub, "--revision", "v9"))


def test_a_gated_model(convert, folder):
    with hub_server.serve(folder, is_gated=True) as hub:
        message = "acme/tiny: is gated: accept its terms on its page first; then set HF_TOKEN"
        assert message in error(convert(hub))
        message = "acme/tiny: is gated: accept its terms on its page first; the token in HF_TOKEN has no access to it"
        assert message in error(convert(hub, HF_TOKEN="hf_wrong"))
        assert convert(hub, HF_TOKEN=hub_server.TOKEN).returncode == 0


def test_a_model_that_is_not_there(convert, folder):
    with hub_server.serve(folder) as hub:
        message = "acme/none: no such model on the hub: check the name; a private one needs HF_TOKEN"
        assert message in error(convert(hub, model="acme/none"))
        assert "acme/-.-: is not a model's name, nor a folder: " in error(convert(hub, model="acme/-.-"))


def test_a_model_without_weights(convert, folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").unlink()
    with hub_server.serve(folder) as hub:
        assert "acme/tiny: has no weights: neither model.safetensors nor" in error(convert(hub))


@pytest.mark.parametrize(("environment", "cause"), [({"HF_HUB_OFFLINE": "1"}, "offline"), ({}, "")])
def test_out_of_reach_and_not_in_the_cache(convert, environment, cause):
    message = error(convert(None, **environment))
    assert "acme/tiny: is not in the cache, and the hub is out of reach (" in message
    assert cause in message
