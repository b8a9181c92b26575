"""Two hosts of our own on one machine, and a cable between them with a delay, a rate and losses.

    python crates/ranks/hosts/link.py --delay-ms 2 --gbit 1 &

Makes the network namespaces `ranks-a` and `ranks-b` (10.77.0.1 and 10.77.0.2), and carries every packet between them
itself, as `tc netem` does where the kernel has it. Needs root and Linux. It prints `ready`. SIGUSR1 cuts the cable and
mends it again; SIGTERM or SIGINT takes all away.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import time

HOSTS = {"ranks-a": "10.77.0.1", "ranks-b": "10.77.0.2"}
TUNSETIFF = 0x400454CA  # <linux/if_tun.h>
TUN_WITHOUT_HEADER = 0x0001 | 0x1000  # IFF_TUN | IFF_NO_PI
CLONE_NEWNET = 0x40000000
WAITING = 64 << 20  # bytes that wait for the cable: more are lost


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def end_of(host: str, mtu: int) -> int:
    """The file of a network device in a host of its own."""
    subprocess.run(["ip", "netns", "del", host], check=False, stderr=subprocess.DEVNULL)  # a killed run's
    ip("netns", "add", host)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{host}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns {host}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"cable", TUN_WITHOUT_HEADER))
    libc.setns(home, CLONE_NEWNET)
    ip("-n", host, "addr", "add", f"{HOSTS[host]}/24", "dev", "cable")
    ip("-n", host, "link", "set", "cable", "mtu", str(mtu), "txqueuelen", "2000", "up")
    ip("-n", host, "link", "set", "lo", "up")
    return device


class Way:
    """One direction of the cable."""

    def __init__(self, source: int, target: int, job: argparse.Namespace) -> None:
        self.source, self.target = source, target
        self.delay, self.rate, self.loss = job.delay_ms / 1e3, job.gbit * 1e9 / 8, job.loss
        self.packets: collections.deque[tuple[float, bytes]] = collections.deque()
        self.waiting = 0
        self.free_at = 0.0

    def take(self, cut: bool) -> None:
        for _ in range(64):
            try:
                packet = os.read(self.source, 65536)
            except BlockingIOError:
                return
            if cut or random.random() < self.loss or self.waiting > WAITING:
                continue
            self.free_at = max(self.free_at, time.monotonic()) + len(packet) / self.rate
            self.packets.append((self.free_at + self.delay, packet))
            self.waiting += len(packet)

    def give(self) -> float:
        """Delivers what has arrived, and returns the seconds until the next packet does."""
        while self.packets:
            left = self.packets[0][0] - time.monotonic()
            if left > 0:
                return left
            packet = self.packets.popleft()[1]
            self.waiting -= len(packet)
            try:
                os.write(self.target, packet)
            except BlockingIOError:
                pass
        return 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="one way")
    parser.add_argument("--gbit", type=float, default=10.0, help="each way, in a second")
    parser.add_argument("--loss", type=float, default=0.0, help="share of the packets")
    parser.add_argument("--mtu", type=int, default=16384, help="bytes of a packet")
    job = parser.parse_args()
    cable = {"cut": False}
    signal.signal(signal.SIGUSR1, lambda *_: cable.update(cut=not cable["cut"]))
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: (_ for _ in ()).throw(SystemExit(0)))
    try:
        first, second = (end_of(host, job.mtu) for host in HOSTS)
        ways = [Way(first, second, job), Way(second, first, job)]
        print("ready", flush=True)
        while True:
            wait = min(way.give() for way in ways)
            ready, _, _ = select.select([first, second], [], [], wait)
            for way in ways:
                if way.source in ready:
                    way.take(cable["cut"])
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False)


if __name__ == "__main__":
    main()
