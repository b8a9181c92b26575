"""Texts and rows of ids: what they are, and how they come."""

import numpy as np
import pytest

import offramp

PROMPT = "Once upon a time"


def greedy(model, prompt=PROMPT, **options):
    return model.generate(prompt, **({"max_new_tokens": 24, "do_sample": False} | options))


def test_the_cards_usage():
    """The card's own lines, with offramp in place of transformers."""
    model = offramp.AutoModelForCausalLM.from_pretrained()
    tokenizer = offramp.AutoTokenizer.from_pretrained()
    model.set_exit_layer(12)
    inputs = tokenizer(PROMPT, return_tensors="np")
    outputs = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert outputs.dtype == np.int64 and outputs.shape == (1, inputs["input_ids"].shape[1] + 20)
    text = tokenizer.decode(outputs[0], skip_special_tokens=True)
    assert text.startswith(PROMPT)
    assert text == str(greedy(model, max_new_tokens=20))


def test_the_text_is_that_of_its_tokens(model):
    found = greedy(model)
    assert str(found) == PROMPT + found.text
    assert model.tokenizer.decode(found.token_ids) == found.text
    assert len(found.items) == found.statistics.new_tokens == 24
    assert found.finish_reason == "length" and set(found.exit_layers) == {24}


def test_a_list_is_each_of_its_texts(model):
    prompts = [PROMPT, "Tom saw a big dog.", "Lily", "The sun was hot and"]
    together = model.generate(prompts, max_new_tokens=16, do_sample=False)
    assert [one.text for one in together] == [greedy(model, one, max_new_tokens=16).text for one in prompts]


def test_speculation_changes_nothing(model):
    plain = greedy(model, speculate="off")
    for how in ({"assistant_early_exit": 6}, {"speculate": "auto"}, {"speculate": "12:3"}):
        drafted = greedy(model, **how)
        assert drafted.token_ids == plain.token_ids, how
    drafted = greedy(model, assistant_early_exit=6, num_assistant_tokens=4)
    assert drafted.statistics.drafted > 0 and {"accepted"} <= {item.origin for item in drafted.items}
    assert drafted.statistics.acceptance_rate == drafted.statistics.accepted / drafted.statistics.drafted


def test_copies_in_fewer_bits_draft_the_same_text(model):
    """`draft_dtype` names the format of what drafts, at any exit up to all layers; the text is the model's."""
    plain = greedy(model, speculate="off")
    shares = {}
    for draft_dtype in ("int4", "int8", "own"):
        copied = offramp.AutoModelForCausalLM.from_pretrained(draft_dtype=draft_dtype)
        for how in ("auto", "6:4", *(["24:3"] if draft_dtype != "own" else [])):
            drafted = greedy(copied, speculate=how)
            assert drafted.token_ids == plain.token_ids, (draft_dtype, how)
            shares[draft_dtype, how] = drafted.statistics.acceptance_rate
    assert shares["int8", "24:3"] > 0.9 and shares["int4", "24:3"] > 0.5, shares
    with pytest.raises(ValueError, match="int5"):
        offramp.AutoModelForCausalLM.from_pretrained(draft_dtype="int5")


def test_a_seed_gives_its_text(model):
    drawn = [model.generate(PROMPT, max_new_tokens=24, temperature=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    rows = model.generate(input_ids=[model.tokenizer.encode(PROMPT)] , max_new_tokens=24, temperature=1.0, seed=1,
                          num_return_sequences=2)
    texts = [model.tokenizer.decode(row[4:]) for row in rows]
    assert texts[0].startswith(drawn[0]) and texts[1].startswith(drawn[2])


def test_pythons_random_draws_the_seed_that_nobody_gives(model):
    import random

    def text():
        return model.generate(PROMPT, max_new_tokens=24, temperature=1.0).text

    random.seed(7)
    first, second = text(), text()
    random.seed(7)
    assert text() == first != second


def test_streams_are_the_text(model):
    items = list(model.stream_generate(PROMPT, max_new_tokens=24, do_sample=False, logprobs=2))
    whole = greedy(model)
    assert "".join(item.text for item in items) == whole.text
    assert [item.token_id for item in items] == [*whole.token_ids, None]
    *tokens, end = items
    assert end.finish_reason == "length" and end.statistics.new_tokens == 24
    for item in tokens:
        assert item.logprob <= 0 and item.top_logprobs[0] == (item.token_id, item.logprob), "greedy"
        assert item.exit_layer == 24 and item.finish_reason is None
    assert tokens[0].tokens_per_second is None and tokens[-1].tokens_per_second > 0


def test_a_stop_string_ends_the_text_before_itself(model):
    whole = greedy(model, max_new_tokens=60)
    stop = whole.text[20:26]
    found = greedy(model, max_new_tokens=60, stop=stop)
    assert found.text == whole.text[: whole.text.index(stop)]
    assert (found.finish_reason, found.stop_string) == ("stop", stop)
    assert "".join(item.text for item in model.stream_generate(PROMPT, max_new_tokens=60, do_sample=False, stop=[stop])) == found.text


def test_rows_of_ids_are_continued_in_their_form(model):
    tokenizer = model.tokenizer
    texts = [PROMPT, "Tom saw a big dog."]
    batch = tokenizer(texts, return_tensors="np")
    rows = model.generate(**batch, max_new_tokens=8, do_sample=False)
    assert rows.shape == (2, batch["input_ids"].shape[1] + 8)
    for row, text, ids in zip(rows, texts, batch["input_ids"]):
        assert list(row[: len(ids)]) == list(ids)
        assert tokenizer.decode(row[len(ids) :]) == greedy(model, text, max_new_tokens=8).text
    ids = tokenizer.encode(PROMPT)
    flat = model.generate(ids, max_new_tokens=8, do_sample=False)
    assert flat.shape == (len(ids) + 8,) and list(flat) == list(model.generate([ids], max_new_tokens=8, do_sample=False)[0])


def test_a_shorter_text_is_padded(model):
    ids = model.tokenizer.encode(PROMPT)
    story = model.generate([ids], max_new_tokens=400, do_sample=False)[0]
    assert len(story) < len(ids) + 400, "the story ends"
    both = model.generate([ids, ids], max_new_tokens=400, temperature=1.0, seed=3, pad_token_id=9)
    lengths = [len(list(row)) - list(row[::-1]).index(next(x for x in row[::-1] if x != 9)) for row in both]
    assert max(lengths) == both.shape[1]


def test_a_streamer_of_transformers_hears_prompt_and_tokens(model):
    heard = []

    class Streamer:
        def put(self, value):
            heard.append(value.tolist())

        def end(self):
            heard.append("end")

    ids = model.tokenizer.encode(PROMPT)
    found = greedy(model, max_new_tokens=5, streamer=Streamer())
    assert heard == [[ids], *[[one] for one in found.token_ids], "end"]
    heard.clear()
    model.generate(input_ids=[ids], max_new_tokens=5, do_sample=False, streamer=Streamer())
    assert heard == [[ids], *[[one] for one in found.token_ids], "end"]


def test_agreement_leaves_early(model):
    found = model.generate(PROMPT, max_new_tokens=48, do_sample=False, agreement=0.8)
    assert {16, 24} >= set(found.exit_layers) and 16 in found.exit_layers
    assert 16 <= found.statistics.mean_depth < 24


def test_exits_are_set_for_the_model_or_a_text(model):
    other = offramp.AutoModelForCausalLM.from_pretrained(dtype="f32")
    other.set_exit_layer(6)
    assert other.exit_layer == 6 and "exit_layer=6" in repr(other)
    assert other.generate(PROMPT, max_new_tokens=12, do_sample=False).text == greedy(model, exit_layer=6, max_new_tokens=12).text
    other.set_exit_layer(None)
    assert other.exit_layer == 24


def test_chat_goes_through_the_template(fixture_folder):
    folder = fixture_folder("gqa-untied")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ 't1' if m.role == 'user' else 't2' }} {{ m.content }} {% endfor %}t3"
    )
    model = offramp.AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": "t5 t6"}, {"role": "assistant", "content": "t7"}, {"role": "user", "content": "t8"}]
    answer = model.chat(messages, max_new_tokens=6, do_sample=False)
    expected = model.generate([[1, 5, 6, 2, 7, 1, 8, 3]], max_new_tokens=6, do_sample=False)[0][8:]
    assert answer.token_ids == list(expected)
    assert model.chat("t5", max_new_tokens=3, do_sample=False).token_ids == list(
        model.generate([[1, 5, 3]], max_new_tokens=3, do_sample=False)[0][3:]
    )


def test_a_notebook_shows_depths(model):
    page = greedy(model, max_new_tokens=6)._repr_html_()
    assert page.count("<span") == 6 + 1 and "layer 24 of 24" in page
    assert "<script" not in greedy(model, "<script>alert(1)</script>", max_new_tokens=2)._repr_html_()


def test_demo_is_a_story():
    story = offramp.demo()
    assert str(story).startswith(PROMPT) and len(story.text) > 200
    assert str(offramp.demo()) == str(story)


def test_nothing_to_go_on_from(model):
    assert greedy(model, "").text, "the beginning of text"
    with pytest.raises(ValueError, match="holds no token"):
        model.generate([], max_new_tokens=3)
