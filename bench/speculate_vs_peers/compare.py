"""Self-speculative decoding beside transformers' `assistant_early_exit`, in turn, on the same checkpoint and prompts.

    python bench/speculate_vs_transformers/compare.py --offramp target/release/offramp --model models/tinystories-24

Every way (an exit layer and a draft length, as 6:4) is decoded greedily by both, each beside its own plain decoding; a
round takes all of them in turn, each over one opening. Figures are medians over rounds. The texts of offramp's plain
and speculative decoding must be equal, and are compared; those of transformers are compared too, and counted.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

STORIES = Path(__file__).resolve().parents[2] / "stories" / "valid.txt"


class Transformers:
    """Its side: the stock Llama class, one process, the prompt's first token not timed."""

    def __init__(self, job):
        torch.set_num_threads(job.threads)
        self.tokenizer = AutoTokenizer.from_pretrained(job.model)
        dtype = getattr(torch, job.dtype)
        self.model = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).eval()
        self.new_tokens = job.new_tokens

    def decode(self, prompt, way):
        inputs = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        # No stop token: texts of one length compare.
        options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        if way:
            exit_layer, length = way
            # The early exit reads these where an assistant model would keep its own.
            self.model.generation_config.num_assistant_tokens = length
            self.model.generation_config.num_assistant_tokens_schedule = "constant"
            self.model.generation_config.assistant_confidence_threshold = 0.0
            options["assistant_early_exit"] = exit_layer
        times = []
        for count in (1, self.new_tokens):
            # One token takes no draft: what it takes is the prompt's.
            drafted = options if count > 1 else {k: v for k, v in options.items() if k != "assistant_early_exit"}
            with torch.inference_mode():
                start = time.perf_counter()
                tokens = self.model.generate(**inputs, min_new_tokens=count, max_new_tokens=count, **drafted)
                times.append(time.perf_counter() - start)
        new = tokens[0, inputs["input_ids"].shape[1] :].tolist()
        return (len(new) - 1) / (times[1] - times[0]), new


class Offramp:
    """Our side: the command, which times what follows the first token."""

    def __init__(self, job):
        self.command = [job.offramp, "generate", job.model, "--format", {"float32": "f32", "bfloat16": "bf16"}[job.dtype]]
        self.command += ["--threads", job.threads, "--temperature", 0, "--max-new-tokens", job.new_tokens, "--json"]

    def decode(self, prompt, way):
        how = "off" if not way else way if isinstance(way, str) else f"{way[0]}:{way[1]}"
        command = [*self.command, "--prompt", prompt, "--speculate", how]
        answer = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout)
        return answer["decode_tokens_per_second"], answer["tokens"]


def openings(count):
    stories = STORIES.read_text().split("<|endoftext|>\n")
    return [" ".join(story.split()[:12]) for story in stories][:count]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ways", nargs="*", default=["6:1", "6:3", "12:1", "12:3"], help="exit layer and draft length")
    parser.add_argument("--offramp", default="target/release/offramp")
    parser.add_argument("--model", default="models/tinystories-24")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main():
    job = arguments()
    ways = [tuple(map(int, way.split(":"))) for way in job.ways]
    contestants = {"transformers": Transformers(job), "offramp": Offramp(job)}
    rates, equal = {}, {}
    prompts = openings(job.rounds)
    for side in contestants.values():
        side.decode(prompts[0], None)  # a warm-up
    for prompt in prompts:
        for way in [*ways, "auto"]:
            for name, side in contestants.items():
                if way == "auto" and name == "transformers":
                    continue
                plain, text = side.decode(prompt, None)
                fast, same = side.decode(prompt, way)
                rates.setdefault((name, way), []).append((plain, fast))
                # A stop token ends offramp's texts early, both of them.
                equal.setdefault((name, way), []).append(text == same)
    print("| way | | plain tokens/s | speculative tokens/s | speed-up | texts equal |\n|---|---|---|---|---|---|")
    for (name, way), pairs in sorted(rates.items(), key=lambda entry: (str(entry[0][1]), entry[0][0])):
        plain, fast = (statistics.median(rates) for rates in zip(*pairs))
        ratio = statistics.median(fast / plain for plain, fast in pairs)
        how = way if isinstance(way, str) else f"{way[0]}:{way[1]}"
        same = equal[name, way]
        print(f"| {how} | {name} | {plain:,.0f} | {fast:,.0f} | {ratio:.2f}× | {sum(same)} of {len(same)} |")


if __name__ == "__main__":
    main()
