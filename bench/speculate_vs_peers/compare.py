"""Speculation beside its peers: offramp, transformers' `assistant_early_exit`, and llama.cpp with a draft model and
with its n-gram drafts, in turn, on the same checkpoint and openings.

    python bench/speculate_vs_peers/compare.py --offramp target/release/offramp --model models/tinystories-24

Every way is decoded greedily beside its own side's plain decoding. A round takes all of them in turn, over one opening.
Figures are medians over rounds. Texts of plain and speculative decoding are compared, and counted.
"""

import argparse
import json
import statistics
import subprocess
from pathlib import Path

STORIES = Path(__file__).resolve().parents[2] / "stories" / "valid.txt"


class Offramp:
    """Our side: the command, which times what follows the first token."""

    def __init__(self, job):
        self.command = [job.offramp, "generate", job.model, "--format", job.dtype]
        self.command += ["--threads", job.threads, "--temperature", 0, "--max-new-tokens", job.new_tokens, "--json"]
        self.ways = ["auto", *job.ways]

    def decode(self, prompt, way):
        point, _, copies = (way or "off").partition(" ")
        command = [*self.command, "--prompt", prompt, "--speculate", point]
        if copies:
            command += ["--draft-format", copies]
        answer = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout)
        return answer["decode_tokens_per_second"], answer["tokens"]


def sides(job):
    """Those that are installed; a line says which are not."""
    found = {"offramp": Offramp(job)}
    for name, module in [("transformers", "transformers_side"), ("llama.cpp", "llama_cpp_side")]:
        if name in job.without:
            continue
        try:
            found[name] = __import__(module).Side(job)
        except ImportError as missing:
            print(f"without {name}: {missing}")
    return found


def openings(count):
    stories = STORIES.read_text().split("<|endoftext|>\n")
    return [" ".join(story.split()[:12]) for story in stories][:count]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "ways",
        nargs="*",
        default=["6:2", "12:2", "6:2 int4", "24:2 int4"],
        help="exit layer and draft length, and for copies their format; those without one are transformers' too",
    )
    parser.add_argument("--offramp", default="target/release/offramp")
    parser.add_argument("--model", default="models/tinystories-24")
    parser.add_argument("--dtype", default="bf16", choices=["f32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], help="sides to leave out")
    parser.add_argument("--work", default="gguf", help="where GGUF files are kept")
    return parser.parse_args()


def main():
    job = arguments()
    contestants = sides(job)
    rates, equal = {}, {}
    prompts = openings(job.rounds)
    for side in contestants.values():
        side.decode(prompts[0], None)  # a warm-up
    for prompt in prompts:
        for name, side in contestants.items():
            for way in side.ways:
                plain, text = side.decode(prompt, None)
                fast, same = side.decode(prompt, way)
                rates.setdefault((name, way), []).append((plain, fast))
                equal.setdefault((name, way), []).append(text == same)
    print("| | way | plain tokens/s | speculative tokens/s | speed-up | texts equal |\n|---|---|---|---|---|---|")
    for (name, way), pairs in rates.items():
        plain, fast = (statistics.median(rates) for rates in zip(*pairs))
        each = [fast / plain for plain, fast in pairs]
        ratio = f"{statistics.median(each):.2f}× ({min(each):.2f}–{max(each):.2f})"
        same = equal[name, way]
        print(f"| {name} | {way} | {plain:,.1f} | {fast:,.1f} | {ratio} | {sum(same)} of {len(same)} |")


if __name__ == "__main__":
    main()
