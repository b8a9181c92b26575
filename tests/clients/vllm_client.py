"""`vllm bench serve` against the server, with and without a model's name: all requests succeed, tokens are counted."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import checks
from checks import equal, true

HERE = Path(__file__).resolve().parent
REQUESTS = 12


def unpack(work):
    """The wheel's benchmark code, and its version."""
    [wheel] = (work / "vllm-wheel").glob("vllm-*.whl")
    folder = work / "vllm-unpacked"
    with zipfile.ZipFile(wheel) as archive:
        wanted = [name for name in archive.namelist() if name.startswith(("vllm/benchmarks/", "vllm/utils/"))]
        archive.extractall(folder, [name for name in wanted if name != "vllm/utils/__init__.py"])
    return folder, wheel.name.split("-")[1]


def bench(given, folder, *words):
    result = given.work / "vllm-result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, HERE / "vllm_bench.py", folder, "--base-url", given.plain, "--seed", 1, *words]
    command += ["--save-result", "--result-dir", given.work, "--result-filename", result.name, "--num-warmups", 1]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    true(ran.returncode == 0, f"it exits with {ran.returncode}: {ran.stderr[-1500:]}")
    return json.loads(result.read_text())


def main():
    given = checks.options(__doc__)
    folder, version = unpack(given.work)
    check = checks.Checks("vllm bench serve", version)
    lengths = ["--random-input-len", 64, "--random-output-len", 32, "--num-prompts", REQUESTS]
    random = ["--dataset-name", "random", *lengths, "--ignore-eos"]
    named = ["--model", "tinystories-24", "--tokenizer", given.model]
    with check("completions: all succeed, with the tokens that were asked for"):
        found = bench(given, folder, "--backend", "openai", "--endpoint", "/v1/completions", *named, *random)
        equal(found["completed"], REQUESTS, "completed")
        equal(found["total_output_tokens"], 32 * REQUESTS, "output tokens")
        times = [found["mean_ttft_ms"], found["mean_itl_ms"]]
        true(min(times) > 0, f"times {times}")
    with check("completions: no model's name, it takes the server's"):
        found = bench(given, folder, "--backend", "openai", "--tokenizer", given.model, *random)
        equal((found["completed"], found["model_id"]), (REQUESTS, "tinystories-24"), "completed, and the model")
    with check("completions: eight at a time, with logprobs"):
        words = ["--max-concurrency", 8, "--logprobs", 2]
        found = bench(given, folder, "--backend", "openai", *named, *random, *words)
        equal(found["completed"], REQUESTS, "completed")
    if given.chat:
        with check("chat: all succeed"):
            given.plain = given.chat
            words = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]
            found = bench(given, folder, *words, "--tokenizer", given.model, *random)
            equal(found["completed"], REQUESTS, "completed")
    check.finish()


if __name__ == "__main__":
    main()
