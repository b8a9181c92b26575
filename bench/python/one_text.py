"""One text in Python: load a model, continue 128 random ids by so many tokens, greedily. Prints one JSON line.

    python bench/python/one_text.py offramp shape/random-shape --dtype int8 --threads 2
    python bench/python/one_text.py transformers shape/random-shape --dtype bf16 --threads 2
    python bench/python/one_text.py llama_cpp shape/random-Q8_0.gguf --threads 2

Each peer is used as its documentation says, in a process of its own; a first text of a few tokens warms up.
"""

import argparse
import json
import random
import resource
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("peer", choices=["offramp", "transformers", "llama_cpp"])
parser.add_argument("model")
parser.add_argument("--dtype", default="bf16", help="bf16, f32, int8 or int4 of offramp; bf16 or f32 of transformers")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--prompt-tokens", type=int, default=128)
parser.add_argument("--new-tokens", type=int, default=64)
parser.add_argument("--runs", type=int, default=3)
job = parser.parse_args()


def offramp():
    """Yields each token as soon as it is there."""
    import offramp

    yield "imported"
    model = offramp.AutoModelForCausalLM.from_pretrained(job.model, dtype=job.dtype, threads=job.threads)
    # Random weights have no exits that agree: nothing could be drafted.
    yield lambda ids, count: model.stream_generate(
        ids, max_new_tokens=count, do_sample=False, ignore_eos=True, speculate="off"
    )


def transformers():
    import torch
    import transformers

    yield "imported"
    torch.set_num_threads(job.threads)
    dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[job.dtype]
    model = transformers.AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).eval()

    class Heard:
        """Notes when tokens come."""

        def __init__(self):
            self.times = []

        def put(self, value):
            self.times.append(time.perf_counter())

        def end(self):
            pass

    def times(ids, count):
        heard = Heard()
        how = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        with torch.no_grad():
            model.generate(torch.tensor([ids]), streamer=heard, **how)
        return heard.times[1:]  # the first is the prompt

    yield times


def llama_cpp():
    from llama_cpp import Llama

    yield "imported"
    model = Llama(job.model, n_ctx=job.prompt_tokens + job.new_tokens + 8, n_threads=job.threads,
                  n_threads_batch=job.threads, flash_attn=True, verbose=False)

    def tokens(ids, count):
        model.reset()
        found = model.generate(ids, temp=0.0, reset=True)
        return (next(found) for _ in range(count))

    yield tokens


def measure(write, number):
    """Seconds to the first token, and tokens per second after it."""
    ids = [random.Random(number).randrange(5, 3000) for _ in range(job.prompt_tokens)]
    start = time.perf_counter()
    times = []
    for item in write(ids, job.new_tokens):
        times.append(item if isinstance(item, float) else time.perf_counter())
    times = times[: job.new_tokens]
    return times[0] - start, (len(times) - 1) / (times[-1] - times[0])


start = time.perf_counter()
steps = {"offramp": offramp, "transformers": transformers, "llama_cpp": llama_cpp}[job.peer]()
next(steps)
imported = time.perf_counter()
write = next(steps)
loaded = time.perf_counter()
list(write([5, 6, 7, 8], 4))
samples = [measure(write, number) for number in range(job.runs)]
print(
    json.dumps(
        {
            "import_seconds": imported - start,
            "load_seconds": loaded - imported,
            "first_token_seconds": sorted(first for first, _ in samples)[len(samples) // 2],
            "decode_tokens_per_second": sorted(rate for _, rate in samples)[len(samples) // 2],
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }
    )
)
