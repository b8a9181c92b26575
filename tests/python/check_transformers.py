"""Checks a model folder that offramp wrote against stock transformers: same perplexity at every exit, same story.

    python tests/python/check_transformers.py MODEL_FOLDER --offramp target/release/offramp

Runs `offramp eval` and `offramp generate` on the folder, does the same with AutoModelForCausalLM, and prints one
line per check. Exit code 1 if any differs. `--exits 6,12` measures only those exits, `--data FILE` another text.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # a BitNet is compiled otherwise, which needs a C++ compiler

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM
from transformers.utils import logging

TOLERANCE = 1e-4  # relative
ROUNDED = 1e-3  # the same where activations are rounded: a last bit may become a code
END_OF_TEXT = "<|endoftext|>"
STORIES = [
    "A small fox lived near the river. Every morning she counted the boats, and in the evening she said good night.",
    "Ben had a kite with a long red tail. The wind took it over the wall, and a girl named Ana brought it back.\n"
    "“Is this yours?” she asked. It was, and now it was a little bit hers too.",
    "The lamp was tired of shining. So the moon came down to help, and the two of them took turns.",
]


def offramp(binary, *arguments):
    """The JSON that `offramp … --json` prints."""
    command = [str(binary), *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode} from: {' '.join(command)}")
    return json.loads(done.stdout)


def read_stream(tokenizer, path):
    """The token stream of a text file, its stories joined by <|endoftext|>, and the bytes of each token."""
    stories, lines = [], []
    for line in [*path.read_bytes().decode("utf-8").split("\n"), END_OF_TEXT]:
        if line.removesuffix("\r") == END_OF_TEXT:
            stories.append(without_blank_lines_around(lines))
            lines = []
        else:
            lines.append(line)
    end = tokenizer.token_to_id(END_OF_TEXT)
    tokens, lengths = [], []
    for story in filter(None, stories):
        ids = tokenizer.encode(story, add_special_tokens=False).ids
        tokens += [end, *ids]
        lengths += [0, *map(len, pieces(tokenizer, story, ids))]
    return tokens[1:], lengths[1:]


def without_blank_lines_around(lines):
    """One story: blank lines before and after it are the file's, not the story's."""
    full = [index for index, line in enumerate(lines) if line.strip()]
    return "\n".join(lines[full[0] : full[-1] + 1]).removesuffix("\r") if full else ""


def pieces(tokenizer, story, ids):
    """The bytes of each token of a story (byte-level BPE), which must together be the story."""
    alphabet = byte_alphabet()
    found = [bytes(alphabet[char] for char in tokenizer.id_to_token(token)) for token in ids]
    assert b"".join(found) == story.encode("utf-8"), "this tokenizer does not give a story's bytes back"
    return found


def byte_alphabet():
    """GPT-2's table from printable characters back to bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(other)}


def exit_logits(model, input_ids):
    """Logits [tokens, vocab] after every layer, through the model's own final norm and LM head."""
    hidden = model.model.embed_tokens(input_ids)
    tokens = input_ids.shape[1]
    positions = torch.arange(tokens).unsqueeze(0)
    rope = model.model.rotary_emb(hidden, positions)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    mask = torch.zeros(1, 1, tokens, tokens).masked_fill(future, torch.finfo(torch.float32).min)
    for layer in model.model.layers:
        output = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rope)
        hidden = output[0] if isinstance(output, tuple) else output
        yield model.lm_head(model.model.norm(hidden))[0]


@torch.no_grad()
def measure(model, tokens, lengths):
    """Nats per token, perplexity and bits per byte at every exit: windows of C+1 tokens that overlap by one."""
    context = min(512, model.config.max_position_embeddings)
    nats = [0.0] * model.config.num_hidden_layers
    for start in range(0, len(tokens) - 1, context):
        window = torch.tensor(tokens[start : start + context + 1])
        for index, logits in enumerate(exit_logits(model, window[:-1].unsqueeze(0))):
            nats[index] += F.cross_entropy(logits.double(), window[1:], reduction="sum").item()
    scored = len(tokens) - 1
    return {
        index + 1: {
            "tokens": scored,
            "nats_per_token": total / scored,
            "perplexity": math.exp(total / scored),
            "bits_per_byte": total / math.log(2) / sum(lengths[1:]),
        }
        for index, total in enumerate(nats)
    }


def check_exits(model, tokenizer, arguments, data):
    """One line per exit: does `offramp eval` measure what transformers measures?"""
    exits = ["--exits", arguments.exits] if arguments.exits else []
    answer = offramp(arguments.offramp, "eval", arguments.model, "--data", data, *exits)["exits"]
    expected = measure(model, *read_stream(tokenizer, data))
    wanted = [int(e) for e in arguments.exits.split(",")] if arguments.exits else list(expected)
    yield sorted(e["exit_layer"] for e in answer) == sorted(wanted), f"exits measured: {wanted}"
    for found in answer:
        want = expected[found["exit_layer"]]
        worst = max(abs(found[key] / value - 1) for key, value in want.items() if key != "tokens")
        tolerance = ROUNDED if model.config.model_type == "bitnet" else TOLERANCE
        good = worst <= tolerance and found["tokens"] == want["tokens"]
        yield good, (
            f"exit {found['exit_layer']}: perplexity {found['perplexity']:.4f} and {found['tokens']} tokens, "
            f"transformers {want['perplexity']:.4f} and {want['tokens']}, worst difference {worst:.1e}"
        )


@torch.no_grad()
def check_story(model, tokenizer, arguments):
    """One line: is the greedy story of `offramp generate` the one of transformers' generate, token for token?"""
    flags = ["--prompt", arguments.prompt, "--max-new-tokens", 32, "--temperature", 0]
    found = offramp(arguments.offramp, "generate", arguments.model, *flags)["tokens"]
    prompt = torch.tensor([tokenizer.encode(arguments.prompt, add_special_tokens=False).ids])
    output = model.generate(prompt, max_new_tokens=32, do_sample=False, pad_token_id=0)
    want = output[0, prompt.shape[1] :].tolist()
    stops = model.generation_config.eos_token_id
    stops = set(stops) if isinstance(stops, list) else {stops}
    want = want[:-1] if want and want[-1] in stops and len(found) < len(want) else want  # the stop token itself
    same = sum(1 for a, b in zip(found, want) if a == b)
    line = f"greedy story: {same} of {len(want)} tokens the same: {tokenizer.decode(found)!r}"
    if found == want or model.config.model_type != "bitnet":
        yield found == want, line
        return
    # They may part where two tokens were nearer to each other than the two programs are.
    parted = next((i for i, (a, b) in enumerate(zip(found, want)) if a != b), min(len(found), len(want)))
    ids = prompt[0].tolist() + found[:parted]
    logits = model(torch.tensor([ids])).logits[0]
    first, second = logits[-1].topk(2).values.tolist()
    off = (logits - offramp_logits(arguments.model, ids)).abs().max().item()
    yield first - second <= 2 * off, f"{line}; parted at {parted}: a lead of {first - second:.1e}, logits differ by {off:.1e}"


def offramp_logits(folder, ids):
    """offramp's logits at the last exit, [tokens, vocab]."""
    cargo = ["cargo", "run", "--release", "--quiet", "-p", "offramp-engine", "--example", "logits", "--"]
    done = subprocess.run([*cargo, str(folder), ",".join(map(str, ids))], stdout=subprocess.PIPE, check=True)
    logits = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32)
    config = json.loads((folder / "config.json").read_text())
    return logits.reshape(config["num_hidden_layers"], len(ids), config["vocab_size"])[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder that offramp wrote, with tokenizer.json")
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    parser.add_argument("--exits", help="only these exits, separated by commas (default: every layer)")
    parser.add_argument("--data", type=Path, help="stories between <|endoftext|> lines (default: three short ones)")
    parser.add_argument("--prompt", default="Once upon a time")
    arguments = parser.parse_args()
    logging.disable_progress_bar()

    model, info = AutoModelForCausalLM.from_pretrained(
        arguments.model, attn_implementation="eager", output_loading_info=True
    )
    model = model.eval() if model.config.model_type == "bitnet" else model.float().eval()  # it refuses other floats
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    strange = [key for key, value in info.items() if value]
    checks = [(not strange, f"transformers loads the folder, every weight in its place {strange or ''}")]
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder) / "stories.txt"
        if arguments.data is None:
            data.write_text(f"\n{END_OF_TEXT}\n".join(STORIES) + "\n", encoding="utf-8")
        checks += check_exits(model, tokenizer, arguments, data)
    checks += check_story(model, tokenizer, arguments)
    for good, line in checks:
        print("ok  " if good else "FAIL", line)
    sys.exit(0 if all(good for good, _ in checks) else 1)


if __name__ == "__main__":
    main()
