"""Mistakes: Python's own kinds of exceptions, in one line that helps."""

import pytest

import offramp

OPEN = offramp.AutoModelForCausalLM.from_pretrained


def raises(kind, words, call):
    with pytest.raises(kind) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and all(word in line for word in words), line


@pytest.mark.parametrize(
    "kind, words, options",
    [
        (ValueError, ["temperature", "-1"], {"temperature": -1}),
        (ValueError, ["temperature", "'hot'"], {"temperature": "hot"}),
        (ValueError, ["top_p", "1.5"], {"top_p": 1.5}),
        (ValueError, ["top_k", "-3"], {"top_k": -3}),
        (ValueError, ["max_new_tokens", "0"], {"max_new_tokens": 0}),
        (ValueError, ["max_new_tokens", "2.5"], {"max_new_tokens": 2.5}),
        (ValueError, ["exit layer 25", "24"], {"exit_layer": 25}),
        (ValueError, ["speculate", "6:4"], {"speculate": "maybe"}),
        (ValueError, ["30:5", "24"], {"assistant_early_exit": 30}),
        (ValueError, ["agreement", "0.2"], {"agreement": 0.2}),
        (ValueError, ["one of the two"], {"agreement": 0.9, "speculate": "auto"}),
        (ValueError, ["assistant_early_exit"], {"assistant_early_exit": 6, "speculate": "auto"}),
        (ValueError, ["stop"], {"stop": ""}),
        (ValueError, ["seed"], {"seed": -1}),
        (TypeError, ["temprature", "did you mean temperature"], {"temprature": 1.0}),
        (TypeError, ["generate()", "flavour"], {"flavour": 1}),
    ],
)
def test_options(model, kind, words, options):
    if options == {"stop": ""}:
        options = {"stop": [""]}
    raises(kind, words, lambda: model.generate("Once", **({"max_new_tokens": 2} | options)))


def test_prompts(model):
    raises(ValueError, ["512"], lambda: model.generate([5] * 600, max_new_tokens=1))
    raises(ValueError, ["99999"], lambda: model.generate([1, 99999], max_new_tokens=1))
    raises(ValueError, ["-1"], lambda: model.generate([1, -1], max_new_tokens=1))
    raises(ValueError, ["1.5"], lambda: model.generate([1, 1.5], max_new_tokens=1))
    raises(ValueError, ["input_ids"], lambda: model.generate(max_new_tokens=1))
    raises(ValueError, ["attention_mask"], lambda: model.generate(input_ids=[[1, 2]], attention_mask=[[1]]))
    raises(ValueError, ["no chat template"], lambda: model.chat("Hello"))
    raises(ValueError, ["exit"], lambda: model.logits([1, 2], exits=[0]))
    raises(ValueError, ["99999"], lambda: model.hidden_states([99999]))


def test_places_and_formats(tmp_path, fixture_folder):
    raises(FileNotFoundError, ["nowhere"], lambda: OPEN(tmp_path / "nowhere"))
    raises(FileNotFoundError, ["config.json"], lambda: OPEN(tmp_path))
    raises(ValueError, ["int3", "int4"], lambda: OPEN(dtype="int3"))
    raises(ValueError, ["memory", "512MiB"], lambda: OPEN(memory="much"))
    raises(ValueError, ["max_texts"], lambda: OPEN(max_texts=0))
    raises(FileNotFoundError, ["config.json"], lambda: offramp.AutoTokenizer.from_pretrained(tmp_path))
    folder = fixture_folder("gqa-untied")
    (folder / "model.safetensors").write_bytes(bytes(64))
    raises(ValueError, ["model.safetensors"], lambda: OPEN(folder))
    folder = fixture_folder("tied-headdim")
    (folder / "config.json").write_text("{")
    raises(ValueError, ["config.json"], lambda: OPEN(folder))


def test_data(model, tmp_path):
    raises(FileNotFoundError, ["no.txt"], lambda: offramp.evaluate(model, tmp_path / "no.txt"))
    raises(ValueError, ["exit"], lambda: offramp.evaluate(model, exits=[99], max_tokens=64))
    raises(ValueError, ["context"], lambda: offramp.evaluate(model, context=100_000, max_tokens=64))
    raises(ValueError, ["runs"], lambda: offramp.benchmark(model, runs=0))
