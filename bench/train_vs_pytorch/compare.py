"""offramp against PyTorch, training the same model on the same machine in turn: A B A B.

    python bench/train_vs_pytorch/compare.py --offramp target/release/offramp a c --rounds 3
    python bench/train_vs_pytorch/compare.py --offramp target/release/offramp a --modes f32,compile

Each configuration is a recipe beside this file. A round runs each contestant once, in a process of its own; a
process's figure is the median over its steps, and what is printed is the median over the rounds with the least and the
most, and the ratio to each of PyTorch's. Peak memory is the process's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STORIES = HERE.parent.parent / "stories" / "train.txt"
# Without it PyTorch gives its logits back to the system after every step and pays for touching them again.
PYTORCH_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368:glibc.malloc.top_pad=268435456"
}


def run(command, environment=None):
    """What a command prints, and its peak memory in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | (environment or {}), text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"it failed: {' '.join(map(str, command))}")
    return output, usage.ru_maxrss * 1024


def offramp(binary, recipe, precision, steps):
    with tempfile.TemporaryDirectory() as folder:
        prepare = [binary, "prepare", STORIES, "--vocab-size", 512, "--out", f"{folder}/corpus"]
        run(list(map(str, prepare)))
        text = recipe.read_text().replace('"corpus"', json.dumps(f"{folder}/corpus"))
        text = text.replace("steps = 8", f'precision = "{precision}"\nsteps = {steps + 2}')
        (Path(folder) / "recipe.toml").write_text(text)
        command = [binary, "train", f"{folder}/recipe.toml", "--out", f"{folder}/run", "--json"]
        _, memory = run(list(map(str, command)))
        lines = (Path(folder) / "run" / "journal.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    speeds = [record["tokens_per_second"] for record in records if record["kind"] == "step"]
    return statistics.median(speeds[2:]), memory


def pytorch(recipe, mode, steps):
    command = [sys.executable, HERE / "pytorch_step.py", recipe, "--mode", mode, "--steps", steps]
    output, memory = run(list(map(str, command)), PYTORCH_ENVIRONMENT)
    return statistics.median(json.loads(output.splitlines()[-1])["tokens_per_second"]), memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configurations", nargs="+", help="recipes beside this file, without .toml")
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--precisions", default="f32,bf16", help="offramp's: f32, bf16")
    parser.add_argument("--modes", default="f32,bf16,compile,compile-bf16", help="PyTorch's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    precisions, modes = arguments.precisions.split(","), arguments.modes.split(",")
    binary = arguments.offramp.resolve()
    for name in arguments.configurations:
        recipe = HERE / f"{name}.toml"
        found = {f"offramp {precision}": [] for precision in precisions} | {f"pytorch {mode}": [] for mode in modes}
        for _ in range(arguments.rounds):
            for precision in precisions:
                found[f"offramp {precision}"].append(offramp(binary, recipe, precision, arguments.steps))
            for mode in modes:
                found[f"pytorch {mode}"].append(pytorch(recipe, mode, arguments.steps))
        report(name, precisions, found)


def report(name, precisions, found):
    middle = {who: statistics.median(speed for speed, _ in samples) for who, samples in found.items()}
    ratios = "".join(f"{precision + ' is':>10}" for precision in precisions)
    print(f"{name}: {'contestant':20} {'tokens/s (least-most)':>26} {ratios} {'peak memory':>12}")
    for who, samples in found.items():
        speeds = [speed for speed, _ in samples]
        speed = f"{middle[who]:,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"
        ratios = "".join(f"{middle[f'offramp {precision}'] / middle[who]:>9.2f}x" for precision in precisions)
        memory = f"{max(memory for _, memory in samples) / 1e9:.1f} GB"
        print(f"{'':{len(name)}}  {who:20} {speed:>26} {ratios} {memory:>12}", flush=True)


if __name__ == "__main__":
    main()
