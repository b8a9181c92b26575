"""Makes tests/fixtures/families/: a tiny random model of each family that runs here, and what transformers says of it.

Each folder holds the model as transformers writes it; `expected.safetensors` with the logits at every exit and the
gradient of every weight; and `expected.json` with the losses and 20 tokens of greedy text. tests/tests/golden_families.rs
reads them. Deterministic by seed; run it as README.md beside it says, with names to remake only those.
"""

import math
import sys

import torch
from make_fixtures import EARLY_EXIT_LOSS_SCALE, FIXTURES, loss_of, random_ids, write_json
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)
from transformers.utils import logging

FAMILIES = FIXTURES / "families"
NEW_TOKENS = 20
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 29,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": None,  # greedy text has its 20 tokens
    "pad_token_id": None,
    "attn_implementation": "eager",
}


def rope(rope_type, **keys):
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **keys}}


# Name: seed, config, tokens of a sample, and of the prompt of the greedy text.
MODELS = {
    "mistral": (1, MistralConfig(**SIZES, sliding_window=None), 12, 12),
    "mistral-window": (22, MistralConfig(**SIZES, sliding_window=5), 14, 12),
    "smollm2": (43, LlamaConfig(**SIZES | {"tie_word_embeddings": True, "rms_norm_eps": 1e-6}), 12, 12),
    "smollm3": (
        44,
        SmolLM3Config(**SIZES | {"num_hidden_layers": 3, "tie_word_embeddings": True}, no_rope_layer_interval=2),
        12,
        12,
    ),
    "qwen2": (5, Qwen2Config(**SIZES), 12, 12),
    "qwen2-tied": (
        46,
        Qwen2Config(
            **SIZES | {"tie_word_embeddings": True}, use_sliding_window=True, sliding_window=5, max_window_layers=1
        ),
        12,
        12,
    ),
    "qwen3": (7, Qwen3Config(**SIZES | {"head_dim": 6}), 12, 12),
    "qwen3-biases": (
        8,
        Qwen3Config(
            **SIZES,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
        ),
        12,
        12,
    ),
    "llama-biases": (9, LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True), 12, 12),
    # Beyond the original context of each, but for dynamic scaling: there the base grows with the text, and only a text
    # that goes on past the context token by token has one meaning.
    "yarn": (
        10,
        LlamaConfig(**SIZES | {"head_dim": 16}, **rope("yarn", factor=4.0, original_max_position_embeddings=16)),
        24,
        12,
    ),
    "dynamic": (11, LlamaConfig(**SIZES | {"max_position_embeddings": 16}, **rope("dynamic", factor=3.0)), 16, 12),
    "linear": (32, LlamaConfig(**SIZES | {"max_position_embeddings": 16}, **rope("linear", factor=2.5)), 24, 12),
}


def make(name):
    seed, config, tokens, prompt_tokens = MODELS[name]
    folder = FAMILIES / name
    model = AutoModelForCausalLM.from_config(config).float().eval()
    give_weights(model, seed)
    save_model_of(model, folder)
    write_expected(folder, seed, tokens, prompt_tokens)


def give_weights(model, seed):
    """Weights by seed, far enough from the usual init that mistakes show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(".bias"):  # of about half the size of what it is added to
                weight.copy_(torch.randn(weight.shape, generator=generator) / 2)
            elif weight.dim() == 1:  # a norm: anywhere in [0.5, 1.5], never 1
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
            else:  # logits, queries and keys of about unit size
                weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1]))


def save_model_of(model, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    model.save_pretrained(folder)


def load_model(folder):
    """The model of a folder as stock transformers reads it: f32, eager attention, eval mode."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def exit_logits(model, input_ids):
    """Logits at every exit, [batch, tokens, vocab] each, out of the stock forward; the last are its own."""
    out = model.model(input_ids, output_hidden_states=True, use_cache=False)
    # The states after each layer; the stock forward norms the last of them.
    hidden = [model.model.norm(state) for state in out.hidden_states[1:-1]] + [out.last_hidden_state]
    assert len(hidden) == model.config.num_hidden_layers
    return [model.lm_head(state) for state in hidden]


def write_expected(folder, seed, tokens, prompt_tokens):
    model = load_model(folder)
    rows = random_ids(100 + seed, model.config.vocab_size, 2, tokens + 1)
    input_ids, labels = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    tensors = {"input_ids": input_ids, "labels": labels}
    exits = exit_logits(model, input_ids)
    with torch.no_grad():
        assert torch.equal(exits[-1], model(input_ids).logits)
    for index, logits in enumerate(exits):
        tensors[f"logits.exit_layer_{index + 1}"] = logits.detach()
    total, losses = loss_of(exits, labels)
    total.backward()
    for name, weight in model.named_parameters():
        tensors[f"grad.{name}"] = weight.grad.clone()
    save_file(tensors, folder / "expected.safetensors")
    prompt = input_ids[:1, :prompt_tokens]
    expected = {
        "early_exit_loss_scale": EARLY_EXIT_LOSS_SCALE,
        "loss": {"total": total.item(), "exit_losses": [loss.item() for loss in losses]},
        "prompt": prompt[0].tolist(),
        "greedy": greedy(load_model(folder), prompt),
    }
    write_json(folder / "expected.json", expected)


def greedy(model, prompt):
    """Greedy text as `generate` gives it, with its cache."""
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    for logits in out.logits:
        top = logits[0].topk(2).values
        assert top[0] - top[1] > 1e-3, "two tokens nearly tie: choose another seed"
    text = out.sequences[0, prompt.shape[1] :].tolist()
    assert len(text) == NEW_TOKENS and len(set(text)) > 2, text
    return text


if __name__ == "__main__":
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # one order of summation
    for name in sys.argv[1:] or MODELS:
        make(name)
        size = sum(path.stat().st_size for path in (FAMILIES / name).iterdir())
        print(f"{name}: {size / 1024:.0f} KiB")
