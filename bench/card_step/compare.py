"""What a curriculum costs in a step of the model card's shape: the recipes beside this file, in turn.

    python bench/card_step/compare.py --offramp target/release/offramp --rounds 2

The arithmetic of one more exit is 10.7 % of a step. A run is ended after a few steps; the first of them touches memory
for the first time and is not counted. Each run needs 20 GB of memory.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STORIES = HERE.parent.parent / "stories" / "train.txt"


def seconds(binary, recipe, precision, steps):
    """Of each step but the first."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, run = f"{folder}/corpus", Path(folder) / "run"
        subprocess.run([binary, "prepare", STORIES, "--tokenizer", "gpt2", "--out", corpus], check=True)
        text = recipe.read_text().replace('"corpus"', json.dumps(corpus))
        text = text.replace("steps = 1000", f'precision = "{precision}"\nsteps = 1000')
        (Path(folder) / "recipe.toml").write_text(text)
        process = subprocess.Popen([binary, "train", f"{folder}/recipe.toml", "--out", run], stderr=subprocess.DEVNULL)
        found = []
        while len(found) <= steps and process.poll() is None:
            time.sleep(0.2)
            journal = run / "journal.jsonl"
            lines = journal.read_text().splitlines() if journal.exists() else []
            found = [512 / json.loads(line)["tokens_per_second"] for line in lines if line.startswith('{"kind":"step"')]
        process.kill()
        process.wait()
    return found[1 : steps + 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    found = {"none": [], "rotational": [], "sampled": []}
    for _ in range(arguments.rounds):
        for name, samples in found.items():
            recipe = HERE / f"{name}.toml"
            samples += seconds(arguments.offramp.resolve(), recipe, arguments.precision, arguments.steps)
    least = statistics.median(found["none"])
    for name, samples in found.items():
        middle = statistics.median(samples)
        spread = f"({min(samples):.2f}-{max(samples):.2f})"
        print(f"{name:12} {middle:8.2f} s a step {spread:>16} {100 * (middle / least - 1):+6.1f} %", flush=True)


if __name__ == "__main__":
    main()
