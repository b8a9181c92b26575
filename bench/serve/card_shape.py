"""Random weights in the shape of a recipe, twice: as a Hugging Face folder for offramp, as GGUF for llama-server.

    python bench/serve/card_shape.py --work shape --kinds Q8_0,Q4_0

The weights have the size and the spread of `bench/decode_vs_llama_cpp/gguf_files.py`, but need no llama.cpp that was
built: PyPI's `gguf` quantizes. The folder's tokenizer is the carried model's, with made-up tokens up to the shape's
vocabulary; both sides get ids. Layers are made one at a time, so that the memory of one matrix is enough.
"""

import argparse
import json
import shutil
import tomllib
from pathlib import Path

import gguf
import numpy

KINDS = {"BF16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16)}
KINDS |= {"Q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0)}
KINDS |= {"Q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0)}
CONTEXT = 4096

# The matrices of a layer: what llama.cpp and Hugging Face call them.
MATRICES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def shape(recipe):
    return tomllib.loads(Path(recipe).read_text())["model"]


def tensors(model):
    """Every tensor's two names and its shape, in order."""
    hidden, ffn, vocab = model["hidden_size"], model["intermediate_size"], model["vocab_size"]
    kv = hidden // model["num_attention_heads"] * model["num_key_value_heads"]
    sizes = {"attn_q": (hidden, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden)}
    sizes |= {"attn_output": (hidden, hidden), "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden)}
    sizes |= {"ffn_down": (hidden, ffn)}
    yield "token_embd.weight", "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(model["num_hidden_layers"]):
        for ours, theirs in (MATRICES | NORMS).items():
            names = f"blk.{layer}.{ours}.weight", f"model.layers.{layer}.{theirs}.weight"
            yield *names, sizes.get(ours, (hidden,))
    yield "output_norm.weight", "model.norm.weight", (hidden,)
    yield "output.weight", "lm_head.weight", (vocab, hidden)


def values(number, size):
    """Tensor `number`, the same every time. [out_features, in_features]"""
    if len(size) == 1:
        return numpy.ones(size, dtype=numpy.float32)
    return numpy.random.default_rng(number).standard_normal(size, dtype=numpy.float32) * numpy.float32(0.02)


def gguf_path(work, kind):
    return Path(work) / f"random-{kind}.gguf"


def write_gguf(target, model, kind):
    type_, file_type = KINDS[kind]
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    head = model["hidden_size"] // model["num_attention_heads"]
    writer.add_block_count(model["num_hidden_layers"])
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(model["hidden_size"])
    writer.add_feed_forward_length(model["intermediate_size"])
    writer.add_head_count(model["num_attention_heads"])
    writer.add_head_count_kv(model["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(model["rms_norm_eps"])
    writer.add_rope_freq_base(model["rope_theta"])
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(model["vocab_size"])
    writer.add_file_type(file_type)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{token}" for token in range(model["vocab_size"])])
    writer.add_token_merges(["t 0"])
    found = list(tensors(model))
    # The header wants every size before the first value.
    for name, _, size in found:
        type_of = type_ if len(size) == 2 else gguf.GGMLQuantizationType.F32
        stored = gguf.quant_shape_to_byte_shape(size, type_of) if len(size) == 2 else size
        count = int(numpy.prod(stored)) * (1 if len(size) == 2 else 4)
        dtype = numpy.dtype(numpy.uint8 if len(size) == 2 else numpy.float32)
        writer.add_tensor_info(name, stored, dtype, count, raw_dtype=type_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (_, _, size) in enumerate(found):
        matrix = values(number, size)
        writer.write_tensor_data(gguf.quants.quantize(matrix, type_) if len(size) == 2 else matrix)
    writer.close()
    part.rename(target)


def write_folder(folder, model, tokenizer):
    """config.json, model.safetensors in bf16, tokenizer.json."""
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    config = {name: model[name] for name in model if name not in ("initializer_range", "attention_bias", "mlp_bias")}
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
    config |= {"torch_dtype": "bfloat16", "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 0}
    (part / "config.json").write_text(json.dumps(config, indent=2))
    (part / "tokenizer.json").write_text(json.dumps(wider(json.loads(tokenizer.read_text()), model["vocab_size"])))
    header, end, found = {}, 0, list(tensors(model))
    for _, name, size in found:
        begin, end = end, end + 2 * int(numpy.prod(size))
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (part / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (_, _, size) in enumerate(found):
            file.write((values(number, size).view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes())
    part.rename(folder)


def wider(tokenizer, vocabulary):
    """The tokenizer with made-up tokens, up to so many."""
    words = tokenizer["model"]["vocab"]
    for token in range(len(words), vocabulary):
        words[f"t{token}"] = token
    return tokenizer


def make(work, recipe, tokenizer, kinds):
    """Writes what is missing; returns the folder."""
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    model, folder = shape(recipe), work / "random-shape"
    if not folder.exists():
        write_folder(folder, model, Path(tokenizer))
    for kind in kinds:
        if not gguf_path(work, kind).exists():
            write_gguf(gguf_path(work, kind), model, kind)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the files are made and kept")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/llama3-earlyexit.toml"))
    parser.add_argument("--tokenizer", type=Path, default=Path("models/tinystories-24/tokenizer.json"))
    parser.add_argument("--kinds", default="Q8_0,Q4_0", help="of BF16, Q8_0, Q4_0")
    job = parser.parse_args()
    print(make(job.work, job.recipe, job.tokenizer, job.kinds.split(",")))


if __name__ == "__main__":
    main()
