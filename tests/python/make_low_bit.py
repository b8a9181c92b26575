"""Makes tests/fixtures/bitskip/: a tiny model with BitLinear layers, and what PyTorch says of it as v1, v2 and v3.

The layers are stock `transformers` BitNet's with every projection replaced by the module below, whose gradients go
straight through the rounding (`x + (q(x) - x).detach()`, BitNet's training tips). For v1 the logits are first checked
to be those of the stock model with its own `AutoBitLinear`. Run it as README.md beside it says, after make_fixtures.py.
"""

import json
import math
import os

os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # transformers compiles its rounding; here nothing needs to be fast

import torch
import torch.nn.functional as F
from make_fixtures import FIXTURES, exit_logits, gradient_tensors, random_ids, write_json
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, BitNetConfig, BitNetForCausalLM
from transformers.utils import logging

FOLDER = FIXTURES / "bitskip"
VERSIONS = {"v1": (8, False), "v2": (4, True), "v3": (8, True)}  # bits of activations, and the rotation


def hadamard(size):
    """The orthonormal matrix of a power of two, in Sylvester's order."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    return matrix / math.sqrt(size)


def straight_through(x, rounded):
    return x + (rounded - x).detach()


class Margin:
    """How near to half-way the nearest value was that was rounded: other sums could round it the other way."""

    nearest = 1.0

    @classmethod
    def round(cls, x, least, most):
        inside = x[(x > least - 0.5) & (x < most + 0.5)]
        if inside.numel():
            cls.nearest = min(cls.nearest, ((inside - inside.floor()) - 0.5).abs().min().item())
        return x.round().clamp(least, most)


def ternary(weight):
    scale = 1.0 / weight.abs().mean().clamp(min=1e-5)
    return straight_through(weight, Margin.round(weight.detach() * scale.detach(), -1, 1) / scale.detach())


def rounded_activations(x, bits):
    values = x.detach()
    if bits == 8:
        scale = 127 / values.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
        return straight_through(x, Margin.round(values * scale, -128, 127) / scale)
    beta = values.abs().mean(dim=-1, keepdim=True).clamp(min=1e-5)
    return straight_through(x, Margin.round(math.sqrt(7) * values / beta, -8, 7) * beta / math.sqrt(7))


class BitLinear(nn.Module):
    def __init__(self, linear, bits, rotate):
        super().__init__()
        self.weight, self.bits = linear.weight, bits
        self.rotation = hadamard(self.weight.shape[1]) if rotate else None

    def forward(self, x):
        if self.rotation is not None:
            x = x @ self.rotation
        return F.linear(rounded_activations(x, self.bits), ternary(self.weight))


def make_model(seed):
    config = BitNetConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=43,
        max_position_embeddings=32,
        rms_norm_eps=1e-5,
        hidden_act="silu",
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    config._attn_implementation = "eager"
    model = BitNetForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:  # a norm: anywhere in [0.5, 1.5], never 1
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
            else:
                weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1]))
    return model


def with_bit_linear(model, bits, rotation):
    for layer in model.model.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, linear in list(block.named_children()):
                if name.endswith("_proj"):
                    rotates = rotation and name in ("o_proj", "down_proj")
                    setattr(block, name, BitLinear(linear, bits, rotates))
    return model


def write_model(model):
    """The folder of v1 as stock transformers reads it, weights not rounded yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(FOLDER)
    config = json.loads((FOLDER / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "online",
        "use_rms_norm": False,
        "rms_norm_eps": 1e-6,
        "modules_to_not_convert": None,
    }
    (FOLDER / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def version(seed, name, rows):
    """Logits at every exit, the gradient of every weight, the losses, and the margin of what was rounded."""
    inputs, labels = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    model = with_bit_linear(make_model(seed), *VERSIONS[name])
    Margin.nearest = 1.0
    with torch.no_grad():
        logits = exit_logits(model, inputs)
    tensors = {f"{name}.logits.exit_layer_{index + 1}": exit for index, exit in enumerate(logits)}
    gradients, losses = gradient_tensors(model, inputs, labels, f"{name}.")
    return tensors | gradients, losses, Margin.nearest


def check_stock(tensors, rows):
    stock = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32, attn_implementation="eager")
    assert type(stock) is BitNetForCausalLM and type(stock.lm_head) is nn.Linear, type(stock)
    with torch.no_grad():
        apart = (stock(rows[:, :-1]).logits - tensors["v1.logits.exit_layer_3"]).abs().max().item()
    assert apart < 1e-5, apart


def main():
    # The seed whose rounded values keep the most distance from half-way.
    rows = random_ids(23, 43, 2, 10)
    seed = max(range(200), key=lambda seed: min(version(seed, name, rows)[2] for name in VERSIONS))
    write_model(make_model(seed))
    tensors, expected = {"input_ids": rows[:, :-1].contiguous(), "labels": rows[:, 1:].contiguous()}, {}
    for name in VERSIONS:
        found, losses, margin = version(seed, name, rows)
        print(f"{name}: seed {seed}, nearest to half-way {margin:.1e}")
        tensors, expected[name] = tensors | found, losses
    check_stock(tensors, rows)
    save_file(tensors, FOLDER / "expected.safetensors")
    write_json(FOLDER / "expected.json", expected)


if __name__ == "__main__":
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # one order of summation
    main()
