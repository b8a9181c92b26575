"""Speculation never loses: one offramp server, `speculate` auto and off in turn, A B B A, at each number of clients.

    python bench/serve/speculation.py --offramp target/release/offramp --rounds 20
    python bench/serve/speculation.py --offramp target/release/offramp --model runs/first-light/model --rounds 5

The ratio is the geometric mean over the rounds, of total tokens/s, with its standard error; it must be 0.98 or more
everywhere. Rounds differ by a tenth, so it takes a hundred of them to see a hundredth. With one client the server's ratio
stands beside that of `offramp generate --speculate auto` and `off`, in turn as well.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import load
import openings
import server

LEAST = 0.98
HEADER = ["clients", "auto tokens/s", "off tokens/s", "ratio", "± standard error", "accepted", "failed", "promise"]


def command_rate(job, number, how):
    """Decoded tokens per second of the command."""
    words = [job.offramp, "generate", *([job.model] if job.model else []), "--json", "--speculate", how]
    words += ["--prompt", openings.opening(number), "--max-new-tokens", job.new_tokens, "--temperature", 0]
    words += ["--threads", job.threads] if job.threads else []
    ran = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout)["decode_tokens_per_second"]


def of_command(job):
    """Median tokens per second of `generate`, by way."""
    found = {"auto": [], "off": []}
    for number in range(job.command_runs):
        for how in found:
            rate = command_rate(job, number, how)
            found[how] += [rate] if rate else []
    return {how: statistics.median(rates) for how, rates in found.items()}


def accepted(running, before):
    """The share of drafted tokens that were accepted since `before`, and the counts now."""
    now = [running.metric(f"offramp_{name}_total") for name in ("drafted_tokens", "accepted_tokens")]
    drafted = now[0] - before[0]
    return (now[1] - before[1]) / drafted if drafted else None, now


def counts(running):
    try:
        return accepted(running, [0, 0])[1]
    except SystemExit:
        return None  # a server whose metrics have other names


def measure(job, running, clients):
    """Figures of every round, by way, and the share of accepted tokens."""
    found = {"auto": [], "off": []}
    before = counts(running)
    for turn in range(job.rounds):
        # A B B A: who comes second finds the first one's prompts in the cache.
        for how in list(found) if turn % 2 == 0 else reversed(list(found)):
            prompts = [openings.opening(1000 * turn + number) for number in range(clients * (job.texts + job.warm_up))]
            fields = {"speculate": how, "temperature": job.temperature, "seed": turn, "ignore_eos": job.ignore_eos}
            asked = load.Job(prompts, job.new_tokens, job.texts, job.warm_up, fields)
            found[how].append(load.measure(running.url, asked, clients))
    return found, accepted(running, before)[0] if before else None


def row(clients, found, share):
    rates = {how: [one["tokens_per_second"] for one in figures] for how, figures in found.items()}
    middle = {how: statistics.median(values) for how, values in rates.items()}
    failed = sum(one["failed"] for figures in found.values() for one in figures)
    logs = [math.log(auto / off) for auto, off in zip(rates["auto"], rates["off"]) if auto and off]
    ratio = math.exp(statistics.mean(logs)) if logs else 0
    error = ratio * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    kept = ratio >= LEAST and not failed
    cells = [clients, f"{middle['auto']:.1f}", f"{middle['off']:.1f}", f"{ratio:.3f}", f"{error:.3f}"]
    cells += ["-" if share is None else f"{100 * share:.0f} %", failed, "kept" if kept else "BROKEN"]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return kept


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--url", help="of a server that runs already")
    parser.add_argument("--model", type=Path, help="a model folder [default: the carried model]")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clients", default="1,2,4,8,16")
    parser.add_argument("--rounds", type=int, default=100, help="A B, so often")
    parser.add_argument("--texts", type=int, default=4, help="of each client in a round")
    parser.add_argument("--warm-up", type=int, default=1, help="texts of each client before every round")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--ignore-eos", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--command-runs", type=int, default=5, help="of `generate`, in turn; 0 for none")
    parser.add_argument("--out", type=Path, help="every round, as JSON")
    return parser.parse_args()


def main():
    job = options()
    job.offramp = job.offramp.resolve()
    numbers = [int(count) for count in job.clients.split(",")]
    arguments = [job.model, "--max-texts", max(numbers)] + (["--threads", job.threads] if job.threads else [])
    all_found, kept = {}, True
    with server.running(job.url, job.offramp, *arguments) as running:
        print(load.header(HEADER))
        for clients in numbers:
            found, share = measure(job, running, clients)
            all_found[clients] = found
            kept &= row(clients, found, share)
    if job.command_runs:
        rates = of_command(job)
        ratio = rates["auto"] / rates["off"]
        print(f"\n`generate`: auto {rates['auto']:.1f} tokens/s, off {rates['off']:.1f}, ratio {ratio:.3f}")
        all_found["generate"] = rates
    if job.out:
        job.out.write_text(json.dumps(all_found, indent=1))
    sys.exit(not kept)


if __name__ == "__main__":
    main()
