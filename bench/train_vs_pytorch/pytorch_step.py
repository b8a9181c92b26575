"""Times training steps of a Llama in PyTorch, set up as well as we know how; prints one JSON line.

    GLIBC_TUNABLES=… python pytorch_step.py RECIPE --mode f32|bf16|compile|compile-bf16 --steps 6

The model is transformers' architecture written out plainly (fused QKV and gate-up, scaled_dot_product_attention),
because `LlamaForCausalLM` is slower: PyTorch is to have its best. Sizes, batch and exits come from the recipe that
offramp trains; the tokens are random, which costs the same. With a loss at every exit, each exit's logits are made,
used and freed before the next one's, so that PyTorch holds no more of them than it must.
"""

import argparse
import json
import time
import tomllib

import torch
import torch.nn.functional as F
from torch import nn

class Layer(nn.Module):
    def __init__(self, m):
        super().__init__()
        hidden, self.heads, self.kv_heads = m["hidden_size"], m["num_attention_heads"], m["num_key_value_heads"]
        self.head_dim = hidden // self.heads
        self.input_layernorm = nn.RMSNorm(hidden, eps=1e-5)
        self.qkv_proj = nn.Linear(hidden, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=1e-5)
        self.gate_up_proj = nn.Linear(hidden, 2 * m["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(m["intermediate_size"], hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, _ = x.shape
        qkv = self.qkv_proj(self.input_layernorm(x)).view(batch, tokens, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(attended.transpose(1, 2).reshape(batch, tokens, -1))
        gate, up = self.gate_up_proj(self.post_attention_layernorm(x)).chunk(2, dim=-1)
        return x + self.down_proj(F.silu(gate) * up)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Llama(nn.Module):
    def __init__(self, m, vocab, tokens):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, m["hidden_size"])
        self.layers = nn.ModuleList(Layer(m) for _ in range(m["num_hidden_layers"]))
        self.norm = nn.RMSNorm(m["hidden_size"], eps=1e-5)
        self.lm_head = nn.Linear(m["hidden_size"], vocab, bias=False)
        head_dim = m["hidden_size"] // m["num_attention_heads"]
        angles = torch.outer(torch.arange(tokens), 10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)

    def states(self, inputs, every):
        """The residual stream after each layer, or after the last alone."""
        x, states = self.embed_tokens(inputs), []
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
            states.append(x)
        return states if every else states[-1:]

    def loss(self, x, labels):
        return F.cross_entropy(self.lm_head(self.norm(x)).float().flatten(0, -2), labels.flatten())


def step(model, loss, inputs, labels, exits):
    """Forward, the exits' losses and the backward: each exit's logits are freed before the next one's are made."""
    states = model.states(inputs, exits)
    if not exits:
        loss(states[-1], labels).backward()
        return
    layers = len(states)
    weights = [0.3 * (i + 1) / sum(range(1, layers)) for i in range(layers - 1)] + [1.0]
    leaves = [state.detach().requires_grad_() for state in states]
    for leaf, weight in zip(leaves, weights):
        (weight * loss(leaf, labels)).backward()
    torch.autograd.backward(states, [leaf.grad for leaf in leaves])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("--mode", choices=["f32", "bf16", "compile", "compile-bf16"], default="f32")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with open(arguments.recipe, "rb") as file:
        recipe = tomllib.load(file)
    m, t = recipe["model"], recipe["training"]
    exits = recipe["early_exit"]["curriculum"] == "all"
    shape = (t["batch_size"], t["sequence_length"])
    model = Llama(m, m["vocab_size"], shape[1])
    loss = model.loss
    if arguments.mode.startswith("compile"):
        model.states, loss = torch.compile(model.states), torch.compile(model.loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    seconds = []
    for index in range(arguments.steps + 2):
        inputs, labels = torch.randint(m["vocab_size"], shape), torch.randint(m["vocab_size"], shape)
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.mode.endswith("bf16")):
            step(model, loss, inputs, labels, exits)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        if index >= 2:  # warm-up: memory is touched, code is compiled
            seconds.append(time.perf_counter() - start)
    tokens = shape[0] * shape[1]
    print(json.dumps({"tokens_per_second": [tokens / s for s in seconds]}))


if __name__ == "__main__":
    main()
