"""lm-eval's `local-completions` with a task of its own: the same scores as `transformers` gives, at two depths.

The model's numbers are bf16. transformers computes the scores in f32, so the server with `--format f32` must give them;
the one that runs the model as it is must come close, and judge greediness alike.

lm-eval sends ids, asks for `echo` and `logprobs`, and sums what belongs to the continuation. `reference.json` in the
work folder is what `lm_eval_reference.py` printed in an environment with torch.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import checks
from checks import equal, true

HERE = Path(__file__).resolve().parent
EXACT = 2e-3  # nats of a continuation
CLOSE = 0.1  # nats of one of about ten tokens, where every product is rounded to bf16


def evaluate(given, url, name, tokenized):
    task, results = given.work / "lm-eval-task", given.work / "lm-eval-results"
    for folder in (task, results):
        shutil.rmtree(folder, ignore_errors=True)
    task.mkdir()
    text = (HERE / "lm_eval_task" / "sentences.yaml").read_text()
    sentences = (HERE / "lm_eval_task" / "sentences.jsonl").resolve()
    (task / "sentences.yaml").write_text(text.replace("SENTENCES", str(sentences)))
    arguments = [f"model={name}", f"base_url={url}/v1/completions", f"tokenizer={given.model}"]
    arguments += ["tokenizer_backend=huggingface", f"tokenized_requests={tokenized}"]
    arguments += ["num_concurrent=2", "max_length=512"]
    words = [Path(sys.executable).parent / "lm_eval", "--model", "local-completions"]
    words += ["--model_args", ",".join(arguments)]
    words += ["--tasks", "offramp_sentences", "--include_path", task, "--log_samples", "--output_path", results]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str((given.work / "lm-eval-cache").resolve())}
    ran = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=900, env=os.environ | offline)
    true(ran.returncode == 0, f"it exits with {ran.returncode}: {ran.stderr[-1500:]}")
    [samples] = results.rglob("samples_*.jsonl")
    found = [json.loads(line) for line in samples.read_text().splitlines()]
    return [sample["resps"][0][0] for sample in sorted(found, key=lambda sample: sample["doc_id"])]


def compare(found, expected, tolerance=EXACT):
    equal(len(found), len(expected), "sentences")
    for number, ((score, greedy), (wanted, wanted_greedy)) in enumerate(zip(found, expected)):
        score = float(score)
        true(abs(score - wanted) <= tolerance, f"sentence {number}: expected {wanted:.5f}, got {score:.5f}")
        equal(str(greedy) == "True", wanted_greedy, f"greediness of sentence {number}")
    worst = max(abs(float(score) - wanted) for (score, _), (wanted, _) in zip(found, expected))
    print(f"       the largest difference is {worst:.1e} nats")


def main():
    given = checks.options(__doc__)
    check = checks.Checks("lm-eval", importlib.metadata.version("lm-eval"))
    reference = json.loads((given.work / "reference.json").read_text())
    with check("local-completions, ids: transformers' scores at full depth"):
        compare(evaluate(given, given.exact, "tinystories-24", True), reference["24"])
    with check("local-completions, ids: transformers' scores at exit 12"):
        compare(evaluate(given, given.exact, "tinystories-24@12", True), reference["12"])
    with check("local-completions, text: transformers' scores at full depth"):
        compare(evaluate(given, given.exact, "tinystories-24", False), reference["24"])
    with check("local-completions, ids: the model in bf16 comes close"):
        compare(evaluate(given, given.plain, "tinystories-24", True), reference["24"], CLOSE)
    check.finish()


if __name__ == "__main__":
    main()
