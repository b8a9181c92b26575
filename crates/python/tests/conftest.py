"""What the tests share: the model that comes with offramp, and the fixtures that PyTorch has made."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

# No test asks a hub, unless it says so.
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest

import offramp

REPOSITORY = Path(__file__).resolve().parents[3]
FIXTURES = REPOSITORY / "tests/fixtures"


@pytest.fixture(scope="session")
def model() -> offramp.CausalLM:
    """The model that comes with offramp, in f32: transformers' arithmetic."""
    return offramp.AutoModelForCausalLM.from_pretrained(dtype="f32", max_texts=16)


@pytest.fixture(scope="session")
def command() -> Path:
    """The command, of the same sources and the same profile as the wheel."""
    found = os.environ.get("OFFRAMP")
    if not found:
        pytest.skip("OFFRAMP does not name the command")
    return Path(found)


@pytest.fixture
def fixture_folder(tmp_path: Path):
    """Makes a model folder of a fixture, which gets a tokenizer of words: `t0 t1 t2`."""

    def make(name: str) -> Path:
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(FIXTURES / name, folder)
        size = json.loads((folder / "config.json").read_text())["vocab_size"]
        (folder / "tokenizer.json").write_text(json.dumps(words(size)))
        return folder

    return make


def words(size: int) -> dict:
    """A tokenizer of whole words, as the tokenizers library writes it."""
    vocabulary = {f"t{index}": index for index in range(size)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"},
    }


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    kinds = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32, "U32": np.uint32}
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            values = np.frombuffer(data[8 + length + start : 8 + length + end], kinds[entry["dtype"]])
            found[name] = values.reshape(entry["shape"])
    return found
