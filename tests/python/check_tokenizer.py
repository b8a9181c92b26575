"""Checks a prepared corpus against Python's `tokenizers`: the same ids, in the same order, in the shards.

    offramp prepare tales.txt --out runs/tales …
    python tests/python/check_tokenizer.py runs/tales tales.txt --split train

Encodes every story of the .txt file with the folder's tokenizer.json and compares the stream with what the
shards hold (their layout is described at the head of crates/text/src/shard.rs). Exit code 1 if they differ.
"""

import argparse
import json
import struct
import sys
import zlib
from array import array
from pathlib import Path

from tokenizers import Tokenizer

SEPARATOR = "<|endoftext|>"
HEADER = struct.Struct("<8s4I2QI")


def read_shard(path: Path) -> list[int]:
    raw = path.read_bytes()
    magic, version, width, _vocab, crc, tokens, _bytes, header_crc = HEADER.unpack_from(raw)
    payload = raw[HEADER.size :]
    assert (magic, version) == (b"offrampT", 1), f"{path}: not a token shard"
    assert zlib.crc32(raw[: HEADER.size - 4]) == header_crc and zlib.crc32(payload) == crc, f"{path}: checksum"
    assert len(payload) == tokens * width, f"{path}: length"
    ids = array("H" if width == 2 else "I", payload)
    if sys.byteorder == "big":
        ids.byteswap()
    return list(ids)


def read_stories(path: Path) -> list[str]:
    stories, story = [], []
    for line in path.read_text(encoding="utf-8").split("\n") + [SEPARATOR]:
        if line != SEPARATOR:
            story.append(line)
            continue
        while story and not story[0].strip():
            story.pop(0)
        while story and not story[-1].strip():
            story.pop()
        if story:
            stories.append("\n".join(story))
        story = []
    return stories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what `offramp prepare` wrote")
    parser.add_argument("text", type=Path, help="the .txt corpus it was made from")
    parser.add_argument("--split", default="train", choices=["train", "valid"])
    args = parser.parse_args()

    shards = json.loads((args.folder / "corpus.json").read_text())[args.split]["shards"]
    found = [id for name in shards for id in read_shard(args.folder / name)]
    tokenizer = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # text is text, as in offramp
    end = tokenizer.token_to_id(SEPARATOR)
    expected: list[int] = []
    for i, encoding in enumerate(tokenizer.encode_batch_fast(read_stories(args.text), add_special_tokens=False)):
        expected += ([end] if i else []) + encoding.ids
    if found != expected:
        at = next((i for i, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), -1)
        sys.exit(f"differ: {len(found)} tokens against {len(expected)}, first at {at}")
    print(f"{len(found)} tokens, all the same")


if __name__ == "__main__":
    main()
