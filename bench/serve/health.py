"""Health is the truth: live and ready answer within 50 ms while the server works on long prompts.

    python bench/serve/health.py --offramp target/release/offramp
    python bench/serve/health.py --offramp target/release/offramp --model shape/hf --prompt-tokens 2000 --context 2048

Several clients send long prompts, one after another, for as long as `--seconds` says. Beside them both endpoints are
asked every 10 ms, each on a connection that it keeps, and once in a while on a new one. The client's own pauses are
measured as well: an answer counts from when the client could have read it.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

import load
import server
import wire

MOST = 0.050  # seconds
PATHS = ["/health/live", "/health/ready"]
NEW_CONNECTION = 20  # every so many questions


async def questions(url, path, end, found):
    connection, turn = wire.Connection(url), 0
    while time.perf_counter() < end:
        turn += 1
        if turn % NEW_CONNECTION == 0:
            await connection.close()
        began = time.perf_counter()
        reply = await connection.ask("GET", path)
        found.append((time.perf_counter() - began, reply.status))
        await asyncio.sleep(0.01)
    await connection.close()


async def pauses(end, found):
    """How late the client's own loop is."""
    while time.perf_counter() < end:
        began = time.perf_counter()
        await asyncio.sleep(0.01)
        found.append(time.perf_counter() - began - 0.01)


async def prompts(url, job, number, end, found):
    async with wire.Connection(url) as connection:
        turn = 0
        while time.perf_counter() < end:
            turn += 1
            [prompt] = load.random_prompts(1, job.prompt_tokens, job.vocabulary, seed=(number << 20) + turn)
            body = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
            began = time.perf_counter()
            reply = await connection.ask("POST", "/v1/completions", body)
            found.append((time.perf_counter() - began, reply.status))


async def watch(url, job):
    end = time.perf_counter() + job.seconds
    asked, answers, late = [], {path: [] for path in PATHS}, []
    tasks = [prompts(url, job, number, end, asked) for number in range(job.clients)]
    tasks += [questions(url, path, end, answers[path]) for path in PATHS]
    await asyncio.gather(*tasks, pauses(end, late))
    return asked, answers, late


def report(asked, answers, late):
    good = [seconds for seconds, status in asked if status == 200]
    kept = bool(good)
    first = f"p50 {1e3 * load.percentile(good, 0.5):.0f} ms, most {1e3 * max(good):.0f} ms" if good else "none answered"
    print(f"prompts: {len(asked)}, of which {len(good)} answered 200: {first}")
    print(f"the client's own pauses: at most {1e3 * max(late):.1f} ms\n")
    print(load.header(["path", "asked", "not 200", "p50 ms", "p99 ms", "most ms", "promise"]))
    for path, found in answers.items():
        times = [seconds for seconds, _ in found]
        wrong = sum(status != 200 for _, status in found)
        ok = not wrong and max(times) <= MOST + max(late)
        kept &= ok
        cells = [f"`{path}`", len(found), wrong]
        cells += [load.milliseconds(load.percentile(times, share)) for share in (0.5, 0.99, 1)]
        print(f"| {' | '.join(map(str, cells))} | {'kept' if ok else 'BROKEN'} |")
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, help="the offramp binary")
    parser.add_argument("--url", help="of a server that runs already")
    parser.add_argument("--model", type=Path, help="a model folder [default: the carried model]")
    parser.add_argument("--context", type=int, help="the server's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=500)
    parser.add_argument("--vocabulary", type=int, default=3264, help="ids are below it")
    parser.add_argument("--seconds", type=float, default=20)
    job = parser.parse_args()
    if not job.offramp and not job.url:
        parser.error("--offramp or --url")
    arguments = [job.model] + (["--context", job.context] if job.context else [])
    arguments += ["--threads", job.threads] if job.threads else []
    with server.running(job.url, job.offramp, *arguments) as running:
        sys.exit(not report(*asyncio.run(watch(running.url, job))))


if __name__ == "__main__":
    main()
