"""Makes tests/fixtures/: tiny Llamas and what PyTorch says about them.

Everything here is computed by stock `torch` and `transformers`, nothing by offramp, so that the Rust tests
(tests/tests/golden_*.rs) compare against an implementation that is not ours. Deterministic by seed. Run it as
README.md beside it says; without arguments it rewrites every fixture, with names only those.
"""

import json
import math
import re
import shutil
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
EARLY_EXIT_LOSS_SCALE = 0.3


# --- Models ---------------------------------------------------------------------------------------------------


def make_model(seed, **config):
    """A Llama in f32 with eager attention, its weights far enough from the usual init that mistakes show."""
    config = {"bos_token_id": 1, "eos_token_id": 2, **config}
    return make_weights(LlamaForCausalLM(LlamaConfig(attn_implementation="eager", **config)).float().eval(), seed)


def make_weights(model, seed):
    """Gives a model weights by seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:  # a norm: anywhere in [0.5, 1.5], never 1
                weight.copy_(torch.rand(weight.shape, generator=generator) + 0.5)
            else:  # logits, queries and keys of about unit size
                weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1]))
    return model


def save_model(model, folder, dtype=torch.float32, **options):
    """Writes the folder as transformers writes it, and returns the model read back and widened to f32."""
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, **options)
    return load_model(folder)


def load_model(folder):
    """The model of a folder as stock transformers reads it: f32, eager attention, eval mode."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.float().eval()


def write_old_config(folder, rope_scaling):
    """Rewrites config.json with the keys that transformers 4.45 writes, then checks the meaning is unchanged."""
    new = LlamaConfig.from_pretrained(folder)
    old = {
        "_name_or_path": "",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": new.bos_token_id,
        "eos_token_id": new.eos_token_id,
        "head_dim": new.head_dim,
        "hidden_act": "silu",
        "hidden_size": new.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": new.intermediate_size,
        "max_position_embeddings": new.max_position_embeddings,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": new.num_attention_heads,
        "num_hidden_layers": new.num_hidden_layers,
        "num_key_value_heads": new.num_key_value_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": new.rms_norm_eps,
        "rope_scaling": rope_scaling,
        "rope_theta": new.rope_parameters["rope_theta"],
        "tie_word_embeddings": new.tie_word_embeddings,
        "torch_dtype": "float32",
        "transformers_version": "4.45.2",
        "use_cache": True,
        "vocab_size": new.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(old, indent=2, sort_keys=True) + "\n")
    again = LlamaConfig.from_pretrained(folder)
    assert again.rope_parameters == new.rope_parameters, (again.rope_parameters, new.rope_parameters)


def random_ids(seed, vocab_size, *shape):
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


# --- The forward pass, with an exit after every layer ---------------------------------------------------------


def exit_logits(model, input_ids, keep=None, dropout=None):
    """Logits at every exit, [batch, tokens, vocab] each: `exit_layer` layers, the final norm, the LM head.

    `keep` [layers][batch] (layer dropout): a sample whose entry is 0 skips that layer. `dropout` [layers], only
    with `keep`: a layer with probability p of being dropped adds 1/(1-p) times what it would have added.
    """
    hidden = model.model.embed_tokens(input_ids)  # [batch, tokens, hidden]
    tokens = input_ids.shape[1]
    positions = torch.arange(tokens).unsqueeze(0)
    rope = model.model.rotary_emb(hidden, positions)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    mask = torch.zeros(1, 1, tokens, tokens).masked_fill(future, torch.finfo(torch.float32).min)
    logits = []
    for index, layer in enumerate(model.model.layers):
        output = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rope)
        output = output[0] if isinstance(output, tuple) else output  # transformers 4 returns a tuple
        if keep is not None:
            if dropout is not None:
                output = hidden + (output - hidden) / (1.0 - dropout[index])
            kept = torch.tensor(keep[index], dtype=torch.bool).view(-1, 1, 1)
            output = torch.where(kept, output, hidden)
        hidden = output
        logits.append(model.lm_head(model.model.norm(hidden)))
    return logits


def checked_exit_logits(model, input_ids):
    """`exit_logits` without gradients, after asserting that the last exit is what the stock model answers."""
    with torch.no_grad():
        logits = exit_logits(model, input_ids)
        stock = model(input_ids).logits
    assert torch.equal(logits[-1], stock), (logits[-1] - stock).abs().max()
    return logits


def loss_of(logits, labels):
    """CE_L + 0.3 · Σ w_i CE_i / Σ w_i with w_i = (i+1)/L for i = 0 … L−2, and the list of CE (one per exit)."""
    losses = [F.cross_entropy(exit.flatten(0, 1), labels.flatten()) for exit in logits]
    weights = [(index + 1) / len(losses) for index in range(len(losses) - 1)]
    early = sum(w * ce for w, ce in zip(weights, losses)) / sum(weights)
    return losses[-1] + EARLY_EXIT_LOSS_SCALE * early, losses


# --- Expected files -------------------------------------------------------------------------------------------


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1)
    # A list of numbers is one line.
    text = re.sub(r"\[([^\[\]{}]*)\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    path.write_text(text + "\n")


def logits_tensors(model, input_ids):
    tensors = {"input_ids": input_ids}
    for index, logits in enumerate(checked_exit_logits(model, input_ids)):
        tensors[f"logits.exit_layer_{index + 1}"] = logits
    return tensors


def gradient_tensors(model, input_ids, labels, prefix, **layer_dropout):
    """The gradient of every weight, named `{prefix}grad.{weight}`, and the losses behind it."""
    model.zero_grad()
    total, losses = loss_of(exit_logits(model, input_ids, **layer_dropout), labels)
    total.backward()
    tensors = {}
    for name, weight in model.named_parameters():
        # A layer that every sample skipped has no gradient: that is a gradient of zero.
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        tensors[f"{prefix}grad.{name}"] = gradient
    return tensors, {"total": total.item(), "exit_losses": [ce.item() for ce in losses]}


def distillation(folder):
    """`gqa-untied`, whose exits learn from the last layer's logits beside the labels."""
    model = load_model(FIXTURES / "gqa-untied").double()  # the gradient of a minimum jumps where two are equal
    rows = random_ids(31, model.config.vocab_size, 3, 13)
    input_ids, labels = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    tensors, expected = {"input_ids": input_ids, "labels": labels}, {}
    for distance, share in (("kl", 0.5), ("lk", 0.75)):
        model.zero_grad()
        logits = [exit.flatten(0, 1) for exit in exit_logits(model, input_ids)]
        full = logits[-1].detach().softmax(-1)
        crosses = [F.cross_entropy(exit, labels.flatten()) for exit in logits]
        if distance == "kl":
            apart = [F.kl_div(exit.log_softmax(-1), full, reduction="batchmean") for exit in logits]
        else:
            apart = [-torch.minimum(exit.softmax(-1), full).sum(-1).log().mean() for exit in logits]
        losses = [(1 - share) * ce + share * d for ce, d in zip(crosses[:-1], apart)]
        weights = [(index + 1) / len(logits) for index in range(len(losses))]
        early = sum(w * loss for w, loss in zip(weights, losses)) / sum(weights)
        (crosses[-1] + EARLY_EXIT_LOSS_SCALE * early).backward()
        expected[distance] = {"share": share, "cross_entropies": [ce.item() for ce in crosses]}
        for name, weight in model.named_parameters():
            tensors[f"{distance}.grad.{name}"] = weight.grad.float().clone()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "expected.safetensors")
    write_json(folder / "expected.json", expected)


def exit_adapters(folder):
    """Exits 1 and 3 of `gqa-untied`, each with a norm and an adapter of its own; the model does not learn."""
    model = load_model(FIXTURES / "gqa-untied").double()
    hidden_size, rank, weights = model.config.hidden_size, 3, {1: 0.25, 3: 0.5}
    generator = torch.Generator().manual_seed(53)
    adapters = {}
    for exit_layer in weights:
        shapes = {"norm": (hidden_size,), "down_proj": (rank, hidden_size), "up_proj": (hidden_size, rank)}
        for part, shape in shapes.items():
            scale = 0.5 if part == "norm" else shape[-1] ** -0.5
            values = scale * torch.randn(shape, generator=generator) + (1.0 if part == "norm" else 0.0)
            adapters[f"exits.{exit_layer}.{part}.weight"] = values
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapters, folder / "exits.safetensors")
    parameters = {name: values.double().requires_grad_() for name, values in adapters.items()}

    rows = random_ids(31, model.config.vocab_size, 3, 13)
    input_ids, labels = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    tensors, crosses, total = {"input_ids": input_ids, "labels": labels}, {}, 0.0
    with torch.no_grad():
        states = model.model(input_ids, output_hidden_states=True).hidden_states
        full = model(input_ids).logits.flatten(0, 1)
    for exit_layer, weight in weights.items():
        norm, down, up = (
            parameters[f"exits.{exit_layer}.{part}.weight"] for part in ("norm", "down_proj", "up_proj")
        )
        state = states[exit_layer]
        z = F.rms_norm(state, (hidden_size,), norm, model.config.rms_norm_eps)
        logits = F.linear(z + F.linear(F.silu(F.linear(z, down)), up), model.lm_head.weight.detach()).flatten(0, 1)
        tensors[f"logits.exit_layer_{exit_layer}"] = logits.detach().float().unflatten(0, input_ids.shape).clone()
        ce = F.cross_entropy(logits, labels.flatten())
        apart = F.kl_div(logits.log_softmax(-1), full.softmax(-1), reduction="batchmean")
        total = total + weight * (0.5 * ce + 0.5 * apart)
        crosses[str(exit_layer)] = ce.item()
    total.backward()
    crosses[str(model.config.num_hidden_layers)] = F.cross_entropy(full, labels.flatten()).item()
    tensors |= {f"grad.{name}": values.grad.float().clone() for name, values in parameters.items()}
    save_file(tensors, folder / "expected.safetensors")
    write_json(folder / "expected.json", {"rank": rank, "weights": weights, "cross_entropies": crosses})


def write_expected(model, folder, batch, tokens, seed, layer_dropout=None):
    """expected.safetensors (logits at every exit; with `layer_dropout` also gradients) and expected.json."""
    rows = random_ids(seed, model.config.vocab_size, batch, tokens + 1)
    input_ids, labels = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    tensors = logits_tensors(model, input_ids)
    if layer_dropout is not None:
        keep, dropout = layer_dropout["keep"], layer_dropout["p"]
        tensors["labels"] = labels
        plain, plain_loss = gradient_tensors(model, input_ids, labels, "")
        dropped, dropped_loss = gradient_tensors(model, input_ids, labels, "dropout.", keep=keep)
        rescaled, rescaled_loss = gradient_tensors(
            model, input_ids, labels, "dropout_rescale.", keep=keep, dropout=dropout
        )
        tensors |= plain | dropped | rescaled
        write_json(
            folder / "expected.json",
            {
                "early_exit_loss_scale": EARLY_EXIT_LOSS_SCALE,
                "loss": plain_loss,
                "layer_dropout": {"keep": keep, "p": dropout, "rescale": False} | dropped_loss,
                "layer_dropout_rescale": {"keep": keep, "p": dropout, "rescale": True} | rescaled_loss,
            },
        )
    save_file(tensors, folder / "expected.safetensors")


# --- The fixtures ---------------------------------------------------------------------------------------------


def gqa_untied(folder):
    """The plain case: grouped queries, an untied head, and a vocabulary that no SIMD width divides."""
    model = make_model(
        1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=101,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    model = save_model(model, folder)
    # Mixed, nobody, one; p as `shape = "linear"`, `p_max = 0.75`, `drop_last = true` give them.
    keep = [[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]]
    write_expected(model, folder, 3, 12, 11, {"keep": keep, "p": [0.0, 0.25, 0.5, 0.75]})


def tied_headdim(folder):
    """A tied head, head_dim ≠ hidden/heads, sizes that are multiples of nothing, the old config's keys."""
    model = make_model(
        2,
        hidden_size=20,
        intermediate_size=41,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=61,
        max_position_embeddings=48,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    save_model(model, folder)
    write_old_config(folder, None)
    keep = [[1, 1, 1], [0, 1, 1], [1, 0, 1]]
    write_expected(load_model(folder), folder, 3, 13, 12, {"keep": keep, "p": [0.0, 0.3, 0.6]})


def small(seed, **changes):
    config = dict(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=37,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    return make_model(seed, **(config | changes))


def rope_linear(folder):
    """Linear RoPE scaling under `rope_parameters`, as transformers 5 writes it."""
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    model = save_model(small(3, rope_parameters=rope), folder)
    write_expected(model, folder, 1, 40, 13)


def rope_llama3(folder):
    """Llama 3 RoPE scaling under `rope_scaling`, the old keys, on a text longer than the original context."""
    scaling = {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 32,
        "rope_type": "llama3",
    }
    model = small(4, rope_parameters=scaling | {"rope_theta": 10000.0}, eos_token_id=[2, 3])
    plain = 10000.0 ** (-torch.arange(0, 16, 2) / 16)
    ratio = model.model.rotary_emb.inv_freq / plain  # 1: kept, 1/8: scaled, between: blended
    assert ratio.max() > 0.999 and ratio.min() < 0.126 and ((ratio > 0.13) & (ratio < 0.99)).any(), ratio
    save_model(model, folder)
    write_old_config(folder, scaling)
    write_expected(load_model(folder), folder, 1, 48, 14)


def bf16_sharded(folder):
    """bfloat16 over several shards with an index; the expected logits are those of the same numbers in f32."""
    model = save_model(small(5, num_hidden_layers=3), folder, torch.bfloat16, max_shard_size=4096)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    write_expected(model, folder, 2, 10, 15)


def f16(folder):
    """float16 in one file; the expected logits are those of the same numbers in f32."""
    model = save_model(small(6), folder, torch.float16)
    write_expected(model, folder, 2, 10, 16)


def bare_names(folder):
    """The decoder of a tied model saved without its head, so that no name begins with `model.`."""
    model = save_model(tiny(18, tie_word_embeddings=True), folder)
    write_expected(model, folder, 1, 8, 19)  # of the whole model
    for path in folder.glob("model*"):
        path.unlink()
    model.model.save_pretrained(folder)
    assert not any(name.startswith(("model.", "lm_head")) for name in load_file(folder / "model.safetensors"))
    assert_same(load_model(folder), model)


def head_only(folder):
    """A tied model that holds its embedding as `lm_head.weight`, in shards in folders, with a buffer that the index does
    not list and one that no shard has, under a config.json as somebody would write it by hand.
    """
    model = save_model(tiny(20, tie_word_embeddings=True), folder)
    write_expected(model, folder, 1, 8, 21)
    for path in [*folder.glob("model*"), folder / "generation_config.json"]:
        path.unlink()
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    del tensors["model.embed_tokens.weight"]
    names, buffer = sorted(tensors), "model.layers.{}.self_attn.rotary_emb.inv_freq"
    shards = {"a/model-1.safetensors": names[::2], "a/b/model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        (folder / shard).parent.mkdir(parents=True, exist_ok=True)
        extra = {buffer.format(0): torch.ones(4)} if "b/" in shard else {}
        save_file({name: tensors[name] for name in held} | extra, folder / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    weight_map[buffer.format(1)] = "a/model-1.safetensors"
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 29,
        "tie_word_embeddings": True,
    }
    write_json(folder / "config.json", config)
    assert_same(load_model(folder), model)


def tiny(seed, **config):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return make_model(seed, vocab_size=29, **sizes, **config)


def assert_same(model, other):
    """That two models answer alike, to the bit."""
    ids = random_ids(22, model.config.vocab_size, 1, 8)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, other(ids).logits)


def perplexity(folder):
    """DESIGN's protocol on `gqa-untied`: windows of C+1 tokens overlapping by one, the last one shorter."""
    model, context = load_model(FIXTURES / "gqa-untied"), 16
    vocab_size, layers = model.config.vocab_size, model.config.num_hidden_layers
    stream = random_ids(17, vocab_size, 203)
    end_of_text = int(stream[40])  # a token that does occur; it costs nats and counts no bytes
    byte_lengths = [0 if token == end_of_text else 1 + token * 7 % 9 for token in range(vocab_size)]
    nats, agreed, scored, scored_bytes = [0.0] * layers, [0] * layers, 0, 0
    for start in range(0, len(stream) - 1, context):
        window = stream[start : start + context + 1]
        inputs, labels = window[:-1].unsqueeze(0), window[1:]
        exits = [logits[0].double() for logits in checked_exit_logits(model, inputs)]
        scored += len(labels)
        scored_bytes += sum(byte_lengths[label] for label in labels)
        for index, logits in enumerate(exits):
            top = logits.topk(2).values  # no argmax may hang on the last bit
            assert (top[:, 0] - top[:, 1]).min() > 1e-4, "two tokens tie: choose another seed"
            nats[index] += F.cross_entropy(logits, labels, reduction="sum").item()
            agreed[index] += (logits.argmax(-1) == exits[-1].argmax(-1)).sum().item()
    assert scored == len(stream) - 1
    exits = [
        {
            "exit_layer": index + 1,
            "nats": nats[index],
            "nats_per_token": nats[index] / scored,
            "perplexity": math.exp(nats[index] / scored),
            "bits_per_byte": nats[index] / math.log(2) / scored_bytes,
            "agreement": agreed[index] / scored,
        }
        for index in range(layers)
    ]
    header = {"model": "gqa-untied", "context": context, "end_of_text": end_of_text}
    counts = {"tokens_scored": scored, "bytes_scored": scored_bytes}
    lists = {"tokens": stream.tolist(), "byte_lengths": byte_lengths}
    write_json(folder / "expected.json", header | counts | {"exits": exits} | lists)


# --- The optimizer --------------------------------------------------------------------------------------------

BETAS, EPS, WEIGHT_DECAY, MAX_NORM = (0.9, 0.95), 1e-8, 0.1, 1.0
SCHEDULE = {"peak": 3e-3, "warmup_steps": 3, "steps": 10, "final_fraction": 0.1}


def learning_rate(step):
    """Linear warm-up to the peak, then a cosine to a tenth of it; `step` counts from 0."""
    peak, warmup, steps = SCHEDULE["peak"], SCHEDULE["warmup_steps"], SCHEDULE["steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    final = peak * SCHEDULE["final_fraction"]
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def adamw_for(parameters):
    """AdamW with weight decay on matrices only."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, foreach=False)


def optimizer_step(optimizer, parameters, step):
    """Clips, sets the rate, steps; returns the rate and the global gradient norm before clipping."""
    norm = torch.nn.utils.clip_grad_norm_(list(parameters), MAX_NORM).item()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step)
    optimizer.step()
    return learning_rate(step), norm


def optimizer_settings():
    return {"betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY, "max_norm": MAX_NORM, "schedule": SCHEDULE}


def adamw(folder):
    """Ten steps over three tensors with given gradients, some above the clipping norm and some below."""
    generator = torch.Generator().manual_seed(18)
    shapes = {"matrix": (5, 7), "vector": (9,), "row": (1, 33)}
    parameters = {n: torch.nn.Parameter(torch.randn(s, generator=generator)) for n, s in shapes.items()}
    tensors = {f"initial.{name}": p.detach().clone() for name, p in parameters.items()}
    optimizer, rates, norms = adamw_for(parameters.values()), [], []
    for step in range(SCHEDULE["steps"]):
        size = 0.02 if step % 3 == 1 else 1.0
        for name, parameter in parameters.items():
            parameter.grad = size * torch.randn(shapes[name], generator=generator)
            tensors[f"step_{step}.grad.{name}"] = parameter.grad.clone()
        rate, norm = optimizer_step(optimizer, parameters.values(), step)
        rates.append(rate)
        norms.append(norm)
        tensors |= {f"step_{step}.after.{name}": p.detach().clone() for name, p in parameters.items()}
    assert min(norms) < MAX_NORM < max(norms)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "expected.safetensors")
    expected = {"tensors": list(shapes), "learning_rates": rates, "grad_norms": norms}
    write_json(folder / "expected.json", optimizer_settings() | expected)


MUON_MOMENTUM = 0.9
MUON_SHAPES = {  # of a model 8 wide, with 2 heads and 1 key-value head; its other weights stay zero
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.self_attn.o_proj.weight": (8, 8),
    "model.layers.0.mlp.gate_proj.weight": (12, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.norm.weight": (8,),
    "lm_head.weight": (5, 8),
}


def newton_schulz_in_f64(gradient, coefficients, steps, eps):
    """`torch.optim._muon._zeropower_via_newtonschulz` without its rounding to bfloat16."""
    a, b, c = coefficients
    tall = gradient.size(0) > gradient.size(1)
    x = gradient.double().T if tall else gradient.double()
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(gradient.dtype)


def muon_steps():
    """Ten steps of Muon for the layer's matrices and AdamW for the rest, with given gradients."""
    generator = torch.Generator().manual_seed(21)
    parameters = {n: torch.nn.Parameter(torch.randn(s, generator=generator)) for n, s in MUON_SHAPES.items()}
    tensors = {f"initial.{name}": p.detach().clone() for name, p in parameters.items()}
    layers = [p for name, p in parameters.items() if "layers" in name]
    others = adamw_for(p for name, p in parameters.items() if "layers" not in name)
    settings = {"weight_decay": WEIGHT_DECAY, "momentum": MUON_MOMENTUM, "adjust_lr_fn": "match_rms_adamw"}
    muon, rates, norms = torch.optim.Muon(layers, lr=0.0, **settings), [], []
    for step in range(SCHEDULE["steps"]):
        size = 0.02 if step % 3 == 1 else 1.0
        for name, parameter in parameters.items():
            parameter.grad = size * torch.randn(MUON_SHAPES[name], generator=generator)
            tensors[f"step_{step}.grad.{name}"] = parameter.grad.clone()
        rate, norm = optimizer_step(others, parameters.values(), step)  # clips all gradients
        muon.param_groups[0]["lr"] = rate
        muon.step()
        rates.append(rate)
        norms.append(norm)
        tensors |= {f"step_{step}.after.{name}": p.detach().clone() for name, p in parameters.items()}
    return tensors, {"learning_rates": rates, "grad_norms": norms}


def muon(folder):
    """`torch.optim.Muon`, its iteration in f64; and where it ends with its own, which is in bfloat16."""
    rounded, _ = muon_steps()
    own = torch.optim._muon._zeropower_via_newtonschulz
    torch.optim._muon._zeropower_via_newtonschulz = newton_schulz_in_f64
    tensors, expected = muon_steps()
    torch.optim._muon._zeropower_via_newtonschulz = own
    last = f"step_{SCHEDULE['steps'] - 1}.after"
    tensors |= {f"bfloat16.{name}": rounded[f"{last}.{name}"] for name in MUON_SHAPES}
    worst = max((tensors[f"{last}.{n}"] - rounded[f"{last}.{n}"]).abs().max().item() for n in MUON_SHAPES)
    assert 0 < worst < 1e-3, worst
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "expected.safetensors")
    write_json(folder / "expected.json", optimizer_settings() | {"momentum": MUON_MOMENTUM} | expected)


def training(folder):
    """Ten training steps of `gqa-untied` over fixed batches: losses, gradient norms and where the weights end."""
    model = load_model(FIXTURES / "gqa-untied")
    parameters = dict(model.named_parameters())
    distinct = random_ids(19, model.config.vocab_size, 3, 4, 17)  # [batches, batch, tokens + 1], used in turn
    batches = [distinct[step % 3] for step in range(SCHEDULE["steps"])]
    optimizer, steps = adamw_for(parameters.values()), []
    for step, rows in enumerate(batches):
        optimizer.zero_grad()
        total, losses = loss_of(exit_logits(model, rows[:, :-1]), rows[:, 1:])
        total.backward()
        rate, norm = optimizer_step(optimizer, parameters.values(), step)
        exits = [ce.item() for ce in losses]
        steps.append({"loss": total.item(), "exit_losses": exits, "grad_norm": norm, "learning_rate": rate})
    sums = {
        name: {"sum": w.double().sum().item(), "sum_of_squares": w.double().square().sum().item()}
        for name, w in parameters.items()
    }
    header = {"model": "gqa-untied", "early_exit_loss_scale": EARLY_EXIT_LOSS_SCALE} | optimizer_settings()
    rows = [batch.tolist() for batch in batches]
    write_json(folder / "expected.json", header | {"steps": steps, "final_weights": sums, "batches": rows})


# In order: the later ones read the earlier ones' folders.
ALL = {
    "gqa-untied": gqa_untied,
    "tied-headdim": tied_headdim,
    "rope-linear": rope_linear,
    "rope-llama3": rope_llama3,
    "bf16-sharded": bf16_sharded,
    "f16": f16,
    "bare-names": bare_names,
    "head-only": head_only,
    "perplexity": perplexity,
    "adamw": adamw,
    "muon": muon,
    "training": training,
    "distillation": distillation,
    "exit-adapters": exit_adapters,
}

if __name__ == "__main__":
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # one order of summation
    for name in sys.argv[1:] or ALL:
        ALL[name](FIXTURES / name)
        size = sum(path.stat().st_size for path in (FIXTURES / name).rglob("*") if path.is_file())
        print(f"{name}: {size / 1024:.0f} KiB")
