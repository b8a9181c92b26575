"""Makes tests/fixtures/corpora: small corpora of our own text, as other programs write them, and what is in each.

The files are written by pyarrow, and by Python's gzip, csv, json and zstandard. What they hold is worked out here, from
the texts that went in, by the rule in `expected`.

    python tests/python/make_corpora.py        (needs pyarrow, zstandard, lz4)
"""

import csv
import gzip
import io
import json
import re
import struct
from pathlib import Path

import lz4.block
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "corpora"
MARKER = "<|endoftext|>"

TEXTS = [
    "Mo found a snail, and the snail found Mo.",
    None,
    'Ada said: "One, two.\nThree!"\n\nThen she slept.',
    "",
    " 月は白い。 José ate the moon 🌙 ",
    f"First of two.{MARKER}Second of two.",
    f"\n{MARKER} \n  Indented.\n\n{MARKER}",
    MARKER,
    "Windows wrote\r\nthis.",
] + [f"The kite number {i} flew over the river, and came back." for i in range(40)]

PLAIN = [
    # A marker on a line of its own, at the end of a line, at the start of one, between two, with blanks.
    f"One.\n{MARKER}\nTwo.{MARKER}\nThree.\n{MARKER}Four.{MARKER}Five.{MARKER} \n Six.\n{MARKER}\t\n\n\nSeven.",
    f"{MARKER}\n{MARKER}\n\n \nOnly one.\n{MARKER}\n",
    f"\ufeffCRLF.\r\n\r\nStill the first.\r\n{MARKER}\r\n  Second.\r\n",
    f"He wrote < and > and <|endoftext and endoftext|> on the wall.{MARKER}The end",
    " \n  A corpus\n\nwithout a marker \n",
]


def split(text, is_file):
    """The stories of one text. A marker takes the blanks beside it; it and the ends of a file take blank lines."""
    pieces = text.replace("\r\n", "\n").split(MARKER)
    stories = []
    for index, piece in enumerate(pieces):
        if index > 0:
            piece = re.sub(r"\A[ \t]*", "", piece)
        if index > 0 or is_file:
            piece = re.sub(r"\A(?:[^\S\n]*\n)*", "", piece)
        if index + 1 < len(pieces):
            piece = re.sub(r"[ \t]*\Z", "", piece)
        if index + 1 < len(pieces) or is_file:
            piece = re.sub(r"(?:\n[^\S\n]*)*\Z", "", piece)
        if (len(pieces) > 1 or is_file) and not piece.strip():
            piece = ""
        stories.append(piece)
    return [story for story in stories if story]


def expected(texts, is_file=False):
    """What a corpus of these records holds."""
    found = [split(text, is_file) if text else [] for text in texts]
    return {
        "stories": [story for stories in found for story in stories],
        "skipped": 0 if is_file else sum(not stories for stories in found),
        "crlf": any(text and "\r\n" in text for text in texts),
    }


def packed(name, data):
    """The same bytes as they are, in two gzip members, and in two Zstandard frames with one between that is skipped."""
    half = len(data) // 2
    skipped = struct.pack("<II", 0x184D2A53, 3) + b"any"
    zstd = zstandard.ZstdCompressor(level=19, write_checksum=True).compress
    # Level 1 has no size in its header, as a stream has it.
    stream = zstandard.ZstdCompressor(level=1).compressobj()
    return {
        name: data,
        f"{name}.gz": gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0) + b"\0" * 7,
        f"{name}.zst": zstd(data[:half]) + skipped + stream.compress(data[half:]) + stream.flush(),
    }


def json_lines(column):
    rows = [{"id": index, column: text} for index, text in enumerate(TEXTS)]
    rows.insert(2, {"id": "no text at all"})
    return rows, expected(TEXTS[:2] + [None] + TEXTS[2:])


def parquet(texts, **options):
    out = io.BytesIO()
    schema = pa.schema([("id", pa.int64()), ("text", options.pop("type", pa.string()))])
    table = pa.table({"id": list(range(len(texts))), "text": texts}, schema=schema)
    pq.write_table(table, out, row_group_size=30, **options)
    return out.getvalue()


# --- Parquet by hand: pyarrow writes no page as Hadoop's LZ4 ------------------------------------------------------


class Long(int):
    """64 bits wide."""


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def thrift(fields):
    """A structure in Thrift's compact encoding: {id: int | bytes | [values] | {structure}}."""
    out, last = b"", 0
    for field, value in fields.items():
        kind, data = element(value)
        out += bytes([(field - last) << 4 | kind]) + data
        last = field
    return out + b"\0"


def element(value):
    if isinstance(value, int):
        return 6 if isinstance(value, Long) else 5, varint(value << 1)
    if isinstance(value, bytes):
        return 8, varint(len(value)) + value
    if isinstance(value, dict):
        return 12, thrift(value)
    items = [element(item) for item in value]
    return 9, bytes([len(items) << 4 | items[0][0]]) + b"".join(data for _, data in items)


def one_page(texts, pack):
    """A parquet file of one required column in one page under the codec LZ4."""
    plain = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    body = pack(plain)
    header = thrift({1: 0, 2: len(plain), 3: len(body), 5: {1: len(texts), 2: 0, 3: 3, 4: 3}})
    rows, sizes = Long(len(texts)), (Long(len(header) + len(plain)), Long(len(header) + len(body)))
    meta = {1: 6, 2: [0], 3: [b"text"], 4: 5, 5: rows, 6: sizes[0], 7: sizes[1], 9: Long(4)}
    group = {1: [{2: Long(4), 3: meta}], 2: sizes[0], 3: rows}
    schema = [{4: b"schema", 5: 1}, {1: 6, 3: 0, 4: b"text", 6: 0}]
    footer = thrift({1: 1, 2: schema, 3: rows, 4: [group]})
    return b"PAR1" + header + body + footer + struct.pack("<I", len(footer)) + b"PAR1"


def hadoop(data):
    half = len(data) // 2
    blocks = [(part, lz4.block.compress(part, store_size=False)) for part in (data[:half], data[half:])]
    return b"".join(struct.pack(">II", len(part), len(block)) + block for part, block in blocks)


def parquet_files():
    for codec in ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]:
        yield f"{codec}.parquet", parquet(TEXTS, compression=codec)
    yield "second-version.parquet", parquet(TEXTS, compression="zstd", data_page_version="2.0", use_dictionary=False)
    delta = {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False}
    yield "delta.parquet", parquet(TEXTS, compression="gzip", data_page_size=200, write_batch_size=4, **delta)
    yield "large-strings.parquet", parquet(TEXTS, compression="zstd", type=pa.large_string())


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    files, holds = {}, {}

    def add(made, found, column="text"):
        for name, data in made.items():
            files[name], holds[name] = data, {"column": column, **found}

    for index, text in enumerate(PLAIN):
        data = text.encode()
        made = packed(f"plain-{index}.txt", data) if index == 0 else {f"plain-{index}.txt": data}
        add(made, expected([text.removeprefix("\ufeff")], is_file=True))

    rows, found = json_lines("text")
    lines = "".join(json.dumps(row, ensure_ascii=index % 2 == 0) + "\n" for index, row in enumerate(rows))
    add(packed("lines.jsonl", lines.encode()), found)
    rows, found = json_lines("story")
    add(packed("array.json", json.dumps(rows, indent=1).encode()), found, "story")
    add({"array-in.jsonl": json.dumps(rows).encode()}, found, "story")
    add({"objects.json": "\n".join(json.dumps(row, indent=2) for row in rows).encode()}, found, "story")
    add({"strings.json": json.dumps(TEXTS, ensure_ascii=False).encode()}, expected(TEXTS))

    for name, ends in [("rows.csv", "\r\n"), ("unix.csv", "\n")]:
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator=ends)
        writer.writerow(["id", "the, story"])
        writer.writerows(enumerate(TEXTS))
        add(packed(name, out.getvalue().encode()) if ends == "\r\n" else {name: out.getvalue().encode()}, expected(TEXTS), "the, story")

    for name, data in parquet_files():
        assert pq.read_table(io.BytesIO(data)).column("text").to_pylist() == TEXTS, name
        add({name: data}, expected(TEXTS))
    present = [text for text in TEXTS if text]
    for name, pack in [
        ("hadoop-lz4", hadoop),
        ("bare-lz4", lambda data: lz4.block.compress(data, store_size=False)),
        ("framed-lz4", lz4.frame.compress),
    ]:
        data = one_page(present, pack)
        if name != "framed-lz4":  # which pyarrow does not read
            assert pq.read_table(io.BytesIO(data)).column("text").to_pylist() == present, name
        add({f"{name}.parquet": data}, expected(present))

    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    text = json.dumps(holds, ensure_ascii=False, indent=1) + "\n"
    (FOLDER / "expected.json").write_text(text)
    print(len(files), "files,", sum(map(len, files.values())), "bytes")


if __name__ == "__main__":
    main()
