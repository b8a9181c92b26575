"""offramp against llama.cpp on one user's model, in turn: A B A B, on the same machine, shape and threads.

    python bench/decode_vs_llama_cpp/compare.py --offramp target/release/offramp --threads 1,2
    python bench/decode_vs_llama_cpp/compare.py --offramp target/release/offramp int4=Q4_0 --rounds 3

Every pair is an offramp format and a llama.cpp type (`int4/int8=Q4_K_M`: layers in int4, the head in int8). The
weights are random, in the shape of the recipe. A round runs offramp and then llama.cpp, each in a process of its
own, so that its memory is given back. A decode sample counts only if the memory was read equally fast before and
after it, within 10 %; what is short of counted samples after the rounds is made up in further ones. The figures are
medians over counted samples, with the least and the most.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf_files

HERE = Path(__file__).resolve().parent
PAIRS = ["f32=F32", "bf16=BF16", "int8=Q8_0", "int4=Q4_0", "int4=Q4_K_M", "ternary/int4=TQ2_0", "ternary/int8=TQ2_0"]
# Further rounds for each that was asked for, before what there is must do.
PATIENCE = 2


class Figures:
    """What one contestant was measured at, over all rounds."""

    def __init__(self, prompts):
        self.prefill = {prompt: [] for prompt in prompts}
        self.decode = []  # tokens/s of counted samples
        self.share = []  # of the bandwidth beside each
        self.repeated = 0
        self.peak = 0
        self.bytes_per_token = None

    def sample(self, tokens_per_second, before, after):
        if abs(before - after) > 0.1 * max(before, after):
            self.repeated += 1
            return
        self.decode.append(tokens_per_second)
        self.share.append(tokens_per_second * self.bytes_per_token / ((before + after) / 2))


def offramp(job, formats, figures):
    layers, _, head = formats.partition("/")
    command = [job.offramp, "bench", "--config", job.recipe, "--format", layers, "--exits", job.exits]
    command += ["--head-format", head] if head else []
    command += ["--kv-cache", "f16", "--threads", job.threads, "--json"]
    for index, prompt in enumerate(job.prompts):
        # Decoding is measured after the first prompt.
        decode = [job.samples, job.new_tokens] if index == 0 else [job.prefills, 1]
        sizes = ["--prompt-tokens", prompt, "--runs", decode[0], "--new-tokens", decode[1], "--verify", 0]
        report = json.loads(run(command + sizes))["reports"][0]
        [full] = [exit for exit in report["exits"] if exit["exit_layer"] == job.layers]
        figures.prefill[prompt] += [prompt / seconds for seconds in full["prefill_samples"]]
        figures.peak = max(figures.peak, report["memory"]["peak"])
        if index == 0:
            figures.bytes_per_token = full["bytes_per_token"]
            for sample in full["decode_samples"]:
                rate = job.new_tokens / sample["seconds"]
                figures.sample(rate, sample["bandwidth_before"], sample["bandwidth_after"])


class Peer:
    """llama.cpp with one model, in a process of its own that answers a line with a line."""

    def __init__(self, script, job, kind):
        self.kind = kind
        command = [sys.executable, script, gguf_files.path(job.work, kind), "--threads", job.threads, *job.peer_options]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(list(map(str, command)), **pipes)
        about = self.answer()
        job.system = f"llama-cpp-python {about['version']}, {about['system']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"llama.cpp died of {self.kind} ({self.process.wait()}): see decode_vs_llama_cpp/README.md")
        return json.loads(line)


def llama_cpp(job, kind, figures):
    with Peer(HERE / "llama_cpp_speed.py", job, kind) as peer:
        figures.bytes_per_token = gguf_files.bytes_per_token(gguf_files.path(job.work, kind), job.prompts[0])
        peer.ask("decode", job.prompts[0], 4)  # the warm-up
        for prompt in job.prompts:
            for _ in range(job.prefills):
                figures.prefill[prompt].append(prompt / peer.ask("prefill", prompt)["seconds"])
        before = probe(job)
        for _ in range(job.samples):
            seconds = peer.ask("decode", job.prompts[0], job.new_tokens)["seconds"]
            after = probe(job)
            figures.sample(job.new_tokens / seconds, before, after)
            before = after
        figures.peak = max(figures.peak, peer.ask("decode", 1, 1)["peak_memory"])


def probe(job):
    answer = json.loads(run([job.offramp, "bench", "--probe", "--threads", job.threads, "--json"]))
    return answer["bandwidth"]["median"]


def run(command):
    ran = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        sys.exit(f"it failed: {' '.join(map(str, command))}")
    return ran.stdout


def spread(values, digits=1):
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratio(ours, theirs):
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}x" if ours and theirs else "-"


def compare(job, pair):
    formats, kind = pair.split("=")
    ours, theirs = Figures(job.prompts), Figures(job.prompts)
    for _ in range(job.rounds * (1 + PATIENCE)):
        offramp(job, formats, ours)
        llama_cpp(job, kind, theirs)
        if min(len(ours.decode), len(theirs.decode)) >= max(job.counted, job.rounds * job.samples // 2):
            break
    columns = [f"{'prefill ' + str(prompt):>22}" for prompt in job.prompts]
    print(f"\n{pair}, {job.threads} threads{'':10} {'decode tokens/s':>22} {'of bandwidth':>18}", *columns, "     peak")
    for name, figures in [(formats, ours), (kind, theirs)]:
        share = spread([100 * share for share in figures.share], 0) + " %"
        prefill = [f"{spread(figures.prefill[prompt]):>22}" for prompt in job.prompts]
        peak = f"{figures.peak / 1e6:,.0f} MB"
        counted = f"{len(figures.decode)} counted, {figures.repeated} not"
        print(f"  {name:10} {figures.bytes_per_token / 1e6:8.0f} MB/token", end="")
        print(f" {spread(figures.decode):>22} {share:>18}", *prefill, f"{peak:>9}   {counted}")
    ratios = [f"{ratio(ours.prefill[prompt], theirs.prefill[prompt]):>22}" for prompt in job.prompts]
    print(f"  {'ratio':27} {ratio(ours.decode, theirs.decode):>22} {'':18}", *ratios, flush=True)
    return {"pair": pair, "threads": job.threads, "offramp": vars(ours), "llama_cpp": vars(theirs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=PAIRS, help=f"of {' '.join(PAIRS)} [default: all]")
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--recipe", type=Path, default=HERE.parent.parent / "recipes" / "llama3-earlyexit.toml")
    parser.add_argument("--work", type=Path, help="where GGUF files are made and kept [default: nowhere]")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--prompts", default="128,512")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2, help="A B, so often")
    parser.add_argument("--samples", type=int, default=3, help="of decoding, in a round")
    parser.add_argument("--prefills", type=int, default=2, help="of each prompt, in a round")
    parser.add_argument("--counted", type=int, default=5, help="samples of decoding, at least")
    parser.add_argument("--out", type=Path, help="every sample, as JSON")
    parser.add_argument("--peer-options", default="", help="for llama_cpp_speed.py, e.g. '--mmap'")
    job = parser.parse_args()
    job.offramp = job.offramp.resolve()
    job.prompts = [int(prompt) for prompt in job.prompts.split(",")]
    job.peer_options, job.system = job.peer_options.split(), ""
    job.layers = job.exits = gguf_files.layers(job.recipe)
    threads, found = [int(count) for count in job.threads.split(",")], []
    with tempfile.TemporaryDirectory() as folder:
        job.work = job.work or Path(folder)
        job.work.mkdir(parents=True, exist_ok=True)
        gguf_files.make(job.work, job.recipe, [pair.split("=")[1] for pair in job.pairs])
        for job.threads in threads:
            for pair in job.pairs:
                found.append(compare(job, pair))
                if job.out:
                    job.out.write_text(json.dumps({"peer": job.system, "found": found}, indent=1))
    print(f"\n{job.system}")


if __name__ == "__main__":
    main()
