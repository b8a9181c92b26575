"""Drives a server of OpenAI completions with so many clients, each of which streams one text after another.

    python bench/serve/load.py http://127.0.0.1:8080 --clients 1,8 --prompt-tokens 128 --new-tokens 64
    python bench/serve/load.py http://127.0.0.1:8080 --prompts openings.txt --set speculate=auto

Every prompt is of random token ids and of its own, or a line of a file. The first texts of each client warm up and
do not count. A stream gives the time to its first text, the times between its texts, and the tokens that the server
counted in its last chunk.
"""

import argparse
import asyncio
import json
import math
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import wire

HEADER = ["clients", "tokens/s", "first token ms: p50", "p99", "between ms: p50", "p99", "ms/token: p50", "p99"]
HEADER += ["failed"]


@dataclass
class Job:
    """What every client asks for."""

    prompts: list  # of ids or texts, taken in turn
    new_tokens: int = 64
    texts: int = 4  # that count, of each client
    warm_up: int = 1
    fields: dict = field(default_factory=dict)
    key: str | None = None

    def body(self, prompt):
        body = {"prompt": prompt, "max_tokens": self.new_tokens, "temperature": 0, "ignore_eos": True}
        return body | {"stream": True, "stream_options": {"include_usage": True}} | self.fields


@dataclass
class Text:
    """One stream: seconds, and tokens."""

    client: int
    began: float = 0.0
    ended: float = 0.0
    first: float | None = None
    between: list = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    error: str | None = None

    @property
    def per_token(self):
        return sum(self.between) / (self.tokens - 1) if self.tokens > 1 else None


def read(client, streamed):
    """What a finished stream says; decoded here, after the last of its bytes."""
    text = Text(client, streamed.began, time.perf_counter())
    if streamed.status != 200:
        text.error = f"{streamed.status} {streamed.body[:200].decode(errors='replace')}"
        return text
    times = []
    for event in streamed.events:
        chunk = event.json()
        if "error" in chunk:
            text.error = json.dumps(chunk["error"])
        if wire.completion_text(chunk):
            times.append(event.at)
        if usage := chunk.get("usage"):
            text.tokens, text.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
    if not times or not text.tokens:
        text.error = text.error or "a stream without text, or without usage"
        return text
    text.ended, text.first = times[-1], times[0] - streamed.began
    text.between = [after - before for before, after in zip(times, times[1:])]
    return text


async def client(url, job, number, count, start):
    found = []
    async with wire.Connection(url, job.key) as connection:
        for turn in range(job.warm_up + job.texts):
            if turn == job.warm_up:
                await start.wait()
            prompt = job.prompts[(number + turn * count) % len(job.prompts)]
            try:
                text = read(number, await connection.stream("/v1/completions", job.body(prompt)))
            except (OSError, asyncio.IncompleteReadError, wire.Broken) as error:
                text = Text(number, error=repr(error))
                await connection.close()
            if turn >= job.warm_up:
                found.append(text)
    return found


async def drive(url, job, clients):
    """Texts of all clients. Those that count begin when every client has warmed up."""
    start = asyncio.Barrier(clients)
    found = await asyncio.gather(*[client(url, job, number, clients, start) for number in range(clients)])
    return [text for texts in found for text in texts]


def percentile(values, share):
    """The least value that `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def figures(texts):
    """Seconds by name, and tokens per second of all texts together."""
    good = [text for text in texts if not text.error]
    found = {"texts": len(texts), "failed": len(texts) - len(good), "tokens": sum(text.tokens for text in good)}
    found["prompt_tokens"] = sum(text.prompt_tokens for text in good)
    found["errors"] = sorted({text.error for text in texts if text.error})[:3]
    seconds = max(text.ended for text in good) - min(text.began for text in good) if good else 0.0
    found["seconds"], found["tokens_per_second"] = seconds, found["tokens"] / seconds if seconds else 0.0
    samples = {
        "first": [text.first for text in good],
        "between": [gap for text in good for gap in text.between],
        "per_token": [text.per_token for text in good if text.per_token is not None],
    }
    for name, values in samples.items():
        found[name] = {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99)}
    return found


def measure(url, job, clients):
    return figures(asyncio.run(drive(url, job, clients)))


def milliseconds(seconds):
    return "-" if seconds is None else f"{1e3 * seconds:.2f}"


def row(clients, found):
    cells = [clients, f"{found['tokens_per_second']:.1f}"]
    for name in ("first", "between", "per_token"):
        cells += [milliseconds(found[name][share]) for share in ("p50", "p99")]
    return f"| {' | '.join(map(str, [*cells, found['failed']]))} |"


def header(names):
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def random_prompts(count, tokens, vocabulary, seed=0):
    """Prompts of ids: `count` different ones of the same length."""
    numbers = random.Random(seed)
    return [[numbers.randrange(1, vocabulary) for _ in range(tokens)] for _ in range(count)]


def value(text):
    """A value of --set: JSON where it is, else a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--clients", default="1,2,4,8,16")
    parser.add_argument("--texts", type=int, default=4, help="that count, of each client")
    parser.add_argument("--warm-up", type=int, default=1, help="texts of each client before")
    parser.add_argument("--prompts", type=Path, help="a file with one prompt a line [default: random ids]")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=3264, help="random ids are below it")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a field of every request")
    parser.add_argument("--key", help="the API key")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="everything, as JSON")
    return parser.parse_args()


def main():
    given = options()
    counts = [int(count) for count in given.clients.split(",")]
    if given.prompts:
        prompts = [line for line in given.prompts.read_text().splitlines() if line.strip()]
    else:
        number = max(counts) * (given.texts + given.warm_up)
        prompts = random_prompts(number, given.prompt_tokens, given.vocabulary, given.seed)
    fields = {name: value(text) for name, _, text in (pair.partition("=") for pair in given.set)}
    job = Job(prompts, given.new_tokens, given.texts, given.warm_up, fields, given.key)
    print(header(HEADER))
    found = {}
    for count in counts:
        found[count] = measure(given.url, job, count)
        print(row(count, found[count]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
