"""Decoding with one thread and with the default number, alone and beside busy processes, in turn.

    python bench/busy_machine/compare.py --offramp target/release/offramp
    python bench/busy_machine/compare.py --offramp target/release/offramp --before other/offramp --models carried

See README.md beside this file.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys

# What `offramp bench` is asked to time, and tokens of a sample: some hundredths of a second and more.
MODELS = {
    "carried": ([], 24, 256),
    "shape": (["--config", "{recipe}", "--format", "int8"], 24, 16),
}


@contextlib.contextmanager
def busy(processes):
    """Beside so many processes that never wait."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def decode(binary, model, threads, job):
    """Decoded tokens per second: the median of a process's samples."""
    arguments, exit_layer, new_tokens = MODELS[model]
    command = [binary, "bench", "--json", "--exits", exit_layer, "--runs", job.samples, "--verify", 0]
    command += ["--prompt-tokens", 16, "--new-tokens", new_tokens]
    command += [argument.format(recipe=job.recipe) for argument in arguments]
    command += ["--threads", threads] if threads else []
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, text=True)
    [exit] = json.loads(done.stdout)["reports"][0]["exits"]
    return statistics.median(new_tokens / sample["seconds"] for sample in exit["decode_samples"])


def spread(values, digits):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offramp", required=True, help="the program")
    parser.add_argument("--before", help="another build of it, in turn with it")
    parser.add_argument("--recipe", default="recipes/llama3-earlyexit.toml", help="whose shape is measured")
    parser.add_argument("--models", default="carried,shape", help="carried, shape or both")
    parser.add_argument("--conditions", default="0,2", help="how many busy processes, in turn")
    parser.add_argument("--threads", default="1,default", help="numbers of threads, in turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=3, help="of each process")
    job = parser.parse_args()
    builds = {"now": job.offramp} | ({"before": job.before} if job.before else {})
    threads = [None if name == "default" else int(name) for name in job.threads.split(",")]
    for model in job.models.split(","):
        found = {}
        for round in range(job.rounds):
            for processes in map(int, job.conditions.split(",")):
                with busy(processes):
                    for name, binary in builds.items():
                        for count in threads:
                            speed = decode(binary, model, count, job)
                            found.setdefault((processes, name, count), []).append(speed)
                            print(f"round {round} {model} {processes} {name} {count}: {speed:.4g}", file=sys.stderr)
        print(f"{model}, tokens/s, medians of {job.rounds} rounds (least-most)")
        for (processes, name, count), speeds in found.items():
            line = f"  {processes} busy processes, {name:6} {count or 'default':>7} threads: {spread(speeds, 1):28}"
            one = found.get((processes, name, 1))
            if count is None and one:
                line += f" of one thread's: {spread([a / b for a, b in zip(speeds, one)], 2)}"
            before = found.get((processes, "before", count))
            if name == "now" and before:
                line += f" of the build before: {spread([a / b for a, b in zip(speeds, before)], 2)}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
