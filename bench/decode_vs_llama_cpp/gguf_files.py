"""Random weights in the shape of a recipe, as the GGUF files that llama.cpp reads: one of each type.

The bf16 file is written here; llama.cpp's own quantizer makes the others of it, as its users would. Files that
are there already are left as they are.
"""

import ctypes
import tomllib
from pathlib import Path

import gguf
import llama_cpp
import numpy

# What llama.cpp calls its file types; each keeps the mixture that its quantizer gives by default, so that
# Q4_0's, Q4_K_M's and TQ2_0's heads are Q6_K.
FILE_TYPES = {
    "F32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "TQ2_0": llama_cpp.LLAMA_FTYPE_MOSTLY_TQ2_0,
}
TYPES = ["F32", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "TQ2_0"]


def path(work, kind):
    return Path(work) / f"random-{kind}.gguf"


def layers(recipe):
    return tomllib.loads(Path(recipe).read_text())["model"]["num_hidden_layers"]


def bytes_per_token(file, prompt):
    """Bytes that a token reads: all weights but the embedding, of which one row, and f16 keys and values."""
    reader = gguf.GGUFReader(file)
    weights = sum(int(tensor.n_bytes) for tensor in reader.tensors if tensor.name != "token_embd.weight")
    keys = sum(tensor.shape[1] * 2 for tensor in reader.tensors if tensor.name.endswith(("attn_k.weight", "attn_v.weight")))
    return weights + int(keys) * prompt


def make(work, recipe, kinds):
    """Writes what is missing of the files of `kinds`."""
    if not path(work, "BF16").exists() and any(not path(work, kind).exists() for kind in kinds):
        write_bf16(path(work, "BF16"), tomllib.loads(Path(recipe).read_text())["model"])
    for kind in kinds:
        if not path(work, kind).exists():
            quantize(path(work, "BF16"), path(work, kind), FILE_TYPES[kind])


def write_bf16(target, model):
    hidden, ffn, vocab = model["hidden_size"], model["intermediate_size"], model["vocab_size"]
    heads, kv_heads = model["num_attention_heads"], model["num_key_value_heads"]
    kv = hidden // heads * kv_heads
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_block_count(model["num_hidden_layers"])
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(model["rms_norm_eps"])
    writer.add_rope_freq_base(model["rope_theta"])
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(vocab)
    writer.add_file_type(llama_cpp.LLAMA_FTYPE_MOSTLY_BF16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{token}" for token in range(vocab)])
    writer.add_token_merges(["t 0"])
    shapes = {"token_embd": (vocab, hidden), "output": (vocab, hidden)}
    norms = ["output_norm"]
    for layer in range(model["num_hidden_layers"]):
        names = {"attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden)}
        names |= {"attn_output": (hidden, hidden), "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden)}
        names |= {"ffn_down": (hidden, ffn)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in names.items()}
        norms += [f"blk.{layer}.attn_norm", f"blk.{layer}.ffn_norm"]
    for norm in norms:
        writer.add_tensor(f"{norm}.weight", numpy.ones(hidden, dtype=numpy.float32))
    random = numpy.random.default_rng(0)
    for name, shape in shapes.items():
        values = random.standard_normal(shape, dtype=numpy.float32) * numpy.float32(0.02)
        bits = (values.view(numpy.uint32) >> 16).astype(numpy.uint16)
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(f"{name}.weight", bits.view(numpy.uint8).reshape(shape[0], -1), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(target)


def quantize(source, target, file_type):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    part = target.with_suffix(".part")
    failed = llama_cpp.llama_model_quantize(
        str(source).encode(), str(part).encode(), ctypes.byref(parameters)
    )
    if failed:
        raise SystemExit(f"llama.cpp could not quantise {source} to {target.name}")
    part.rename(target)
