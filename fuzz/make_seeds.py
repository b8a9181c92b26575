"""Small files of every kind that the fuzzers read: whole ones, and some that are nearly whole.

    tests/python/.venv/bin/python fuzz/make_seeds.py

Writes fuzz/seeds/<target>/. Needs numpy, pyarrow and tokenizers.
"""

import gzip
import json
import shutil
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import (
    AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
)

ROOT = Path(__file__).resolve().parents[1]
SEEDS = ROOT / "fuzz" / "seeds"


def seed(target, name, content):
    path = SEEDS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def without(text, key):
    return json.dumps({name: value for name, value in json.loads(text).items() if name != key})


# --- config.json and generation_config.json ----------------------------------------------------------------

LEAST = {
    "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "vocab_size": 11,
}
INT8 = {"format": "int8", "bits": 8, "block_size": 64, "scales": "bf16"}
INT4 = {"format": "int4", "bits": 4, "block_size": 32, "scales": "bf16"}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
BITNET = {
    "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline",
    "use_rms_norm": False, "rms_norm_eps": 1e-6, "modules_to_not_convert": None,
}


def configs():
    for config in sorted(ROOT.glob("tests/fixtures/*/config.json")):
        seed("config", config.parent.name, json.dumps(json.loads(config.read_text())))
    strips = {"quant_method": "offramp", "layers": INT8, "head": {"format": "bf16"}, "strip_rows": 32}
    early = {
        "early_exit_loss_scale": 0.3, "curriculum": "all", "layer_dropout": "quadratic", "layer_dropout_max": 0.5,
    }
    extra = {
        "least": {},
        "early-exit": {"early_exit": early},
        "ends": {"eos_token_id": [2, 3], "bos_token_id": None, "tie_word_embeddings": True},
        "int8": {"quantization_config": strips},
        "int4": {"quantization_config": strips | {"layers": INT4, "head": INT4}},
        "rope-both": {"rope_scaling": LLAMA3, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}, "rope_theta": 5e5},
        "rope-old": {"rope_scaling": {"type": "linear", "factor": 2}, "head_dim": 6, "num_key_value_heads": 1},
        "bitnet-offline": {"model_type": "bitnet", "hidden_act": "silu", "quantization_config": BITNET},
        "large": {"hidden_size": 1 << 31, "vocab_size": 1 << 31, "num_hidden_layers": 10_000},
        "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        "negative": {"hidden_size": -8, "rms_norm_eps": 1e400},
    }
    for name, keys in extra.items():
        seed("config", name, json.dumps(LEAST | keys))
    seed("config", "no-vocab", without(json.dumps(LEAST), "vocab_size"))
    seed("config", "cut", json.dumps(LEAST)[:-7])
    for name, keys in {
        "number": {"eos_token_id": 2},
        "list": {"eos_token_id": [128001, 128009], "do_sample": True, "temperature": 0.6, "top_p": 0.9},
        "all": {"top_k": 40, "repetition_penalty": 1.1, "do_sample": False, "eos_token_id": None},
        "wrong": {"temperature": "hot", "top_k": 2.5},
        "list-at-top": [1],
    }.items():
        seed("generation_config", name, json.dumps(keys))


# --- safetensors -------------------------------------------------------------------------------------------


def layer(hidden, inner, queries, keys, norms):
    tensors = {
        "input_layernorm": [hidden], "self_attn.q_proj": [queries, hidden], "self_attn.k_proj": [keys, hidden],
        "self_attn.v_proj": [keys, hidden], "self_attn.o_proj": [hidden, queries],
        "post_attention_layernorm": [hidden], "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    if norms:
        tensors |= {"self_attn.attn_sub_norm": [queries], "mlp.ffn_sub_norm": [inner]}
    return tensors


BITS = {"F32": 32, "F16": 16, "BF16": 16, "U8": 8, "F64": 64}


def safetensors(tensors):
    """tensors: name → dtype, shape. Every byte is 0x3C or 0x3F, which is a small number in each float format."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        values = 1
        for size in shape:
            values *= size
        length = values * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + (b"\x00\x3c" * at)[:at]


def model(form):
    """The tensors of fuzz/src/models.rs, in the order of its configs."""
    tied = form in (1, 3, 5, 6, 7)
    packed = form in (4, 5)
    keys = 4 if form in (4, 5, 6) else 2
    dtype = "BF16" if form == 1 else "F32"
    tensors = {"model.embed_tokens.weight": (dtype, [3, 4])}
    for name, shape in layer(4, 4, 4, keys, form >= 4).items():
        name = f"model.layers.0.{name}.weight"
        if len(shape) == 2 and form in (2, 3):
            tensors[name] = ("U8", [1, 2112 if form == 2 else 576])
        elif len(shape) == 2 and packed:
            tensors[name] = ("U8", [shape[0] // 4, shape[1]])
            tensors[name.removesuffix("weight") + "weight_scale"] = ("BF16", [1])
        else:
            tensors[name] = (dtype, shape)
    tensors["model.norm.weight"] = (dtype, [4])
    if not tied:
        tensors["lm_head.weight"] = ("U8", [1, 2112]) if form == 2 else (dtype, [3, 4])
    return tensors


def weights():
    for form in range(8):
        seed("safetensors", f"form-{form}", bytes([form]) + safetensors(model(form)))
    half = {name: ("F16", shape) for name, (_, shape) in model(0).items()}
    seed("safetensors", "f16", b"\x00" + safetensors(half))
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [1])}
    seed("safetensors", "buffer", b"\x00" + safetensors(model(0) | buffer))
    seed("safetensors", "f64", b"\x00" + safetensors(model(0) | {"model.norm.weight": ("F64", [4])}))
    short = dict(list(model(0).items())[:-1])
    seed("safetensors", "missing", b"\x00" + safetensors(short))
    seed("safetensors", "cut", b"\x00" + safetensors(model(0))[:-5])
    seed("safetensors", "long-header", b"\x00" + struct.pack("<Q", 1 << 40) + b"{}")
    seed("safetensors", "twice", b"\x00" + struct.pack("<Q", 8) + b'{"a":{},')
    names = list(model(0))
    whole = {name: ("a" if at < len(names) // 2 else "b") + ".safetensors" for at, name in enumerate(names)}
    for name, places in {
        "whole": whole,
        "wrong-way": {name: "a.safetensors" for name in names},
        "outside": whole | {names[0]: "../a.safetensors"},
        "missing": dict(list(whole.items())[1:]),
        "empty": {},
    }.items():
        seed("index", name, json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    seed("index", "cut", json.dumps({"weight_map": whole})[:-9])


# --- Prepared folders --------------------------------------------------------------------------------------


def shard(vocab_size, ids, stories_bytes, version=2):
    width = 2 if vocab_size <= 1 << 16 else 4
    body = b"".join(struct.pack("<H" if width == 2 else "<I", token) for token in ids)
    header = b"offrampT" + struct.pack("<IIII", version, width, vocab_size, zlib.crc32(body))
    header += struct.pack("<QQ", len(ids), stories_bytes)
    if version == 2:
        header += struct.pack("<QQ", 0x0123456789ABCDEF, fingerprint(ids))
    return header + struct.pack("<I", zlib.crc32(header)) + body


def fingerprint(ids):
    total = 0xCBF29CE484222325
    for token in ids:
        total = (total ^ token) * 0x100000001B3 % (1 << 64)
    return total


def prepared(vocab_size, ids, version=2, **changes):
    split = {
        "sources": ["a.txt"], "stories": 1, "tokens": len(ids), "utf8_bytes": 9, "shards": ["train-00000.tokens"],
    }
    manifest = {
        "format": "offramp-corpus", "version": 2, "tokenizer": "gpt2", "vocab_size": vocab_size,
        "train": split | changes,
    }
    text = json.dumps(manifest).encode()
    return b"\x01" + struct.pack("<H", len(text)) + text + shard(vocab_size, ids, 9, version)


def shards():
    seed("shard", "narrow", prepared(300, [1, 2, 3, 4, 5, 299, 7, 8]))
    seed("shard", "wide", prepared(70_000, [1, 69_999, 3]))
    seed("shard", "old", prepared(300, [1, 2, 3], version=1))
    seed("shard", "beyond", prepared(300, [1, 300]))
    seed("shard", "none", prepared(300, []))
    seed("shard", "count", prepared(300, [1, 2, 3], tokens=4))
    seed("shard", "twice", prepared(300, [1, 2, 3], shards=["train-00000.tokens"] * 2, tokens=6, utf8_bytes=18))
    seed("shard", "outside", prepared(300, [1, 2], shards=["../x"]))


# --- Recipes -----------------------------------------------------------------------------------------------


def bare(recipe):
    """Without comments and blank lines."""
    lines = [line.split(" #")[0].rstrip() for line in recipe.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("#")) + "\n"


def recipes():
    for recipe in sorted(ROOT.glob("recipes/*.toml")):
        seed("recipe", recipe.stem, bare(recipe.read_text()))
    seed("recipe", "typo", '[data]\ntrain = "a"\n[trainin]\nsteps = 3\n')
    seed("recipe", "wrong-type", '[data]\ntrain = "a"\n[training]\nsteps = "3"\nlearning_rate = 1\n')
    seed("recipe", "one-layer", '[data]\ntrain = "a"\n[model]\nnum_hidden_layers = 1\n[validation]\nexits = [1]\n')
    seed("recipe", "cut", '[data]\ntrain = "a')


# --- tokenizer.json ----------------------------------------------------------------------------------------

LETTERS = list("abcdehinoprtu0123 ,.é你") + ["\u2581", "\u0120", "on", "ce", "\u2581t", "up"]


def vocabulary(words):
    return {word: at for at, word in enumerate(dict.fromkeys(words))}


def save(name, tokenizer):
    seed("tokenizer", name, tokenizer.to_str())


def tokenizers():
    merges = [("o", "n"), ("c", "e"), ("u", "p"), ("\u2581", "t")]
    bytes_only = pre_tokenizers.ByteLevel.alphabet()
    small = sorted(bytes_only)[:40]
    level = Tokenizer(models.BPE(vocab=vocabulary(["<|endoftext|>", *small, "on"]), merges=[]))
    level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    level.decoder = decoders.ByteLevel()
    level.add_special_tokens(["<|endoftext|>"])
    save("byte-level", level)

    names = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in (0x0A, 0xE4, 0xBD, 0xA0, 0xF0, 0x9F)], *LETTERS]
    piece = Tokenizer(models.BPE(
        vocab=vocabulary(names), merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True, dropout=0.5,
    ))
    piece.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    piece.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    piece.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)],
    )
    piece.add_special_tokens(["<unk>", "<s>", "</s>"])
    save("llama-2", piece)

    unigram = Tokenizer(models.Unigram([(word, -at / 3) for word, at in vocabulary(names).items()], 0, True))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.add_special_tokens(["</s>"])
    save("unigram", unigram)

    words = vocabulary(["[UNK]", "[CLS]", "[SEP]", "once", "up", "##on", "##a", *"aeo"])
    piece = Tokenizer(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=20))
    piece.normalizer = normalizers.BertNormalizer()
    piece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    piece.decoder = decoders.WordPiece()
    piece.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    piece.enable_truncation(8)
    piece.enable_padding()
    save("word-piece", piece)

    level = Tokenizer(models.WordLevel(vocabulary(["<eos>", "?", "Once", "a", "time"]), unk_token="?"))
    level.pre_tokenizer = pre_tokenizers.Whitespace()
    level.add_special_tokens(["<eos>"])
    level.add_tokens([AddedToken("time", lstrip=True, rstrip=True, normalized=True, single_word=True)])
    save("word-level", level)

    parts = {
        "normalizers": [
            normalizers.NFC(), normalizers.NFKD(), normalizers.Lowercase(), normalizers.StripAccents(),
            normalizers.Strip(), normalizers.Nmt(), normalizers.Replace(Regex("[0-9]+|x*"), "<>"),
        ],
        "splits": [
            pre_tokenizers.Split(Regex(r"\p{L}+|\s+(?!\S)|[^\s\p{L}]"), "isolated"), pre_tokenizers.Digits(True),
            pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.UnicodeScripts(),
            pre_tokenizers.CharDelimiterSplit(","), pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(" ", "merged_with_next", invert=True),
        ],
        "processors": [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing("<s> $0 </s>", None, [("<s>", 1), ("</s>", 2)]),
            processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
        ],
    }
    for name, steps in parts.items():
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary(names), merges=merges, unk_token="<unk>"))
        tokenizer.add_special_tokens(["<s>", "</s>"])
        if name == "normalizers":
            tokenizer.normalizer = normalizers.Sequence(steps)
        elif name == "splits":
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        else:
            tokenizer.post_processor = processors.Sequence(steps[:2])
        save(name, tokenizer)
    tokenizer.decoder = decoders.Sequence([
        decoders.CTC(), decoders.BPEDecoder(), decoders.Replace(Regex("a+"), "b"), decoders.Strip("b", 1, 1),
    ])
    save("decoders", tokenizer)

    sparse = json.loads(level.to_str())
    sparse["model"]["vocab"]["time"] = 16_000_000
    seed("tokenizer", "sparse", json.dumps(sparse))
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}
    growing = json.loads(level.to_str())
    growing["normalizer"] = {"type": "Sequence", "normalizers": [doubling] * 4}
    growing["decoder"] = {"type": "Sequence", "decoders": [doubling] * 4}
    seed("tokenizer", "growing", json.dumps(growing))


# --- Corpora -----------------------------------------------------------------------------------------------


def parquet(name, table, **options):
    path = SEEDS / "parquet" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **({"compression": "none"} | options))


def corpora():
    stories = ["One day.", "", "A hen sat. " * 9, "昔々 🐢", "One day."]
    text = pa.table({"text": stories})
    for compression in ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]:
        parquet(compression, text, compression=compression)
    parquet("plain", text, use_dictionary=False)
    parquet("pages-2", text, compression="snappy", data_page_version="2.0")
    parquet("nulls", pa.table({"id": [1, 2, 3], "text": ["a", None, "b"]}))
    parquet("groups", pa.table({"text": list("abcdefgh")}), row_group_size=3, write_statistics=False)
    parquet("large", pa.table({"text": pa.array(["a", "b"], pa.large_string())}), data_page_size=1)
    parquet("delta", text, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
    parquet("lengths", text, use_dictionary=False, column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY"})
    parquet("numbers", pa.table({"text": [1, 2]}))
    parquet("bytes", pa.table({"text": pa.array([b"\xff\xfe", b"a"])}))
    parquet("lists", pa.table({"text": [["a", "b"], []]}))
    parquet("other-name", pa.table({"story": ["a"]}))
    whole = (SEEDS / "parquet" / "none").read_bytes()
    seed("parquet", "cut", whole[:-9])
    seed("parquet", "encrypted", whole[:-4] + b"PARE")

    lines = '{"text": "One day."}\n\n{"id": 3, "text": "A \\u00e9\\ud83d\\ude00 b", "more": [1, {"a": null}]}\n'
    seed("corpus", "jsonl", b"\x00" + lines.encode())
    seed("corpus", "bom", b"\x00\xef\xbb\xbf" + lines.encode().replace(b"\n", b"\r\n"))
    seed("corpus", "no-text", b'\x00{"story": "a"}\n{"text": null}\n')
    seed("corpus", "array", b'\x00["a"]\n')
    seed("corpus", "half", b'\x00{"text": "\\ud83d"}\n{"text": 3')
    table = 'id,text\r\n1,"One ""day"".\nTwo."\r\n2,\r\n3,Third<|endoftext|>4th\r\n'
    seed("corpus", "csv", b"\x02" + table.encode())
    seed("corpus", "csv-no-text", b"\x02a,b\n1,2\n3\n")
    seed("corpus", "json", b'\x01[{"text": "a"}, "b", {"text": null}, {"id": 1}]')
    seed("corpus", "json-objects", b'\x01{"text": "a"} {"text": "b"}\n{"text": 3}')
    seed("corpus", "jsonl-gz", b"\x04" + gzip.compress(lines.encode(), mtime=0) + gzip.compress(b"", mtime=0))
    seed("corpus", "csv-gz", b"\x06" + gzip.compress(table.encode(), mtime=0) + bytes(9))
    for name, first in [("jsonl-zst", b"\x05"), ("txt-zst", b"\x07")]:
        packed = pa.compress((lines * 9).encode(), codec="zstd", asbytes=True)
        seed("corpus", name, first + packed + b"\x50\x2a\x4d\x18\x02\x00\x00\x00ab")
    seed("corpus", "txt", "\x03One day.\n<|endoftext|>\n\nAnother.\n<|endoftext|>\n".encode())
    seed("corpus", "txt-joined", "\x03One day.<|endoftext|>Another.\r\n<|endoftext|> \nThird".encode())
    seed("corpus", "not-utf-8", b"\x03One\xff day\n<|endoftext|>\n\xe4\xbd")


def streams():
    for tokenizer in range(5):
        ids = [3, 200, 199, 255, 256, 290, 258, 12, 13, 300, 270]
        body = struct.pack("<BB", tokenizer, 4) + b"".join(struct.pack("<H", token) for token in ids)
        seed("stream_decode", f"kind-{tokenizer}", body + "tea 🐢 昔々\n".encode() + b"\x00" * 24)


def templates():
    for template in sorted(ROOT.glob("tests/fixtures/chat/*.jinja")):
        seed("chat_template", template.stem, template.read_bytes())
    seed("chat_template", "cut", "{% for message in messages %}{{ message['content'] | trim ")
    seed("chat_template", "endless", "{% for a in range(9999) %}{% for b in range(9999) %}{{ a * b }}{% endfor %}{% endfor %}")
    seed("chat_template", "growing", "{% set ns = namespace(t='a') %}{% for a in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}")
    seed("chat_template", "recursion", "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('ab') }}")
    seed("chat_template", "refusal", "{{ raise_exception('Only \\n user ' ~ messages[0].role) }}")


def gguf_value(value):
    """The number of its type, and its bytes."""
    text = lambda text: struct.pack("<Q", len(text.encode())) + text.encode()
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, text(value)
    each = [gguf_value(one) for one in value]
    return 9, struct.pack("<IQ", each[0][0], len(each)) + b"".join(one for _, one in each)


def gguf(name, keys, tensors=()):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, value in keys.items():
        kind, content = gguf_value(value)
        head += gguf_value(key)[1] + struct.pack("<I", kind) + content
    data = b""
    for tensor, shape, kind, content in tensors:
        sizes = b"".join(struct.pack("<Q", size) for size in shape)
        head += gguf_value(tensor)[1] + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, len(data))
        data += content + bytes(-len(content) % 32)
    seed("gguf", name, head + bytes(-len(head) % 32) + data)


def ggufs():
    tokens = ["O", "n", "c", "e", "On", "ce", "Ġ", "<|end|>"]
    gguf("bpe", {
        "general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * 7 + [3],
        "tokenizer.ggml.merges": ["O n", "c e"], "tokenizer.ggml.eos_token_id": 7,
    })
    gguf("spm", {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "<0x41>", "▁", "O", "▁O", "n", "▁On"],
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, 0.0, -5.0, -4.0, -1.0, -3.0, -2.0],
        "tokenizer.ggml.token_type": [2, 3, 3, 6, 1, 1, 1, 1, 1],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
    })
    blocks = [("a", [32, 2], 8, bytes(68)), ("b", [3], 0, bytes(12)), ("c", [256, 1], 14, bytes(210))]
    gguf("tensors", {"general.alignment": 32}, blocks)


if __name__ == "__main__":
    shutil.rmtree(SEEDS, ignore_errors=True)
    for part in (configs, weights, shards, recipes, tokenizers, corpora, streams, templates, ggufs):
        part()
