"""Makes the `bitnet-*` folders of tests/fixtures/: one tiny ternary model as transformers writes it in each of its ways.

`bitnet-online` holds the weights that ternary ones are made of (`autobitlinear`, online), `bitnet-packed` packed codes
(`bitlinear`, whose weight_scale divides), `bitnet-offline` the same codes (`autobitlinear`, offline, whose
weight_scale multiplies); each with the logits at every exit that stock transformers computes of that folder. Needs
accelerate beside what README.md names.
"""

import json
import os
import shutil

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # its layers are compiled otherwise, which needs a C++ compiler

import torch
from make_fixtures import FIXTURES, logits_tensors, make_weights, random_ids
from safetensors.torch import load_file, save_file
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import pack_weights
from transformers.utils import logging


def quantization_config(linear_class, mode):
    return {
        "quant_method": "bitnet",
        "linear_class": linear_class,
        "quantization_mode": mode,
        "use_rms_norm": False,
        "rms_norm_eps": 1e-6,
        "modules_to_not_convert": None,
    }


def load_model(folder):
    return BitNetForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def rewritten(folder, tensors, block, anew=True):
    """Puts other weights and another quantization_config into a folder; has transformers read it and write it anew."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": block}))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if anew:
        model = load_model(folder)
        shutil.rmtree(folder)
        model.save_pretrained(folder)
    save_file(logits_tensors(load_model(folder), random_ids(21, 61, 2, 12)), folder / "expected.safetensors")


def plain(folder):
    """A BitNet without quantisation, and its weights."""
    config = BitNetConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=61,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        hidden_act="silu",
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        attn_implementation="eager",
    )
    model = make_weights(BitNetForCausalLM(config).float().eval(), 9)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def packed(tensors, scale):
    """Ternary codes in place of the layers' matrices, each with what `scale` makes of its mean magnitude."""
    found = {}
    for name, tensor in tensors.items():
        found[name] = tensor
        if tensor.dim() == 2 and ".layers." in name:
            mean = tensor.abs().mean().clamp(min=1e-5)
            found[name] = pack_weights((tensor / mean).round().clamp(-1, 1))
            found[f"{name}_scale"] = scale(mean).reshape(1)
    return found


def online(folder):
    rewritten(folder, plain(folder), quantization_config("autobitlinear", "online"))


def divided(folder):
    tensors = packed(plain(folder), lambda mean: 1 / mean)
    rewritten(folder, tensors, quantization_config("bitlinear", "offline"))


def multiplied(folder):
    # transformers 5.24 reads such folders, but cannot save one that it has read.
    tensors = packed(plain(folder), lambda mean: mean)
    rewritten(folder, tensors, quantization_config("autobitlinear", "offline"), anew=False)


if __name__ == "__main__":
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # one order of summation
    for name, make in {"bitnet-online": online, "bitnet-packed": divided, "bitnet-offline": multiplied}.items():
        make(FIXTURES / name)
        size = sum(path.stat().st_size for path in (FIXTURES / name).iterdir())
        print(f"{name}: {size / 1024:.0f} KiB")
