"""lm-evaluation-harness: the scores of its `hf` backend. Skipped where it is missing."""

import math
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from test_transformers import folder  # noqa: F401

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("torch")

PAIRS = [("Once upon a time", " there was a cat"), ("Tom", " saw a dog. The dog was big."), ("", "Lily"), ("The sun ", "was hot")]


def instances(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, index) for index, one in enumerate(arguments)]


@pytest.fixture(scope="module")
def backends(folder):  # noqa: F811
    from lm_eval.models.huggingface import HFLM

    from offramp.lm_eval import OfframpLM

    theirs = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=2)
    return theirs, OfframpLM(pretrained=str(folder), format="f32")


def test_loglikelihood(backends):
    theirs, ours = (backend.loglikelihood(instances("loglikelihood", PAIRS)) for backend in backends)
    for (expected, greedy), (found, found_greedy) in zip(theirs, ours, strict=True):
        assert abs(found - expected) < 1e-5 * max(1, abs(expected)) and found_greedy == greedy


def test_loglikelihood_rolling(backends):
    text = (REPOSITORY / "stories/valid.txt").read_text()[:6000].replace("<|endoftext|>", " ")
    texts = [("Once upon a time there was a cat.",), (text,)]
    theirs, ours = (backend.loglikelihood_rolling(instances("loglikelihood_rolling", texts)) for backend in backends)
    for expected, found in zip(theirs, ours, strict=True):
        assert abs(found - expected) < 1e-5 * abs(expected)


def test_generate_until(backends):
    asked = [
        ("Once upon a time", {"until": ["."], "max_gen_toks": 40, "do_sample": False}),
        ("Tom saw a dog", {"until": ["\n"], "max_gen_toks": 12}),
    ]
    theirs, ours = (backend.generate_until(instances("generate_until", asked)) for backend in backends)
    assert ours == theirs


def test_its_command_knows_our_model_and_task(tmp_path):
    def bits(exit_layer):
        words = ["--model", "offramp", "--model_args", f"exit_layer={exit_layer}", "--tasks", "exits_bits_per_byte"]
        words += ["--include_path", str(REPOSITORY / "crates/python/tasks"), "--output_path", str(tmp_path / str(exit_layer))]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
        ran = subprocess.run(
            [sys.executable, "-m", "offramp.lm_eval", *words], capture_output=True, text=True, env=environment, timeout=300
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        [row] = [line for line in ran.stdout.splitlines() if "bits_per_byte" in line and "exits" in line]
        return float(row.split("|")[7])

    shallow, deep = bits(6), bits(24)
    assert math.isfinite(deep) and 0.3 < deep < shallow < 3
