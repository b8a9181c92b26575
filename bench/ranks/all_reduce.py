"""A sum over two ranks, ours and the MPI library's own, in turn, over one library and one launcher.

    python bench/ranks/all_reduce.py target/release/examples/all_reduce --mpirun PATH/bin/mpirun

Ours adds by a fixed tree, whatever the number of ranks (`cargo build --release -p offramp-ranks --example all_reduce`).
`MPI_Allreduce` brackets as it likes. It is called from Python (`pip install mpich mpi4py numpy`), in place, on a buffer
that it has seen before. `--launcher-options` sends both over another network, for example that of
crates/ranks/hosts/link.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

PEER = """
import sys, time
import numpy
from mpi4py import MPI
world = MPI.COMM_WORLD
for size in map(int, sys.argv[1:]):
    values = numpy.ones(size * 1_000_000 // 4, numpy.float32)
    times = []
    for _ in range(11):
        world.Barrier()
        began = time.perf_counter()
        world.Allreduce(MPI.IN_PLACE, values)
        times.append(1e3 * (time.perf_counter() - began))
    assert (values == world.size ** 11).all()
    if world.rank == 0:
        print(size, *(f"{time:.2f}" for time in times[1:]), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path)
    parser.add_argument("--mpirun", type=Path, required=True)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 17, 400], help="megabytes")
    parser.add_argument("--launcher", default="", help="words before mpirun")
    parser.add_argument("--launcher-options", default="", help="words after mpirun")
    job = parser.parse_args()
    environment = os.environ | {"LD_LIBRARY_PATH": str(job.mpirun.resolve().parents[1] / "lib")}
    launcher = [*job.launcher.split(), str(job.mpirun.resolve()), *job.launcher_options.split(), "-n", str(job.ranks)]
    sizes = [str(size) for size in job.sizes]
    ways = {"ours": [str(job.ours.resolve())], "MPI_Allreduce": [sys.executable, "-c", PEER]}
    found: dict[str, dict[str, list[float]]] = {way: {size: [] for size in sizes} for way in ways}
    for _ in range(job.rounds):
        for way, program in ways.items():
            words = [*launcher, *program, *sizes]
            text = subprocess.run(words, check=True, env=environment, capture_output=True, text=True).stdout
            for line in text.splitlines():
                size, *times = line.split()
                found[way][size].extend(map(float, times))
    for size in sizes:
        for way in ways:
            times = found[way][size]
            print(f"{size:>4} MB  {way:14} {statistics.median(times):8.2f} ms  {min(times):.2f} to {max(times):.2f}")


if __name__ == "__main__":
    main()
