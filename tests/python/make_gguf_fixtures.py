"""Makes tests/fixtures/gguf/: blocks of every format with the floats that PyPI's `gguf` decodes them to, a
SentencePiece vocabulary with the ids that `sentencepiece` gives, byte-level ones with those of `tokenizers`, and
a ternary model: that of tests/fixtures/bitnet-offline, whose logits transformers computed.

    pip install numpy gguf sentencepiece tokenizers safetensors
    python tests/python/make_gguf_fixtures.py [blocks] [sentence_piece] [byte_level] [bitnet]

Nothing here is computed by offramp.
"""

import json
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from safetensors.numpy import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parent.parent / "fixtures/gguf"
STORIES = Path(__file__).resolve().parents[2] / "stories"
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0"]
# Where a block has halves: scales, which random bytes would often make infinite.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2]}
SCALES |= {"Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64]}
TEXTS = [
    "Once upon a time there was a cat.",
    " two  spaces   and three",
    "naïve café 🙂 日本",
    "a\nnew line\tand a tab",
    "1234 dogs, 5 cats",
    "",
    "x",
]


def blocks():
    """[2, 512] values of each type, and what they are in f32; halves of all sizes, subnormal ones too."""
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(OUT / "blocks.gguf", "blocks")
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        size, bytes_ = gguf.GGML_QUANT_SIZES[kind]
        count = 1024 // size
        if size == 1:
            values = random.standard_normal((2, 512)).astype(np.float32) * np.float32(10.0) ** random.integers(-9, 5, (2, 512))
            data = gguf.quants.quantize(values.astype(np.float32), kind)
        else:
            data = random.integers(0, 256, (count, bytes_), dtype=np.uint8)
            for place in SCALES[name]:
                scales = (random.standard_normal(count) * 10.0 ** random.integers(-7, 2, count)).astype(np.float16)
                data[:, place : place + 2] = scales.view(np.uint8).reshape(count, 2)
            data = data.reshape(2, -1)
        expected = gguf.quants.dequantize(data, kind).astype(np.float32).reshape(2, 512)
        writer.add_tensor(f"{name}.stored", data, raw_dtype=kind if size > 1 or name == "BF16" else None)
        writer.add_tensor(f"{name}.expected", expected)
    values = random.standard_normal((2, 512)).astype(np.float32)
    writer.add_tensor("values", values)
    for name in ["F16", "BF16", "Q8_0", "Q4_0", "TQ2_0"]:
        kind = gguf.GGMLQuantizationType[name]
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(f"{name}.encoded", data, raw_dtype=None if name == "F16" else kind)
    writer.add_uint8("kinds.u8", 250)
    writer.add_int8("kinds.i8", -5)
    writer.add_uint64("kinds.u64", 1 << 60)
    writer.add_int64("kinds.i64", -(1 << 60))
    writer.add_float64("kinds.f64", 0.1)
    writer.add_bool("kinds.bool", True)
    writer.add_string("kinds.text", "naïve 🙂")
    writer.add_array("kinds.list", [1.5, -2.5])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sentence_piece():
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text((STORIES / "train.txt").read_text().replace("<|endoftext|>", ""))
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=f"{folder}/spm", vocab_size=600, model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
            minloglevel=2,
        )
        model = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/spm.model")
        size = model.get_piece_size()
        kind = lambda id: 2 if model.is_unknown(id) else 3 if model.is_control(id) else 6 if model.is_byte(id) else 1
        found = {
            "tokens": [model.id_to_piece(id) for id in range(size)],
            "scores": [model.get_score(id) for id in range(size)],
            "token_type": [kind(id) for id in range(size)],
            "bos_token_id": model.bos_id(),
            "eos_token_id": model.eos_id(),
            "texts": TEXTS,
            "ids": [model.encode(text) for text in TEXTS],
        }
    (OUT / "sentence-piece.json").write_text(json.dumps(found, ensure_ascii=False) + "\n")


def byte_level():
    """Small byte-level vocabularies, each with a way to split words that llama.cpp has a name for, and the ids
    that `tokenizers` gives. The patterns are those of the models' own tokenizer.json."""
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = lambda numbers: pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words.replace("NUMBERS", numbers)), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    ways = {
        "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), None, False),
        "llama-bpe": (split(r"\p{N}{1,3}"), None, True),
        "qwen2": (split(r"\p{N}"), normalizers.NFC(), False),
        "smollm": (pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]), None, False),
    }
    found = {}
    for pre, (pre_tokenizer, normalizer, ignore_merges) in ways.items():
        tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
        if normalizer:
            tokenizer.normalizer = normalizer
        trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<|begin|>", "<|end|>"], show_progress=False,
                                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
        tokenizer.train_from_iterator([(STORIES / "train.txt").read_text().replace("<|endoftext|>", "") + " 1234 2024 cafe\u0301"], trainer)
        model = json.loads(tokenizer.to_str())["model"]
        tokens = [tokenizer.id_to_token(id) for id in range(tokenizer.get_vocab_size())]
        found[pre] = {
            "tokens": tokens,
            "token_type": [3 if token in ("<|begin|>", "<|end|>") else 1 for token in tokens],
            "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
            "texts": [*TEXTS, "cafe\u0301 I'LL they're", "<|begin|>Hello<|end|>"],
        }
        found[pre]["ids"] = [tokenizer.encode(text).ids for text in found[pre]["texts"]]
    (OUT / "byte-level.json").write_text(json.dumps(found, ensure_ascii=False) + "\n")


def unpacked(packed):
    """Codes −1, 0, 1 of four quarters of rows in each byte."""
    return np.concatenate([((packed >> (2 * quarter)) & 3).astype(np.float32) - 1 for quarter in range(4)])


def bitnet():
    """A ternary model under the names that `gguf` has for llama.cpp's `bitnet`. Matrices of even layers hold their
    values in f32, others codes in f16 beside a scale, as llama.cpp takes either."""
    folder = OUT.parent / "bitnet-offline"
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BITNET, layers)
    writer = gguf.GGUFWriter(OUT / "bitnet.gguf", gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.BITNET])
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(1.0)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("_scale"):
            continue
        # llama.cpp knows the sub-norms by the names of an older model, and no head beside the embedding.
        known = name.replace("attn_sub_norm", "inner_attn_ln").replace("ffn_sub_norm", "ffn_layernorm")
        theirs = "output.weight" if name == "lm_head.weight" else names.get_name(known, try_suffixes=(".weight",))
        assert theirs, name
        scale = tensors.get(f"{name}_scale")
        if scale is None:
            writer.add_tensor(theirs, tensor.astype(np.float32))
        elif int(name.split(".")[2]) % 2 == 0:
            writer.add_tensor(theirs, unpacked(tensor) * scale.astype(np.float32))
        else:
            writer.add_tensor(theirs, unpacked(tensor).astype(np.float16))
            writer.add_tensor(theirs.replace(".weight", ".scale"), scale.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


OUT.mkdir(parents=True, exist_ok=True)
for make in (blocks, sentence_piece, byte_level, bitnet):
    if make.__name__ in sys.argv[1:] or not sys.argv[1:]:
        make()
