"""offramp against llama.cpp on many texts at once, in turn: A B A B, on the same machine, shape and threads.

    python bench/many_texts/compare.py --offramp target/release/offramp
    python bench/many_texts/compare.py --offramp target/release/offramp int8=Q8_0 --texts 1,8,16 --rounds 3

Every pair is an offramp format and a llama.cpp type, as in decode_vs_llama_cpp. A round runs offramp and then
llama.cpp, each in a process of its own, at every number of texts. The figures are medians over all samples, with the
least and the most.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "decode_vs_llama_cpp"))

import compare as one_text
import gguf_files

PAIRS = ["bf16=BF16", "int8=Q8_0", "int4=Q4_0", "ternary/int8=TQ2_0"]
HEADER = ["texts", "decode tokens/s: offramp", "llama.cpp", "ratio", "of one text: offramp", "llama.cpp"]
HEADER += ["prefill tokens/s: offramp", "llama.cpp", "ratio"]


class Figures:
    """Tokens per second of all texts together, by their number, over all rounds."""

    def __init__(self, texts):
        self.prefill = {count: [] for count in texts}
        self.decode = {count: [] for count in texts}
        # The share of the time that is not in these figures: Python's, between calls of llama.cpp.
        self.outside = []
        # The share of the processors that other programs took.
        self.taken_by_others = []

    def of_one_text(self, count):
        """How many times as many tokens as one text gives."""
        if not self.decode.get(1) or not self.decode[count]:
            return "-"
        return f"{statistics.median(self.decode[count]) / statistics.median(self.decode[1]):.2f}x"


def offramp(job, formats, figures):
    layers, _, head = formats.partition("/")
    command = [job.offramp, "bench", "--config", job.recipe, "--format", layers, "--kv-cache", "f16", "--json"]
    command += ["--head-format", head] if head else []
    command += ["--texts", ",".join(map(str, job.texts)), "--runs", job.samples, "--threads", job.threads]
    command += ["--prompt-tokens", job.prompt_tokens, "--new-tokens", job.new_tokens]
    [report] = json.loads(one_text.run(command))["reports"]
    for row in report["texts"]:
        figures.prefill[row["texts"]].append(row["prefill"]["median"])
        figures.decode[row["texts"]] += row["decode_samples"]
    figures.taken_by_others.append(report["taken_by_others"])


def llama_cpp(job, kind, figures):
    with one_text.Peer(HERE / "llama_cpp_texts.py", job, kind) as peer:
        for count in job.texts:
            seconds = peer.ask(count, job.prompt_tokens, job.new_tokens, job.samples)
            figures.prefill[count].append(count * job.prompt_tokens / seconds["prefill"])
            figures.decode[count] += [count * (job.new_tokens - 1) / decode for decode in seconds["decode"]]
            figures.outside += [outside / decode for outside, decode in zip(seconds["outside"], seconds["decode"])]


def row(count, ours, theirs):
    """A row of the table; its numbers stand under `HEADER`."""
    cells = [count]
    cells += [one_text.spread(ours.decode[count]), one_text.spread(theirs.decode[count])]
    cells += [one_text.ratio(ours.decode[count], theirs.decode[count])]
    cells += [ours.of_one_text(count), theirs.of_one_text(count)]
    cells += [one_text.spread(ours.prefill[count], 0), one_text.spread(theirs.prefill[count], 0)]
    cells += [one_text.ratio(ours.prefill[count], theirs.prefill[count])]
    return f"| {' | '.join(map(str, cells))} |"


def compare(job, pair):
    formats, kind = pair.split("=")
    ours, theirs = Figures(job.texts), Figures(job.texts)
    for _ in range(job.rounds):
        offramp(job, formats, ours)
        llama_cpp(job, kind, theirs)
    print(f"\n{formats} beside {kind}\n\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for count in job.texts:
        print(row(count, ours, theirs), flush=True)
    return {"pair": pair, "threads": job.threads, "offramp": vars(ours), "llama_cpp": vars(theirs)}


def summary(job, found):
    outside = max(share for pair in found for share in pair["llama_cpp"]["outside"])
    taken = [share for pair in found for share in pair["offramp"]["taken_by_others"] if share is not None]
    print(f"\nprompts {job.prompt_tokens}, new {job.new_tokens} of each text, threads {job.threads}; {job.system}")
    print(f"Python between calls of llama.cpp, not counted: at most {100 * outside:.2f} % of the time")
    if taken:
        print(f"other programs took at most {100 * max(taken):.0f} % of the processors beside offramp")


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=PAIRS, help=f"[default: {' '.join(PAIRS)}]")
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--recipe", type=Path, default=HERE.parent.parent / "recipes" / "llama3-earlyexit.toml")
    parser.add_argument("--work", type=Path, help="where GGUF files are made and kept [default: nowhere]")
    parser.add_argument("--texts", default="1,2,4,8,16")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="A B, so often")
    parser.add_argument("--samples", type=int, default=1, help="of decoding, in a round")
    parser.add_argument("--out", type=Path, help="every sample, as JSON")
    parser.add_argument("--peer-options", default="", help="for llama_cpp_texts.py, e.g. '--kv-unified'")
    return parser.parse_args()


def main():
    job = options()
    job.offramp, job.system = job.offramp.resolve(), ""
    job.texts = [int(count) for count in job.texts.split(",")]
    job.peer_options = job.peer_options.split()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        job.work = job.work or Path(folder)
        job.work.mkdir(parents=True, exist_ok=True)
        gguf_files.make(job.work, job.recipe, [pair.split("=")[1] for pair in job.pairs])
        for pair in job.pairs:
            found.append(compare(job, pair))
            if job.out:
                job.out.write_text(json.dumps({"peer": job.system, "found": found}, indent=1))
    summary(job, found)


if __name__ == "__main__":
    main()
