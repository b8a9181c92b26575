"""The micro-batches of an offramp run, in its order, so that a peer trains on the same tokens.

Shards are those of crates/text/src/shard.rs, and the order is that of crates/text/src/batches.rs: ChaCha8 with the key
(seed, epoch) draws an offset and an order of the windows. `ddp.py` compares the losses: another order would show there.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

HEADER_BYTES = 60
WORD = 0xFFFFFFFF


def tokens(corpus: Path) -> array:
    """The ids of the training split."""
    ids = array("H")
    for name in json.loads((corpus / "corpus.json").read_text())["train"]["shards"]:
        shard = (corpus / name).read_bytes()
        if shard[:8] != b"offrampT" or struct.unpack_from("<II", shard, 8) != (2, 2):
            raise SystemExit(f"{corpus / name} is no shard of version 2 with ids of 2 bytes: prepare a corpus of at "
                             "most 65,536 ids with this build")
        ids.frombytes(shard[HEADER_BYTES:])
    return ids


def chacha8(key: bytes) -> Iterator[int]:
    """Numbers of 64 bits."""
    def quarter(x: list[int], a: int, b: int, c: int, d: int) -> None:
        for (to, by, moved), turn in zip(((a, b, d), (c, d, b)) * 2, (16, 12, 8, 7)):
            x[to] = (x[to] + x[by]) & WORD
            mixed = x[moved] ^ x[to]
            x[moved] = (mixed << turn | mixed >> (32 - turn)) & WORD

    block = 0
    while True:
        first = list(struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<QQ", block, 0)))
        x = first.copy()
        for _ in range(4):
            for i in range(4):
                quarter(x, i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(x, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        words = [(here + there) & WORD for here, there in zip(x, first)]
        yield from (low | high << 32 for low, high in zip(words[::2], words[1::2]))
        block += 1


def below(random: Iterator[int], bound: int) -> int:
    """A uniform number below `bound` (Lemire)."""
    while True:
        product = next(random) * bound
        if product % 2**64 >= -bound % 2**64 % bound:
            return product >> 64


class Batches:
    def __init__(self, corpus: Path, training: dict) -> None:
        self.ids = tokens(corpus)
        self.rows, self.length, self.seed = (training[key] for key in ("batch_size", "sequence_length", "seed"))
        self.windows = max((len(self.ids) - self.length) // self.length, 1)
        self.starts: dict[int, list[int]] = {}  # of each epoch's windows

    def of_epoch(self, epoch: int) -> list[int]:
        if epoch not in self.starts:
            random = chacha8(struct.pack("<QQ", self.seed, epoch) + b"offramp batches\0")
            slack = len(self.ids) - 1 - self.windows * self.length
            offset = below(random, min(self.length, slack + 1))
            order = list(range(self.windows))
            for last in range(self.windows - 1, 0, -1):
                other = below(random, last + 1)
                order[last], order[other] = order[other], order[last]
            self.starts[epoch] = [offset + window * self.length for window in order]
        return self.starts[epoch]

    def micro_batch(self, index: int) -> list[list[int]]:
        """Rows of `sequence_length + 1` tokens; micro-batches are counted from the start of the run."""
        samples = range(index * self.rows, (index + 1) * self.rows)
        starts = [self.of_epoch(sample // self.windows)[sample % self.windows] for sample in samples]
        return [list(self.ids[start : start + self.length + 1]) for start in starts]
