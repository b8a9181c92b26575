"""Memory is a number: the resident size over many requests, and what happens to those that are too many.

    python bench/serve/memory.py --offramp target/release/offramp
    python bench/serve/memory.py --offramp target/release/offramp --requests 5000

The prompts are short and differ, so that the prefix cache fills to its bound in the warm-up. After it the resident
size is read a hundred times; each must lie within 1 % of the first. Then all at once come four times as many requests
as the server runs and lets wait: those in excess must get 429 with `retry-after`, the others 200.
"""

import argparse
import asyncio
import random
import statistics
import sys
from pathlib import Path

import openings
import server
import wire

SHARE = 0.01
TIMES = 100


async def worker(url, counter, failed):
    async with wire.Connection(url) as connection:
        for number in counter:
            chance = random.Random(number)
            body = {"prompt": openings.opening(chance.randrange(1 << 30)), "max_tokens": chance.randint(1, 4)}
            body |= {"seed": number, "stream": number % 3 == 0}
            reply = await connection.ask("POST", "/v1/completions", body)
            if reply.status != 200:
                failed.append((reply.status, reply.body[:200]))


async def requests(url, first, count, clients):
    """Asks requests `first` to `first + count`; returns those that failed."""
    failed, counter = [], iter(range(first, first + count))
    await asyncio.gather(*[worker(url, counter, failed) for _ in range(clients)])
    return failed


async def steady(running, job):
    failed = await requests(running.url, 0, job.warm_up, job.clients)
    sizes, each = [running.resident()], max(1, (job.requests - job.warm_up) // TIMES)
    for time in range(TIMES):
        failed += await requests(running.url, job.warm_up + time * each, each, job.clients)
        sizes.append(running.resident())
    return sizes, failed


async def once(url, number, new_tokens):
    body = {"prompt": openings.opening(number), "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True}
    return await wire.ask(url, "POST", "/v1/completions", body)


async def excess(url, job):
    """Statuses of a crowd, and what is wrong with its refusals."""
    crowd = 4 * (job.max_texts + job.queue)
    replies = await asyncio.gather(*[once(url, number, job.excess_tokens) for number in range(crowd)])
    wrong = [f"status {reply.status}: {reply.body[:200]!r}" for reply in replies if reply.status not in (200, 429)]
    refused = [reply for reply in replies if reply.status == 429]
    for reply in refused:
        if not reply.headers.get("retry-after", "").isdigit():
            wrong.append(f"a 429 whose retry-after is {reply.headers.get('retry-after')!r}")
        if "error" not in reply.json():
            wrong.append(f"a 429 whose body is {reply.body[:200]!r}")
    if not refused:
        wrong.append(f"none of {crowd} at once was refused")
    served = len([reply for reply in replies if reply.status == 200])
    if served < job.max_texts:
        wrong.append(f"only {served} of {crowd} at once were served")
    return served, len(refused), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--model", type=Path, help="a model folder [default: the carried model]")
    parser.add_argument("--memory", default="64MiB", help="the server's bound of keys, values and prefix cache")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--requests", type=int, default=100_000, help="the warm-up among them")
    parser.add_argument("--warm-up", type=int, help="requests before the size is read [default: a tenth]")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--max-texts", type=int, default=8)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--excess-tokens", type=int, default=200, help="new tokens of each in the crowd")
    job = parser.parse_args()
    job.warm_up = job.warm_up if job.warm_up is not None else job.requests // 10
    arguments = [job.model, "--memory", job.memory, "--max-texts", job.max_texts, "--queue", job.queue]
    arguments += ["--threads", job.threads] if job.threads else []
    with server.offramp(job.offramp, *arguments) as running:
        sizes, failed = asyncio.run(steady(running, job))
        served, refused, wrong = asyncio.run(excess(running.url, job))
        after = running.resident()
    low, high = (100 * (end / sizes[0] - 1) for end in (min(sizes), max(sizes)))
    kept = max(abs(low), abs(high)) <= 100 * SHARE and not failed
    print(f"resident after the warm-up {sizes[0] / 1e6:.1f} MB, then {low:+.2f} to {high:+.2f} %, ", end="")
    print(f"median {statistics.median(sizes) / 1e6:.1f} MB, last {sizes[-1] / 1e6:.1f} MB: ", end="")
    print("kept" if kept else "BROKEN")
    print(f"requests that failed: {len(failed)} {failed[:3] if failed else ''}")
    print(f"a crowd: {served} served, {refused} refused with 429: {'kept' if not wrong else 'BROKEN'}; ", end="")
    print(f"resident after it {after / 1e6:.1f} MB")
    for line in wrong[:10]:
        print(f"  {line}")
    sys.exit(not kept or bool(wrong))


if __name__ == "__main__":
    main()
