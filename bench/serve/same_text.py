"""Load changes nothing: requests of every kind, mixed at random, beside the answers of `offramp generate`.

    python bench/serve/same_text.py --offramp target/release/offramp
    python bench/serve/same_text.py --offramp target/release/offramp --requests 60 --distinct 10 --phases 2

A case is a prompt with its sampling, greedy or seeded, at full depth or at an exit. The command answers each alone,
without speculation. Then the server gets them in phases, by 1 client or by 64, each case several times: with
speculation off, auto or fixed, as a stream or whole, the first time with a cold prefix cache and then with a hot one.
Every second phase is a new server. Text, token ids and logprobs must be the command's, bit for bit.
"""

import argparse
import asyncio
import collections
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import command_texts
import openings
import server
import wire

WAYS = ["off", "auto", "6:4"]


@dataclass
class Case:
    prompt: str
    sampling: dict
    new_tokens: int
    exit_layer: int | None


def cases(job):
    found = []
    for number in range(job.distinct):
        chance = random.Random(number)
        words = chance.choice([0, 0, 0, 60, 120])
        prompt = openings.long_opening(number, words) if words else openings.opening(number)
        exit_layer = chance.choice([None, None, None, *job.exits]) if job.exits else None
        found.append(Case(prompt, openings.sampling(number), chance.choice([8, 32, 64]), exit_layer))
    return found


def body(job, case, chance):
    """A request of this case, in one of the ways that must not matter, and the way's name."""
    how = "off" if case.exit_layer else chance.choice(WAYS)
    stream = chance.random() < 0.5
    asked = {"prompt": case.prompt, "max_tokens": case.new_tokens, "logprobs": job.top, "return_depths": True}
    asked |= case.sampling | {"speculate": how, "stream": stream}
    asked |= {"stream_options": {"include_usage": True}} if stream else {}
    asked |= {"exit_layer": case.exit_layer} if case.exit_layer else {}
    return asked, f"speculate {how}, {'stream' if stream else 'whole'}"


def joined(chunks):
    """The one choice of a stream, as if it had come whole, and its usage."""
    whole = {"text": "", "depths": [], "logprobs": {"token_logprobs": [], "top_logprobs": []}}
    usage = {}
    for chunk in chunks:
        if "error" in chunk:
            raise ValueError(f"an error in the stream: {chunk['error']}")
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            whole["text"] += choice.get("text") or ""
            whole["depths"] += choice.get("depths") or []
            for name, values in whole["logprobs"].items():
                values += (choice.get("logprobs") or {}).get(name) or []
    return whole, usage


async def answer(connection, asked):
    if asked["stream"]:
        streamed = await connection.stream("/v1/completions", asked)
        if streamed.status != 200 or not streamed.done:
            raise ValueError(f"status {streamed.status}, done {streamed.done}: {streamed.body[:300]!r}")
        return joined(streamed.chunks())
    reply = await connection.ask("POST", "/v1/completions", asked)
    if reply.status != 200:
        raise ValueError(f"status {reply.status}: {reply.body[:300]!r}")
    whole = reply.json()
    return whole["choices"][0], whole["usage"]


class Tally:
    def __init__(self):
        self.asked, self.wrong = collections.Counter(), []
        self.cold = self.hot = 0

    def note(self, phase, number, way, usage, problem):
        self.asked[way] += 1
        if (usage.get("prompt_tokens_details") or {}).get("cached_tokens"):
            self.hot += 1
        else:
            self.cold += 1
        if problem:
            self.wrong.append(f"{phase}, case {number}, {way}: {problem}")


async def client(url, job, todo, expected, tally, phase):
    async with wire.Connection(url) as connection:
        while todo:
            number, case, asked, way = todo.pop()
            usage, problem = {}, None
            try:
                served, usage = await answer(connection, asked)
                problem = command_texts.difference(expected[number], served)
            except (ValueError, KeyError, TypeError, OSError, wire.Broken, asyncio.IncompleteReadError) as error:
                problem = repr(error)
                await connection.close()
            tally.note(phase, number, way, usage, problem)


async def run_phase(url, job, everything, expected, tally, phase):
    chance = random.Random(job.seed + phase)
    clients = chance.choice([1, 64]) if phase else 64
    count = job.requests * (phase + 1) // job.phases - job.requests * phase // job.phases
    numbers = [chance.randrange(len(everything)) for _ in range(count)]
    todo = [(number, everything[number], *body(job, everything[number], chance)) for number in numbers]
    name = f"phase {phase} with {clients} client{'s' if clients > 1 else ''}"
    began, before = time.perf_counter(), len(tally.wrong)
    await asyncio.gather(*[client(url, job, todo, expected, tally, name) for _ in range(clients)])
    seconds, wrong = time.perf_counter() - began, len(tally.wrong) - before
    print(f"{name}: {count} requests in {seconds:.1f} s, {wrong} differ", flush=True)


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--model", type=Path, help="a model folder [default: the carried model]")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=200, help="cases, each asked of the command once")
    parser.add_argument("--phases", type=int, default=10, help="with 1 client or 64; a new server every second phase")
    parser.add_argument("--exits", default="12", help="exit layers of some cases, or nothing")
    parser.add_argument("--top", type=int, default=3, help="most likely tokens beside each")
    parser.add_argument("--memory", default="256MiB", help="the server's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    job = options()
    job.offramp = job.offramp.resolve()
    job.exits = [int(exit_layer) for exit_layer in job.exits.split(",") if exit_layer]
    everything, tally = cases(job), Tally()
    expected = [command_texts.ask(job, case) for case in everything]
    print(f"{len(expected)} cases answered by the command", flush=True)
    arguments = [job.model, "--max-texts", 16, "--queue", 64, "--memory", job.memory]
    arguments += ["--threads", job.threads] if job.threads else []
    for phase in range(0, job.phases, 2):
        with server.offramp(job.offramp, *arguments) as running:
            for one in range(phase, min(phase + 2, job.phases)):
                asyncio.run(run_phase(running.url, job, everything, expected, tally, one))
    for way, count in sorted(tally.asked.items()):
        print(f"  {count:5} {way}")
    print(f"prefix cache: {tally.cold} cold, {tally.hot} hot")
    for line in tally.wrong[:20]:
        print(line)
    total = sum(tally.asked.values())
    verdict = "BROKEN" if tally.wrong else "kept"
    print(f"{total - len(tally.wrong)} of {total} are the command's, bit for bit: {verdict}")
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
