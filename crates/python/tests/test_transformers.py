"""The same folder in transformers: texts, states and scores. Skipped where torch or transformers are missing."""

import json
import shutil

import numpy as np
import pytest
from conftest import REPOSITORY

import offramp

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
PROMPTS = ["Once upon a time", "Tom saw a big dog.", "Lily had a red ball and"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model that comes with offramp, as a plain Llama."""
    folder = tmp_path_factory.mktemp("model") / "tinystories-24"
    shutil.copytree(REPOSITORY / "models/tinystories-24", folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("auto_map")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def ours(folder):
    return offramp.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_tokenizers_agree(folder, ours):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for prompt in [*PROMPTS, "  two  spaces\n", "naïve café 🙂", "<|endoftext|>Once"]:
        ids = tokenizer(prompt)["input_ids"]
        assert ours.tokenizer(prompt)["input_ids"] == ids
        for skip in (False, True):
            assert ours.tokenizer.decode(ids, skip_special_tokens=skip) == tokenizer.decode(
                ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )


@pytest.mark.parametrize("early_exit", [None, 6, 12])
def test_greedy_text_is_transformers(folder, ours, theirs, early_exit):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    how = {"assistant_early_exit": early_exit} if early_exit else {}
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        keywords = {"max_new_tokens": 40, "do_sample": False}
        expected = theirs.generate(**inputs, **keywords, **how)
        found = ours.generate(**inputs, **keywords, **how)
        assert torch.is_tensor(found) and found.tolist() == expected.tolist()


def test_states_and_logits_are_transformers(ours, theirs):
    ids = ours.tokenizer.encode(PROMPTS[0])
    with torch.no_grad():
        out = theirs(torch.tensor([ids]), output_hidden_states=True)
        for found, expected in zip(ours.hidden_states(ids), out.hidden_states, strict=True):
            largest = expected.abs().max().item()
            assert np.abs(found - expected[0].numpy()).max() < 1e-5 * max(largest, 1)
        exits = [theirs.lm_head(theirs.model.norm(out.hidden_states[e]))[0].numpy() for e in (6, 12)]
    logits = ours.logits(ids, exits=[6, 12, 24])
    for found, expected in zip(logits, [*exits, out.logits[0].numpy()]):
        assert np.abs(found - expected).max() < 2e-4
    tensor = torch.from_dlpack(logits)
    assert tensor.shape == logits.shape and tensor.data_ptr() == logits.ctypes.data


def test_a_streamer_of_transformers_prints(folder, ours, capsys):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    streamer = transformers.TextStreamer(tokenizer, skip_prompt=True)
    found = ours.generate(PROMPTS[0], max_new_tokens=20, do_sample=False, streamer=streamer)
    assert capsys.readouterr().out.strip() == found.text.strip()
