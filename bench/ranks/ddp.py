"""offramp and PyTorch DDP over gloo, training the same model on the same tokens in turn: A B A B.

    python bench/ranks/ddp.py --offramp target/release/offramp --mpirun PATH/bin/mpirun

Both begin from the same weights, with a loss at every exit, AdamW, f32 and four micro-batches in a step. A round runs
each once: one process with two threads, then two processes of one thread. A run's speed is the median of its steps, the
first ones left out; printed are medians over the rounds with the least and the most.

What is lost to communication is 1 - together / apart, step by step: `apart` are two such processes that exchange
nothing. Waiting for the slower process counts as lost. README.md says how each side is taken apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
STORIES = HERE.parent.parent / "stories" / "train.txt"
sys.path.insert(0, str(HERE.parent / "train_vs_pytorch"))

from compare import PYTORCH_ENVIRONMENT

ACCUMULATION = 4
SEQUENCE_LENGTH = 256
SKIPPED = 2  # steps that touch memory first
ROUNDING = 1e-4  # of losses, relative; rounding grows from step to step
RUN_FOLDER = object()  # in a command, the folder of its run
FIRST = """
[model]
num_hidden_layers = 12
hidden_size = {hidden}
intermediate_size = {feed_forward}
num_attention_heads = 8
num_key_value_heads = 4
max_position_embeddings = 256
"""
START = """
[start]
checkpoint = "{start}"
"""
RECIPE = """
[data]
corpus = "{corpus}"
[training]
steps = {steps}
batch_size = {batch}
accumulation = {accumulation}
sequence_length = 256
precision = "f32"
exact_ranks = {exact}
seed = 0
[optimizer]
learning_rate = 6e-4
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.1
clip = 1.0
[schedule]
warmup_steps = {warmup}
final_fraction = 0.1
[layer_dropout]
shape = "none"
[early_exit]
curriculum = "all"
loss_scale = 0.3
[validation]
every = 100000
[checkpoint]
every = 100000
"""


@dataclass
class Run:
    """What one run says: of each step the tokens in a second, the loss and the norm of the gradient."""

    speeds: list[float]
    losses: list[float]
    norms: list[float]
    apart: list[float] = field(default_factory=list)  # as `speeds`, without exchange
    ranks: float = 0.0  # the share of its steps that offramp's op `ranks` takes


@dataclass
class Started:
    """A command that runs; what it prints goes to files."""

    words: list[str]
    process: subprocess.Popen
    output: Path
    said: Path
    folder: Path

    def finish(self) -> str:
        if self.process.wait() != 0:
            raise SystemExit(f"it failed: {' '.join(self.words)}\n{self.said.read_text()}")
        return self.output.read_text()


class Bench:
    def __init__(self, job: argparse.Namespace, place: Path) -> None:
        self.job, self.place, self.started = job, place, 0
        self.keys = {"batch": job.batch, "corpus": place / "corpus", "exact": job.exact}
        prepare = ["prepare", STORIES, "--vocab-size", 2048, "--out", place / "corpus"]
        self.start([job.offramp, *prepare]).finish()
        sizes = FIRST.format(hidden=job.hidden, feed_forward=3 * job.hidden)
        self.train(self.recipe("first", 1, beginning=sizes), [], job.threads).finish()

    def recipe(self, name: str, steps: int, accumulation: int = ACCUMULATION, beginning: str = "") -> Path:
        beginning = beginning or START.format(start=self.place / "1" / "model")
        sizes = {"steps": steps, "warmup": min(5, steps), "accumulation": accumulation}
        file = self.place / f"{name}.toml"
        file.write_text(beginning + RECIPE.format(**sizes, **self.keys))
        return file

    def start(self, words: list, environment: dict[str, str] | None = None) -> Started:
        name = str(self.started)
        self.started += 1
        output, said = (self.place / f"{name}.{kind}" for kind in ("out", "err"))
        words = [str(self.place / name if word is RUN_FOLDER else word) for word in words]
        with output.open("w") as out, said.open("w") as err:
            everything = os.environ | (environment or {})
            process = subprocess.Popen(words, stdout=out, stderr=err, cwd=self.place, env=everything)
        return Started(words, process, output, said, self.place / name)

    def train(self, recipe: Path, launcher: list, threads: int) -> Started:
        library = {"LD_LIBRARY_PATH": str(self.job.mpirun.parents[1] / "lib")} if launcher else None
        words = [*launcher, self.job.offramp, "train", recipe, "--out", RUN_FOLDER, "--threads", threads, "--json"]
        return self.start(words, library)

    def offramp(self, processes: int) -> Run:
        launcher = [self.job.mpirun, "-n", processes] if processes > 1 else []
        recipe = self.recipe("offramp", self.job.steps)
        started = self.train(recipe, launcher, self.job.threads // processes)
        profile, run = json.loads(started.finish())["profile"], journal(started.folder)
        ranks = {op["op"]: op for op in profile["ops"]}["ranks"]
        run.ranks = (ranks["forward_seconds"] + ranks["backward_seconds"]) / profile["seconds"]
        return run

    def offramp_apart(self, processes: int) -> list[float]:
        recipe = self.recipe("apart", self.job.steps, ACCUMULATION // processes)
        all_of_them = [self.train(recipe, [], self.job.threads // processes) for _ in range(processes)]
        for started in all_of_them:
            started.finish()
        return [sum(each) for each in zip(*(journal(started.folder).speeds for started in all_of_them))]

    def pytorch(self, processes: int) -> Run:
        recipe, script = self.recipe("offramp", self.job.steps), HERE / "ddp_step.py"
        words = [sys.executable, script, recipe, "--processes", processes, "--threads", self.job.threads // processes]
        apart = ["--apart"] if processes > 1 else []
        found = json.loads(self.start([*words, *apart], PYTORCH_ENVIRONMENT).finish().splitlines()[-1])
        steps = found["steps"]
        seconds, losses, norms = ([step[key] for step in steps] for key in ("seconds", "loss", "grad_norm"))
        run = Run(self.speeds(seconds), losses, norms)
        if apart:
            run.apart = self.speeds([step["seconds_apart"] for step in steps])
        return run

    def speeds(self, seconds: list[float]) -> list[float]:
        return [ACCUMULATION * self.job.batch * SEQUENCE_LENGTH / each for each in seconds]


def journal(folder: Path) -> Run:
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "step"]
    return Run(*([step[key] for step in steps] for key in ("tokens_per_second", "loss", "grad_norm")))


def middle(speeds: list[float]) -> float:
    return statistics.median(speeds[SKIPPED:])


def spread(values: list[float], form: str) -> str:
    shown = (format(of(values), form) for of in (statistics.median, min, max))
    return "{} ({} to {})".format(*shown)


def report(who: str, one: list[Run], two: list[Run]) -> None:
    before, after, apart = ([middle(speeds) for speeds in runs] for runs in
                            ([run.speeds for run in one], [run.speeds for run in two], [run.apart for run in two]))
    ratios = [there / here for here, there in zip(before, after)]
    lost = [middle([1 - here / there for here, there in zip(run.speeds, run.apart)]) for run in two]
    cells = ((before, ",.0f"), (after, ",.0f"), (ratios, ".2f"), (apart, ",.0f"), (lost, ".1%"))
    print(" | ".join(["", who, *(spread(values, form) for values, form in cells), ""]).strip())


def difference(here: list[float], there: list[float]) -> float:
    """The largest, relative."""
    return max(abs(one / other - 1) for one, other in zip(here, there, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--mpirun", type=Path, required=True, help="MPICH 5's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help=f"of a run; the first {SKIPPED} are left out")
    parser.add_argument("--hidden", type=int, default=128, help="width of the model")
    parser.add_argument("--batch", type=int, default=4, help="sequences of a micro-batch")
    parser.add_argument("--threads", type=int, default=2, help="of all processes of a run")
    parser.add_argument("--exact", choices=["true", "false"], default="true", help="offramp's training.exact_ranks")
    job = parser.parse_args()
    job.offramp, job.mpirun = job.offramp.resolve(), job.mpirun.resolve()
    for program in (job.offramp, job.mpirun):
        if not program.is_file():
            parser.error(f"there is no {program}")
    if job.threads < 2 or job.steps <= SKIPPED:
        parser.error(f"--threads must be at least 2, and --steps at least {SKIPPED + 1}")
    offramp: tuple[list[Run], list[Run]] = ([], [])
    pytorch: tuple[list[Run], list[Run]] = ([], [])
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(job, Path(place))
        for _ in range(job.rounds):
            for processes in (1, 2):
                offramp[processes - 1].append(bench.offramp(processes))
                pytorch[processes - 1].append(bench.pytorch(processes))
            offramp[1][-1].apart = bench.offramp_apart(2)
    half = job.threads // 2
    heads = ["tokens/s", f"1 process, {job.threads} threads", f"2 processes of {half}", "2 : 1", "2 apart", "lost"]
    print(" | ".join(["", *heads, ""]).strip() + "\n" + "|---" * len(heads) + "|")
    report("offramp", *offramp)
    report("PyTorch DDP", *pytorch)
    for runs, what in zip(offramp, ("1 process, the tree alone", "2 processes")):
        print(f"offramp's op `ranks` in {what}: {spread([run.ranks for run in runs], '.2%')} of a step")
    others = {"offramp, 2 processes": offramp[1], "PyTorch, 1": pytorch[0], "PyTorch, 2": pytorch[1]}
    compare_losses(others, offramp[0][0])


def compare_losses(runs_of: dict[str, list[Run]], first: Run) -> None:
    for who, runs in runs_of.items():
        losses = max(difference(run.losses, first.losses) for run in runs)
        norms = max(difference(run.norms, first.norms) for run in runs)
        print(f"{who}: losses are those of offramp in 1 process within {losses:.0e}, gradient norms {norms:.0e}")
        if losses > ROUNDING:
            raise SystemExit("this is more than rounding: they do not train the same model on the same tokens")


if __name__ == "__main__":
    main()
