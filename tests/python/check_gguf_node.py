"""The llama.cpp that node-llama-cpp brings prebuilt loads the GGUF files that offramp writes, and says the same.

    python tests/python/check_gguf_node.py --offramp target/release/offramp --work target/node-llama-cpp

Needs node and npm, and nothing else: where one is missing, one line says so and nothing is checked. Two models are
written in every format of `offramp export --type` that fits their rows: the carried one, and one that is trained here
for some seconds with rows of 256 values, which tq2_0 needs. The carried one is written with YaRN, too. Each file is
continued greedily by both. In f32 all texts must be equal; in the other formats llama.cpp rounds activations, and the
count is told.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

VERSION = "3.22.1"
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROMPTS = ["Once upon a time", "Tom saw a big dog.", "  two  spaces\n", "naïve café 🙂 12 cats"]
TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0", "tq2_0"]
EXACT = ["f32"]
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}
YARN |= {"attention_factor": 1.2}
RECIPE = """
[data]
train = "{stories}"
tokenizer = "bpe"
vocab_size = 512
[model]
hidden_size = 256
intermediate_size = 512
num_hidden_layers = 4
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 256
[training]
steps = 120
batch_size = 4
sequence_length = 64
seed = 1
[optimizer]
learning_rate = 2e-3
[schedule]
warmup_steps = 10
[early_exit]
curriculum = "all"
"""


def offramp(job, *words):
    ran = subprocess.run([job.offramp, *words], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"offramp {words[0]}: {ran.stderr.strip()}")
    return ran.stdout


def ours(job, file, prompt):
    words = ["generate", file, "--json", "--prompt", prompt, "--temperature", "0", "--max-new-tokens", str(job.new_tokens)]
    return json.loads(offramp(job, *words))["text"]


def theirs(job, package, file):
    words = ["node", HERE / "node_llama.mjs", package, file, str(job.new_tokens), *PROMPTS]
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def installed(work):
    """The package's folder; npm needs no compiler for it and runs no script of it."""
    package = work / "node_modules" / "node-llama-cpp"
    manifest = package / "package.json"
    if not manifest.exists() or json.loads(manifest.read_text())["version"] != VERSION:
        work.mkdir(parents=True, exist_ok=True)
        (work / "package.json").write_text('{"private": true}\n')
        words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"node-llama-cpp@{VERSION}"]
        subprocess.run(words, cwd=work, check=True, stdout=subprocess.DEVNULL)
    return package


def trained(job, folder):
    recipe = folder / "rows-of-256.toml"
    recipe.write_text(RECIPE.format(stories=ROOT / "stories/train.txt"))
    offramp(job, "train", recipe, "--out", folder / "run")
    return folder / "run" / "model"


def with_yarn(folder):
    """The carried model with other angles: what it says is nonsense, the same nonsense in both."""
    copy = folder / "yarn"
    shutil.copytree(ROOT / "models/tinystories-24", copy, ignore=shutil.ignore_patterns("*.svg", "*.md", "*.py"))
    config = json.loads((copy / "config.json").read_text())
    for key in ("rope_scaling", "rope_parameters"):
        config.pop(key, None)
    config["rope_scaling"] = YARN
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def check(job, package, model, kind, name):
    file = model.parent / f"{name}-{kind}.gguf"
    ran = subprocess.run([job.offramp, "export", model, "--gguf", file, "--type", kind], capture_output=True, text=True)
    if ran.returncode:
        print(f"{name}, {kind}: not written: {ran.stderr.strip().splitlines()[-1]}", flush=True)
        return "has blocks of" in ran.stderr
    found = theirs(job, package, file)
    same = sum(text == ours(job, file, prompt) for text, prompt in zip(found["texts"], PROMPTS))
    print(f"{name}, {kind}: {same} of {len(PROMPTS)} greedy texts are those of llama.cpp {found['llama']}", flush=True)
    return same == len(PROMPTS) or kind not in EXACT


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path, help="where node-llama-cpp is installed, and stays")
    parser.add_argument("--new-tokens", type=int, default=40)
    job = parser.parse_args()
    job.offramp = job.offramp.resolve()
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            print(f"skipped: there is no {program}")
            return
    package = installed(job.work.resolve())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        carried = folder / "carried"
        carried.symlink_to(ROOT / "models/tinystories-24")
        models = {"carried": (carried, TYPES), "rows of 256": (trained(job, folder), TYPES), "yarn": (with_yarn(folder), EXACT)}
        good = [check(job, package, model, kind, name) for name, (model, kinds) in models.items() for kind in kinds]
    raise SystemExit(not all(good))


if __name__ == "__main__":
    main()
