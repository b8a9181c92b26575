"""A client that leaves frees its place, and nobody else's bytes change.

    python bench/serve/cancel.py --offramp target/release/offramp
    python bench/serve/cancel.py --offramp target/release/offramp --cancellations 300

First some streams run alone: these are the bytes that must not change. Then they run again and again while others
leave at random: before their first token (of a long prompt), in the middle of their text, and while they wait in the
queue. Before that, with nobody else there, one stream runs and leaves, and `offramp_texts_running` of /metrics is read
until it is 0: that must not take longer than the longest time between two tokens of that stream, and 50 ms for the
asking. At the end nothing may run.
"""

import argparse
import asyncio
import collections
import random
import sys
import time
from pathlib import Path

import load
import openings
import server
import wire

RUNNING = "offramp_texts_running"
ASKING = 0.050  # seconds that reading /metrics may take
PATIENCE = 10.0  # seconds after which a place counts as lost


def keeper_body(number, new_tokens):
    body = {"prompt": openings.opening(number), "max_tokens": new_tokens, "ignore_eos": True, "stream": True}
    return body | openings.sampling(number)


async def whole_text(url, body):
    async with wire.Connection(url) as connection:
        streamed = await connection.stream("/v1/completions", body)
    if streamed.status == 429:
        return None
    if streamed.status != 200 or not streamed.done:
        return f"status {streamed.status}, done {streamed.done}: {streamed.body[:200]!r}"
    return "".join(wire.completion_text(chunk) for chunk in streamed.chunks())


async def keeper(url, number, job, expected, going, tally):
    while going():
        text = await whole_text(url, keeper_body(number, job.keeper_tokens))
        if text is None:
            tally["keepers refused with 429"] += 1
            await asyncio.sleep(0.05)
            continue
        tally["keepers read"] += 1
        if text != expected[number]:
            tally["keepers changed"] += 1
            print(f"keeper {number}: expected {expected[number]!r}, got {text!r}")


async def leave(url, chance, job, tally):
    """One request whose client leaves."""
    where = chance.choice(["prefill", "decode", "anywhere"])
    words = 180 if where == "prefill" else chance.choice([0, 100])
    body = {"prompt": openings.long_opening(chance.randrange(1 << 30), words), "max_tokens": 200, "ignore_eos": True}
    body |= {"stream": chance.random() < 0.8, "seed": 1, "speculate": chance.choice(["auto", "off"])}
    connection = wire.Connection(url)
    if where == "decode" and body["stream"]:
        events = chance.randint(1, 40)
        streaming = connection.stream("/v1/completions", body, lambda found: len(found.events) >= events)
        limit = PATIENCE
    else:
        streaming = connection.ask("POST", "/v1/completions", body)
        limit = chance.uniform(0, job.most_wait)
    try:
        found = await asyncio.wait_for(streaming, limit)
        names = {200: f"left in {where}, with a part or all of it", 429: "refused with 429"}
        tally[names.get(found.status, f"broken: status {found.status}")] += 1
    except TimeoutError:
        tally[f"left in {where}, in time"] += 1
    except (OSError, asyncio.IncompleteReadError, wire.Broken) as error:
        tally[f"broken: {error!r}"] += 1
    connection.leave()


async def leaver(url, chance, job, counter, tally):
    for _ in counter:
        await leave(url, chance, job, tally)


async def running(url):
    reply = await wire.ask(url, "GET", "/metrics")
    return server.metric(reply.body.decode(), RUNNING)


async def until_free(url):
    """Seconds until nothing runs, or None if that takes too long."""
    began = time.perf_counter()
    while time.perf_counter() - began < PATIENCE:
        asked = time.perf_counter()
        if await running(url) == 0:
            return asked - began
    return None


async def one_place(url, number):
    """How long a place stays taken after its client left, and the longest time between two tokens before."""
    body = keeper_body(number, 400)
    async with wire.Connection(url) as connection:
        found = await connection.stream("/v1/completions", body, lambda found: len(found.events) >= 24)
    times = [event.at for event in found.events]
    return await until_free(url), max((after - before for before, after in zip(times, times[1:])), default=0.0)


async def check(url, job):
    tally, chance = collections.Counter(), random.Random(job.seed)
    expected = {number: await whole_text(url, keeper_body(number, job.keeper_tokens)) for number in range(job.keepers)}
    places = [await one_place(url, number) for number in range(job.places)]
    late = [place for place in places if place[0] is None or place[0] > place[1] + ASKING]
    free = [place[0] for place in places if place[0] is not None]
    if free:
        p50, most = load.milliseconds(load.percentile(free, 0.5)), load.milliseconds(max(free))
        gap = load.milliseconds(max(place[1] for place in places))
        print(f"a place is free after p50 {p50} ms, at most {most} ms; tokens were at most {gap} ms apart: ", end="")
    print(f"{len(late)} of {len(places)} late: {'BROKEN' if late else 'kept'}", flush=True)
    counter = iter(range(job.cancellations))
    leavers = [leaver(url, random.Random(chance.random()), job, counter, tally) for _ in range(job.leavers)]
    leaving = asyncio.gather(*leavers)
    keepers = [keeper(url, number, job, expected, lambda: not leaving.done(), tally) for number in range(job.keepers)]
    began = time.perf_counter()
    await asyncio.gather(leaving, *keepers)
    left = await until_free(url)
    for name, count in sorted(tally.items()):
        print(f"  {count:6} {name}")
    print(f"{job.cancellations} cancellations in {time.perf_counter() - began:.0f} s")
    changed = tally["keepers changed"]
    print(f"{tally['keepers read']} texts beside them, {changed} changed: {'BROKEN' if changed else 'kept'}")
    print(f"at the end nothing runs: {'BROKEN' if left is None else 'kept'}")
    broken = [name for name in tally if name.startswith("broken")]
    again = {number: await whole_text(url, keeper_body(number, job.keeper_tokens)) for number in range(job.keepers)}
    kept = not late and not changed and left is not None and not broken and again == expected
    return kept and tally["keepers read"] > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, help="the offramp binary")
    parser.add_argument("--url", help="of a server that runs already, and on which nobody else works")
    parser.add_argument("--model", type=Path, help="a model folder [default: the carried model]")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cancellations", type=int, default=10_000)
    parser.add_argument("--keepers", type=int, default=4, help="streams whose bytes are compared")
    parser.add_argument("--keeper-tokens", type=int, default=100)
    parser.add_argument("--leavers", type=int, default=12, help="clients that leave, at a time: more than places")
    parser.add_argument("--places", type=int, default=50, help="how often a place is timed")
    parser.add_argument("--most-wait", type=float, default=0.1, help="seconds before a client leaves")
    parser.add_argument("--max-texts", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    job = parser.parse_args()
    if not job.offramp and not job.url:
        parser.error("--offramp or --url")
    arguments = [job.model, "--max-texts", job.max_texts] + (["--threads", job.threads] if job.threads else [])
    with server.running(job.url, job.offramp, *arguments) as started:
        sys.exit(not asyncio.run(check(started.url, job)))


if __name__ == "__main__":
    main()
