"""Trains the model of an offramp run in PyTorch, in one process or in several with DDP over gloo; prints one JSON line.

    python bench/ranks/ddp_step.py RECIPE --processes 2 --threads 1 --apart

The model is bench/train_vs_pytorch's. Recipe, first weights, tokens and their order are offramp's, so losses and
gradient norms are too, but for rounding. A step's micro-batches are split among the processes, each a run of
neighbours, and DDP exchanges gradients in the last one's backward, while layers below still go back. With `--apart`
each step is made a second time by a copy of the model that DDP knows nothing of: the difference is what DDP costs.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as distributed
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from batches import Batches

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train_vs_pytorch"))

import pytorch_step

# A layer's weights in pytorch_step, and the tensors of a Hugging Face folder that stand in each, one below the other.
FUSED = {
    "input_layernorm": ["input_layernorm"],
    "qkv_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "o_proj": ["self_attn.o_proj"],
    "post_attention_layernorm": ["post_attention_layernorm"],
    "gate_up_proj": ["mlp.gate_proj", "mlp.up_proj"],
    "down_proj": ["mlp.down_proj"],
}


class Losses(nn.Module):
    """The weighted sum of all exits' losses: DDP wants one forward and one backward."""

    def __init__(self, llama: pytorch_step.Llama, scale: float) -> None:
        super().__init__()
        self.llama = llama
        before = len(llama.layers) - 1
        self.weights = [scale * exit_layer / sum(range(1, before + 1)) for exit_layer in range(1, before + 1)] + [1.0]

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        states = self.llama.states(inputs, True)
        return sum(weight * self.llama.loss(state, labels) for weight, state in zip(self.weights, states))


def first_model(folder: Path, length: int) -> pytorch_step.Llama:
    config = json.loads((folder / "config.json").read_text())
    read = safetensors.torch.load_file(folder / "model.safetensors")
    whole = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    weights = {name.removeprefix("model."): read[name] for name in whole}
    for layer in range(config["num_hidden_layers"]):
        for name, parts in FUSED.items():
            of_parts = [read[f"model.layers.{layer}.{part}.weight"] for part in parts]
            weights[f"layers.{layer}.{name}.weight"] = torch.cat(of_parts)
    model = pytorch_step.Llama(config, config["vocab_size"], length)
    weights |= {"cos": model.cos, "sin": model.sin}
    model.load_state_dict(weights)
    return model


def optimizer_of(model: nn.Module, keys: dict) -> torch.optim.Optimizer:
    decayed = [weight for weight in model.parameters() if weight.dim() == 2]
    others = [weight for weight in model.parameters() if weight.dim() != 2]
    groups = [{"params": decayed, "weight_decay": keys["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=keys["learning_rate"], betas=keys["betas"], eps=keys["eps"], fused=True)


def learning_rate(recipe: dict, step: int) -> float:
    peak, warmup = recipe["optimizer"]["learning_rate"], recipe["schedule"]["warmup_steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(recipe["training"]["steps"] - warmup, 1)
    final = recipe["schedule"]["final_fraction"]
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))


class Learner:
    """A model and its optimizer. `together` exchanges gradients with the other processes."""

    def __init__(self, losses: Losses, recipe: dict, together: bool) -> None:
        self.recipe = recipe
        options = {"gradient_as_bucket_view": True, "broadcast_buffers": False}
        self.model = DistributedDataParallel(losses, **options) if together else losses
        self.silent = self.model.no_sync if together else contextlib.nullcontext
        self.optimizer = optimizer_of(self.model, recipe["optimizer"])

    def step(self, number: int, micro_batches: list[torch.Tensor]) -> tuple[float, float, float]:
        """Seconds, this process's loss and the norm of the gradient."""
        began, share, losses = time.perf_counter(), 1 / len(micro_batches), []
        for rows in micro_batches:
            with contextlib.nullcontext() if rows is micro_batches[-1] else self.silent():
                loss = share * self.model(rows[:, :-1], rows[:, 1:])
                loss.backward()
            losses.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe["optimizer"]["clip"], foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, number)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        return time.perf_counter() - began, float(sum(losses)), float(norm)


def train(rank: int, job: argparse.Namespace, meeting: str) -> None:
    torch.set_num_threads(job.threads)
    recipe = tomllib.loads(job.recipe.read_text())
    training, several = recipe["training"], job.processes > 1
    if several:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=job.processes)
    losses = Losses(first_model(Path(recipe["start"]["checkpoint"]), training["sequence_length"]),
                    recipe["early_exit"]["loss_scale"])
    apart = Learner(copy.deepcopy(losses), recipe, False) if job.apart else None
    learner = Learner(losses, recipe, several)
    batches, found = Batches(Path(recipe["data"]["corpus"]), training), []
    mine = training["accumulation"] // job.processes
    for number in range(training["steps"]):
        first = number * training["accumulation"] + rank * mine
        rows = [torch.tensor(batches.micro_batch(index)) for index in range(first, first + mine)]
        if several:
            distributed.barrier()
        seconds, loss, norm = learner.step(number, rows)
        record = {"seconds": seconds, "loss": mean(loss, job.processes), "grad_norm": norm}
        if apart:
            distributed.barrier()
            record["seconds_apart"] = mean(apart.step(number, rows)[0], job.processes)
        found.append(record)
    if rank == 0:
        tokens = training["accumulation"] * training["batch_size"] * training["sequence_length"]
        print(json.dumps({"tokens_in_a_step": tokens, "steps": found}), flush=True)
    if several:
        distributed.destroy_process_group()


def mean(value: float, processes: int) -> float:
    """Over the processes."""
    if processes == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(total)
    return total.item() / processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--apart", action="store_true", help="also make each step without any exchange")
    job = parser.parse_args()
    if job.apart and job.processes == 1:
        parser.error("--apart needs --processes 2 or more: one process exchanges nothing")
    if job.processes == 1:
        train(0, job, "")
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (job, f"{folder}/meeting"), job.processes)


if __name__ == "__main__":
    main()
