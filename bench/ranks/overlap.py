"""Two hosts with a slow cable: gradients that go out while the backward goes on, and gradients that go out after it.

    python bench/ranks/overlap.py target/release/offramp --mpirun PATH/bin/mpirun --gbit 1 --delay-ms 1

Needs root, /dev/net/tun and network namespaces (crates/ranks/hosts/link.py). Both ways are one program: a bucket that is
larger than all layers together is there when the backward ends. They run in turn; a way's speed is the median of its
steps, the first three left out. The prediction is that of `offramp train --plan`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from run import RECIPE

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / "crates/ranks/hosts"


def steps(folder: Path) -> float:
    """Seconds of a step."""
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    rates = [record["tokens_per_second"] for record in records if record.get("tokens_per_second")]
    tokens = next(record["tokens"] for record in records if record.get("tokens"))
    return tokens / statistics.median(rates[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("offramp", type=Path)
    parser.add_argument("--mpirun", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--gbit", type=float, default=1.0)
    parser.add_argument("--delay-ms", type=float, default=1.0, help="one way")
    job = parser.parse_args()
    words = [sys.executable, HOSTS / "link.py", "--gbit", str(job.gbit), "--delay-ms", str(job.delay_ms)]
    link = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert link.stdout and link.stdout.readline() == "ready\n"
    mpirun = job.mpirun.resolve()
    # One machine's memory would carry everything: only TCP is left.
    environment = os.environ | {"LD_LIBRARY_PATH": str(mpirun.parents[1] / "lib"), "UCX_TLS": "tcp,self"}
    launcher = ["ip", "netns", "exec", "ranks-a", mpirun, "-launcher-exec", HOSTS / "on_host"]
    launcher += ["-hosts", "10.77.0.1,10.77.0.2", "-n", "2"]
    ways = {"one process, one thread": None, "layer by layer": "1", "all at once": "100000"}
    found: dict[str, list[float]] = {way: [] for way in ways}
    try:
        with tempfile.TemporaryDirectory() as place:
            recipe = Path(place) / "recipe.toml"
            sizes = {"hidden": job.hidden, "feed_forward": 3 * job.hidden, "batch": job.batch}
            keys = sizes | {"steps": job.steps, "precision": "f32", "exact": "true", "root": ROOT}
            recipe.write_text(RECIPE.format(**keys))
            for number in range(job.rounds):
                for index, (way, bucket) in enumerate(ways.items()):
                    folder = Path(place) / f"{number}-{index}"
                    command = [job.offramp.resolve(), "train", recipe, "--out", folder, "--threads", "1"]
                    if bucket:
                        command = [*launcher, *command, "--bucket-cap-mb", bucket]
                    subprocess.run(command, check=True, env=environment, capture_output=True, cwd=place)
                    found[way].append(steps(folder))
    finally:
        link.send_signal(signal.SIGTERM)
        link.wait()
    alone = statistics.median(found["one process, one thread"])
    for way, seconds in found.items():
        median = statistics.median(seconds)
        share = "" if way.startswith("one") else f"  {alone / 2 / median:.2f} of half of one process's"
        print(f"{way:24} {1e3 * median:7.0f} ms a step ({1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f}){share}")


if __name__ == "__main__":
    main()
