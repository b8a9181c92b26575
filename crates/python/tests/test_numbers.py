"""Arrays: PyTorch's values at every exit, and their life outside."""

import gc
import json

import numpy as np
import pytest
from conftest import FIXTURES, tensors

import offramp

MODELS = ["gqa-untied", "tied-headdim", "rope-llama3", "families/qwen3", "families/smollm3", "families/mistral-window"]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("name", MODELS)
def test_logits_at_every_exit_are_pytorchs(fixture_folder, name):
    model = offramp.AutoModelForCausalLM.from_pretrained(fixture_folder(name))
    expected = tensors(FIXTURES / name / "expected.safetensors")
    layers = model.num_hidden_layers
    for row, ids in enumerate(expected["input_ids"]):
        found = model.logits(ids, exits=range(1, layers + 1))
        for exit_layer in range(1, layers + 1):
            golden = expected[f"logits.exit_layer_{exit_layer}"][row]
            assert np.abs(found[exit_layer - 1] - golden).max() < 1e-5, (name, exit_layer)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("families/")])
def test_greedy_text_is_transformers(fixture_folder, name):
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    model = offramp.AutoModelForCausalLM.from_pretrained(fixture_folder(name))
    prompt, text = expected["prompt"], expected["greedy"]
    for how in ({}, {"assistant_early_exit": 1}):
        found = model.generate([prompt], max_new_tokens=len(text), do_sample=False, ignore_eos=True, **how)
        assert list(found[0][len(prompt) :]) == text


def test_exits_come_in_the_order_asked(model):
    ids = model.tokenizer.encode("Once upon a time there was a cat")
    found = model.logits(ids, exits=[24, 6, 24, 1])
    assert found.shape == (4, len(ids), model.config.vocab_size)
    assert np.array_equal(found[0], found[2]) and np.array_equal(found[1], model.logits(ids, exits=[6])[0])
    assert np.array_equal(model.logits("Once upon a time there was a cat"), found[0])


def test_logits_are_those_that_texts_come_from(model):
    ids = model.tokenizer.encode("Once upon a time there was a cat")
    for exit_layer in (6, 24):
        logprobs = log_softmax(model.logits(ids, exits=[exit_layer])[0])
        scores = model.token_scores(ids, exit_layer=exit_layer)
        assert [one.token_id for one in scores] == ids[1:]
        for position, one in enumerate(scores):
            assert abs(one.logprob - logprobs[position, one.token_id]) < 1e-5
            assert one.is_greedy == (logprobs[position].argmax() == one.token_id)
    following = model.generate([ids], max_new_tokens=1, do_sample=False)[0, -1]
    assert following == model.logits(ids)[-1].argmax()


def test_hidden_states_end_in_the_logits(model):
    ids = model.tokenizer.encode("Once upon a time there was a cat")
    states = model.hidden_states(ids)
    assert states.shape == (25, len(ids), 128) and np.isfinite(states).all()
    whole = model.hidden_states(ids * 20)
    assert np.array_equal(whole[:, : len(ids)], states), "later tokens change nothing"


def test_arrays_outlive_their_model():
    other = offramp.AutoModelForCausalLM.from_pretrained()
    logits = other.logits([0, 12, 5], exits=[6, 24])
    copy = logits.copy()
    del other
    gc.collect()
    assert np.array_equal(logits, copy) and logits.flags.writeable and logits.flags.c_contiguous
    again = np.from_dlpack(logits)
    assert np.shares_memory(again, logits)


def test_scores_of_a_text_that_just_fits(model):
    context = model.context
    ids = (model.tokenizer.encode("Once upon a time there was a cat. ") * context)[: context + 1]
    scores = model.token_scores(ids)
    assert len(scores) == context
    assert scores[:50] == model.token_scores(ids[:51])
    with pytest.raises(ValueError, match="do not fit the context"):
        model.token_scores([*ids, 5])
    assert model.token_scores([[3], ids[:4]]) == [[], model.token_scores(ids[:4])]
