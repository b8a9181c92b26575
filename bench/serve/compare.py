"""offramp beside a stock llama-server, in turn: A B A B, on the same machine, shape, threads and client.

    python bench/serve/compare.py --offramp target/release/offramp --llama-server llama-server --work shape
    python bench/serve/compare.py --offramp target/release/offramp --llama-server "python xllamacpp_server.py"

Every pair is an offramp format and a GGUF type. A round starts offramp, drives it at every number of clients and stops
it, then does the same with llama-server. The figures are medians over the rounds. With 8 clients offramp must give 1.5
times the tokens per second, and no worse p50 and p99 of the time to the first token and of the time between tokens.
"""

import argparse
import json
import os
import shlex
import socket
import statistics
import sys
import tempfile
from pathlib import Path

import card_shape
import load
import server

HERE = Path(__file__).resolve().parent
LEAST = 1.5
PROMISED = 8  # clients
TOKENIZER = HERE.parents[1] / "models" / "tinystories-24" / "tokenizer.json"
PAIRS = ["int8=Q8_0", "int4/int8=Q4_0"]
HEADER = ["clients", "server", *load.HEADER[1:]]


def offramp(job, formats):
    layers, _, head = formats.partition("/")
    words = [job.folder, "--format", layers, "--threads", job.threads, "--max-texts", max(job.clients)]
    words += ["--head-format", head] if head else []
    words += ["--kv-cache", "f16", "--speculate", "off", "--context", job.context, *job.offramp_options]
    return server.offramp(job.offramp, *words)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def llama_server(job, kind):
    port, slots = free_port(), max(job.clients)
    words = [*job.llama_server, "-m", card_shape.gguf_path(job.work, kind), "--host", "127.0.0.1", "--port", port]
    words += ["-t", job.threads, "-tb", job.threads, "-np", slots, "-c", slots * job.context]
    words += ["-fa", "on", *job.llama_options]
    return server.Server(words, f"http://127.0.0.1:{port}", os.environ | job.environment)


def measured(job, started):
    found = {}
    with started as running:
        for clients in job.clients:
            number = clients * (job.texts + job.warm_up)
            prompts = load.random_prompts(number, job.prompt_tokens, job.vocabulary, seed=clients)
            asked = load.Job(prompts, job.new_tokens, job.texts, job.warm_up)
            found[clients] = load.measure(running.url, asked, clients)
            wanted = clients * job.texts * job.new_tokens
            if found[clients]["failed"] or found[clients]["tokens"] != wanted:
                print(f"{running.command[0]}: {found[clients]['tokens']} of {wanted} tokens, ", end="", file=sys.stderr)
                print(f"{found[clients]['failed']} texts failed {found[clients]['errors']}", file=sys.stderr)
    return found


def middle(rounds):
    """Medians over rounds, in the form of one round's figures."""
    found = {name: statistics.median(one[name] for one in rounds) for name in ("tokens_per_second", "failed")}
    for name in ("first", "between", "per_token"):
        found[name] = {}
        for share in ("p50", "p99"):
            known = [one[name][share] for one in rounds if one[name][share] is not None]
            found[name][share] = statistics.median(known) if known else None
    return found


def verdict(clients, ours, theirs):
    """What is short of the promise, as sentences."""
    ratio = ours["tokens_per_second"] / theirs["tokens_per_second"] if theirs["tokens_per_second"] else 0
    print(f"| {clients} | ratio | {ratio:.2f}x |" + " |" * (len(HEADER) - 3))
    if clients != PROMISED:
        return []
    short = [] if ratio >= LEAST else [f"{ratio:.2f} times the tokens/s, not {LEAST}"]
    for name in ("first", "between"):
        for share in ("p50", "p99"):
            mine, other = ours[name][share], theirs[name][share]
            if mine is None or other is None or mine > other:
                times = f"{load.milliseconds(mine)} ms beside {load.milliseconds(other)} ms"
                short.append(f"{share} of {name}: {times}")
    return short


def compare(job, pair):
    formats, kind = pair.split("=")
    rounds = {"offramp": [], "llama-server": []}
    for turn in range(job.rounds):
        rounds["offramp"].append(measured(job, offramp(job, formats)))
        rounds["llama-server"].append(measured(job, llama_server(job, kind)))
        print(f"{pair}: round {turn + 1} of {job.rounds}", file=sys.stderr, flush=True)
    print(f"\n{formats} beside {kind}\n\n{load.header(HEADER)}")
    short = []
    for clients in job.clients:
        sides = {name: middle([one[clients] for one in found]) for name, found in rounds.items()}
        for name, figures in sides.items():
            print(load.row(f"{clients} | {name}", figures))
        short += verdict(clients, sides["offramp"], sides["llama-server"])
    print("\n" + ("BROKEN: " + "; ".join(short) if short else "kept"), flush=True)
    return {"pair": pair, "rounds": rounds, "short": short}


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=PAIRS, help=f"[default: {' '.join(PAIRS)}]")
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--llama-server", type=shlex.split, required=True, help="the command that starts llama-server")
    parser.add_argument("--library-path", help="LD_LIBRARY_PATH of llama-server, where it needs one")
    parser.add_argument("--recipe", type=Path, default=HERE.parents[1] / "recipes" / "llama3-earlyexit.toml")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    parser.add_argument("--work", type=Path, help="where the weights are made and kept [default: nowhere]")
    parser.add_argument("--clients", default="1,8")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--texts", type=int, default=2, help="of each client in a round")
    parser.add_argument("--warm-up", type=int, default=1, help="texts of each client before them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="A B, so often")
    parser.add_argument("--offramp-options", type=shlex.split, default=[], help="further ones")
    parser.add_argument("--llama-options", type=shlex.split, default=[], help="further ones, e.g. '--device none'")
    parser.add_argument("--out", type=Path, help="every round, as JSON")
    return parser.parse_args()


def main():
    job = options()
    job.clients = [int(count) for count in job.clients.split(",")]
    job.environment = {"LD_LIBRARY_PATH": job.library_path} if job.library_path else {}
    job.vocabulary = card_shape.shape(job.recipe)["vocab_size"]
    # A block of 32 positions more than a text needs.
    job.context = job.prompt_tokens + job.new_tokens + 32
    found = []
    with tempfile.TemporaryDirectory() as folder:
        job.work = job.work or Path(folder)
        job.folder = card_shape.make(job.work, job.recipe, job.tokenizer, [pair.split("=")[1] for pair in job.pairs])
        for pair in job.pairs:
            found.append(compare(job, pair))
            if job.out:
                job.out.write_text(json.dumps(found, indent=1))
    sys.exit(any(pair["short"] for pair in found))


if __name__ == "__main__":
    main()
