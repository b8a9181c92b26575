"""Training: the command's bytes, from either side."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import REPOSITORY

import offramp

STORIES = REPOSITORY / "stories"


def recipe(steps=6, **training):
    """A model of four tiny layers."""
    return {
        "data": {
            "train": str(STORIES / "train.txt"),
            "valid": str(STORIES / "valid.txt"),
            "tokenizer": "bpe",
            "vocab_size": 300,
        },
        "model": {
            "num_hidden_layers": 4,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
        },
        "training": {"steps": steps, "batch_size": 2, "accumulation": 1, "sequence_length": 32, "seed": 1} | training,
        "schedule": {"warmup_steps": 2},
        "validation": {"every": 3, "max_tokens": 200},
        "checkpoint": {"every": 3, "keep": 2},
    }


def weights(folder: Path) -> bytes:
    return (folder / "model/model.safetensors").read_bytes()


def run_command(command, *words, cwd):
    ran = subprocess.run([command, *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert ran.returncode == 0, ran.stderr


def test_a_run_from_a_dict_trains_a_model(tmp_path):
    records = []
    found = offramp.train(recipe(), out=tmp_path / "run", callbacks=records.append)
    assert (found.step, found.stopped, found.skipped) == (6, False, 0)
    kinds = [record["kind"] for record in records]
    assert kinds.count("step") == 6 and kinds.count("validation") == 2 and kinds.count("checkpoint") >= 2
    journal = [json.loads(line) for line in (tmp_path / "run/journal.jsonl").read_text().splitlines()]
    assert [one for one in records if one["kind"] in ("step", "validation")] == [
        one for one in journal if one["kind"] in ("step", "validation")
    ]
    model = offramp.AutoModelForCausalLM.from_pretrained(found.model)
    assert model.num_hidden_layers == 4
    assert model.generate("Once", max_new_tokens=4, do_sample=False).text
    assert found.best["step"] in (3, 6)


def test_the_commands_bytes_and_a_run_that_changes_hands(tmp_path, command):
    path = tmp_path / "tiny.toml"
    path.write_text(offramp.training.toml(recipe()))
    run_command(command, "train", path, "--out", tmp_path / "command", cwd=tmp_path)
    offramp.train(path, out=tmp_path / "python")
    assert weights(tmp_path / "python") == weights(tmp_path / "command")
    # Python begins and stops, the command goes on.
    stopped = offramp.train(path, out=tmp_path / "mixed", callbacks=lambda record: record["step"] < 4)
    assert stopped.stopped and stopped.step == 4
    run_command(command, "train", path, "--out", tmp_path / "mixed", "--resume", cwd=tmp_path)
    assert weights(tmp_path / "mixed") == weights(tmp_path / "command")


def test_false_stops_and_resume_goes_on(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    offramp.train(recipe(), out=whole)
    stopped = offramp.train(recipe(), out=parts, callbacks=[lambda record: None, lambda record: record["step"] != 2])
    assert stopped.stopped and stopped.step == 2
    finished = offramp.train(recipe(), out=parts, resume=True)
    assert not finished.stopped and weights(parts) == weights(whole)


def test_an_exception_of_a_callback_is_raised(tmp_path):
    def fails(record):
        raise LookupError(record["step"])

    with pytest.raises(LookupError, match="1"):
        offramp.train(recipe(), out=tmp_path / "run", callbacks=fails)
    assert offramp.train(recipe(), out=tmp_path / "run", resume=True).step == 6


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_saves(tmp_path):
    code = f"""
        import json, offramp, os, signal
        recipe = json.loads({json.dumps(json.dumps(recipe(steps=100_000)))})
        def hear(record):
            if record["step"] == 2:
                os.kill(os.getpid(), signal.SIGINT)
        try:
            offramp.train(recipe, out={str(tmp_path / 'run')!r}, callbacks=hear)
        except KeyboardInterrupt:
            print("saved")
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "saved\n", ran.stderr
    assert list((tmp_path / "run").glob("step-*"))
    assert signal.getsignal(signal.SIGINT)


def test_mistakes_are_named(tmp_path):
    wrong = recipe()
    wrong["training"]["batchsize"] = 4
    with pytest.raises(ValueError, match="batchsize.*did you mean batch_size"):
        offramp.train(wrong, out=tmp_path / "run")
    with pytest.raises(ValueError, match="out="):
        offramp.train(recipe())
    with pytest.raises(FileNotFoundError, match="nowhere.toml"):
        offramp.train(tmp_path / "nowhere.toml", out=tmp_path / "run")
    offramp.train(recipe(), out=tmp_path / "run")
    with pytest.raises(FileExistsError):
        offramp.train(recipe(), out=tmp_path / "run")
    with pytest.raises(ValueError, match="dict of sections"):
        offramp.train({"steps": 3}, out=tmp_path / "other")
