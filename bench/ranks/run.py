"""Training in one process and in several, in turn: tokens per second, and the share of the ideal.

    python bench/ranks/run.py target/release/offramp --mpirun PATH/bin/mpirun

Each round runs one process with all threads (with and without exact_ranks), then two processes with half of the
threads each, over the stories of this repository. A run's speed is the median of its steps, the first five left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """
[data]
train = "{root}/stories/train.txt"
valid = "{root}/stories/valid.txt"
tokenizer = "bpe"
vocab_size = 2048
[model]
num_hidden_layers = 12
hidden_size = {hidden}
intermediate_size = {feed_forward}
num_attention_heads = 8
num_key_value_heads = 4
max_position_embeddings = 256
[training]
steps = {steps}
batch_size = {batch}
accumulation = 4
sequence_length = 256
precision = "{precision}"
exact_ranks = {exact}
[schedule]
warmup_steps = 5
[validation]
every = 100000
[checkpoint]
every = 100000
"""


def rate(folder: Path) -> float:
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    rates = [record["tokens_per_second"] for record in records if record.get("tokens_per_second")]
    return statistics.median(rates[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("offramp", type=Path)
    parser.add_argument("--mpirun", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="f32")
    job = parser.parse_args()
    threads = os.cpu_count() or 1
    environment = os.environ | {"LD_LIBRARY_PATH": str(job.mpirun.resolve().parents[1] / "lib")}
    several = [job.mpirun.resolve(), "-n", "2"]
    ways = {
        "one process, added where made": ([], threads, "false"),
        "one process, folded by the tree": ([], threads, "true"),
        "two processes": (several, max(threads // 2, 1), "true"),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as place:
        for number in range(job.rounds):
            for index, (way, (launcher, each, exact)) in enumerate(ways.items()):
                folder = Path(place) / f"{number}-{index}"
                recipe = Path(place) / f"{exact}.toml"
                sizes = {"hidden": job.hidden, "feed_forward": 3 * job.hidden, "batch": job.batch}
                keys = sizes | {"steps": job.steps, "precision": job.precision, "exact": exact, "root": ROOT}
                recipe.write_text(RECIPE.format(**keys))
                words = [*launcher, job.offramp.resolve(), "train", recipe, "--out", folder, "--threads", str(each)]
                subprocess.run(words, check=True, env=environment, capture_output=True, cwd=place)
                found[way].append(rate(folder))
    plain = found["one process, added where made"]
    for way, rates in found.items():
        shares = [here / there for here, there in zip(rates, plain)]
        print(f"{way:32} {statistics.median(rates):8,.0f} tokens/s  {min(rates):,.0f} to {max(rates):,.0f}  "
              f"{statistics.median(shares):.3f} of the first ({min(shares):.3f} to {max(shares):.3f})")


if __name__ == "__main__":
    main()
