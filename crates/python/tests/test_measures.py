"""Measures against NumPy and the command."""

import json
import subprocess

import numpy as np
import pytest
from conftest import REPOSITORY
from test_numbers import log_softmax

import offramp

VALID = REPOSITORY / "stories/valid.txt"


def test_perplexity_is_numpys(model):
    text = VALID.read_text()[:1200]
    scores = offramp.evaluate(model, VALID, exits=[6, 24], context=64, max_tokens=128)
    # Stories are joined by the end of the text, which also stands before the first.
    ids = []
    for story in text.split("<|endoftext|>"):
        ids += model.tokenizer.encode(story.strip(), add_special_tokens=False) + [model.tokenizer.eos_token_id]
    for exit_layer, score in zip((6, 24), scores):
        nats = 0.0
        for start in (0, 64):
            window = ids[start : start + 65]
            logprobs = log_softmax(model.logits(window[:-1], exits=[exit_layer])[0])
            nats -= sum(logprobs[position, token] for position, token in enumerate(window[1:]))
        assert score.exit_layer == exit_layer and score.tokens == 128
        assert abs(score.nats_per_token - nats / 128) < 1e-4
        assert abs(score.perplexity - np.exp(score.nats_per_token)) < 1e-9
    assert scores[1].agreement == 1.0 > scores[0].agreement


def test_it_is_what_the_command_measures(command):
    model = offramp.AutoModelForCausalLM.from_pretrained()
    found = offramp.evaluate(model, VALID, max_tokens=600, exits=[12, 24])
    words = [command, "eval", "--data", VALID, "--max-tokens", "600", "--exits", "12,24", "--json"]
    said = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert [vars(score) for score in found] == said["exits"]


def test_tables_print_and_become_frames(model):
    scores = offramp.evaluate(model, exits=[6, 12, 24], max_tokens=256)
    lines = str(scores).splitlines()
    assert len(lines) == 5 and lines[0].split() == ["exit", "perplexity", "nats/token", "bits/byte", "agreement"]
    assert scores._repr_html_().count("<tr>") == 4
    assert scores[:1] == scores[0:1] and len(scores[1:]) == 2
    pandas = pytest.importorskip("pandas")
    frame = scores.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame.exit_layer) == [6, 12, 24]


def test_benchmark_measures_each_exit(model):
    report = offramp.benchmark(model, exits=[6, 24], prompt_tokens=16, new_tokens=8, runs=1)
    assert [speed.exit_layer for speed in report.exits] == [6, 24]
    assert report.exits[0].decode.median > 0 and report.exits[0].bytes_per_token < report.exits[1].bytes_per_token
    assert report.threads >= 1 and "tokens/s" in str(report)


def test_sweep_finds_the_best_draft(model):
    report = offramp.sweep(model, exits=[6], lengths=[2, 3], new_tokens=16, runs=1)
    points = [(point.exit_layer, point.draft_format, point.num_speculations) for point in report.points]
    assert points == [(6, None, 2), (6, None, 3), (6, "int4", 2), (6, "int4", 3)]
    assert [len(point.acceptance_by_position) for point in report.points] == [2, 3, 2, 3]
    assert "6 in int4" in str(report)
    assert report.best in list(report.points) and report.plain.median > 0
    assert 0 <= report.points[0].acceptance_rate <= 1
    assert report.trained_for_exits and report.verdict in ("pays", "unsure", "loses")


def test_quantized_folders_load(fixture_folder, tmp_path):
    folder = fixture_folder("gqa-untied")
    found = offramp.quantize(folder, tmp_path / "int8", to="int8")
    assert (found.layers, found.head) == ("int8", "int8") and found.bytes_after < found.bytes_before
    model = offramp.AutoModelForCausalLM.from_pretrained(tmp_path / "int8")
    assert model.dtype == "int8"
    whole = offramp.AutoModelForCausalLM.from_pretrained(folder)
    assert np.abs(model.logits([1, 2, 3]) - whole.logits([1, 2, 3])).max() < 0.2
    with pytest.raises(FileExistsError):
        offramp.quantize(folder, tmp_path / "int8", to="int8")


def test_gguf_files_are_written_and_loaded(tmp_path, model):
    file = tmp_path / "story.gguf"
    offramp.export_gguf(None, file, type="f32")
    again = offramp.AutoModelForCausalLM.from_pretrained(file)
    assert again.dtype == "f32" and np.array_equal(again.logits("Once upon a time"), model.logits("Once upon a time"))
    offramp.quantize(file, tmp_path / "folder", to="int8")
    small = offramp.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert small.tokenizer.encode("Once upon a time") == model.tokenizer.encode("Once upon a time")
    with pytest.raises(ValueError, match="q8_0"):
        offramp.export_gguf(None, tmp_path / "other.gguf", type="q3_k")


def test_a_card_has_what_was_measured(fixture_folder):
    folder = fixture_folder("gqa-untied")
    text = folder.parent / "text.txt"
    text.write_text(" ".join(f"t{index % 20}" for index in range(200)))
    found = offramp.card(folder, data=text, runs=0, license="mit", name="Tiny")
    page = (folder / "README.md").read_text()
    assert found.card == str(folder / "README.md") and 'license: "mit"' in page and "# Tiny" in page
    scores = found.measured["validation"]["exits"]
    assert [one["exit_layer"] for one in scores] == list(range(1, len(scores) + 1))
    assert f"{scores[-1]['perplexity']:.2f}" in page
    (folder / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="overwrite"):
        offramp.card(folder, runs=0)
