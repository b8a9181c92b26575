"""offramp, transformers and llama-cpp-python in Python, in turn, on the card's shape with random weights.

    python bench/python/compare.py --work shape --python venv/bin/python

Every peer runs in a process of its own (`one_text.py`), one after the other, `--rounds` times; the table has medians.
`--python` has all three installed; `--llama-python` may name another for llama-cpp-python.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYS = ["decode_tokens_per_second", "first_token_seconds", "import_seconds", "load_seconds", "peak_megabytes"]
HEADER = ["", "decode tokens/s", "first token s", "import s", "load s", "peak MB"]
SIDES = ["offramp bf16", "transformers bf16", "llama_cpp BF16", "offramp int8", "llama_cpp Q8_0"]


def run(job, side):
    peer, kind = side.split()
    python = job.llama_python if peer == "llama_cpp" and job.llama_python else job.python
    model = job.work / (f"random-{kind}.gguf" if peer == "llama_cpp" else "random-shape")
    words = [python, HERE / "one_text.py", peer, model, "--threads", job.threads, "--new-tokens", job.new_tokens]
    words += [] if peer == "llama_cpp" else ["--dtype", kind]
    ran = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where bench/serve/card_shape.py has made the weights")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--llama-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES))
    job = parser.parse_args()
    found = {side: [] for side in job.sides.split(",")}
    for _ in range(job.rounds):
        for side in found:
            found[side].append(run(job, side))
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for side, rows in found.items():
        middle = [statistics.median(row[key] for row in rows) for key in KEYS]
        print(f"| {side} | {middle[0]:.2f} | {middle[1]:.2f} | {middle[2]:.2f} | {middle[3]:.2f} | {middle[4]:.0f} |")


if __name__ == "__main__":
    main()
