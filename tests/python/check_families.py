"""Checks that folders of every family that offramp wrote are stock transformers' own: same class, same logits, same text.

    python tests/python/check_families.py --offramp target/release/offramp

Has `offramp quantize --to f32` write each model of tests/fixtures/families/ anew, loads both folders with
AutoModelForCausalLM, and prints one line per check. Exit code 1 if any differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from make_families import FAMILIES, NEW_TOKENS, load_model
from safetensors.torch import load_file
from transformers.utils import logging


def checks(name, folder):
    """What should hold of the folder that offramp wrote, each with whether it does."""
    ours, theirs = load_model(folder), load_model(FAMILIES / name)
    expected = json.loads((FAMILIES / name / "expected.json").read_text())
    ids = load_file(FAMILIES / name / "expected.safetensors")["input_ids"]
    yield "class", type(ours) is type(theirs)
    said = json.loads((folder / "config.json").read_text())
    was = json.loads((FAMILIES / name / "config.json").read_text())
    yield "architectures and model_type", all(said[key] == was[key] for key in ("architectures", "model_type"))
    weights, others = ours.state_dict(), theirs.state_dict()
    yield "weights", weights.keys() == others.keys() and all(torch.equal(w, others[k]) for k, w in weights.items())
    with torch.no_grad():
        yield "logits", torch.equal(ours(ids).logits, theirs(ids).logits)
    prompt = torch.tensor([expected["prompt"]])
    mask = torch.ones_like(prompt)
    text = ours.generate(prompt, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False)
    yield "greedy text", text[0, prompt.shape[1] :].tolist() == expected["greedy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offramp", default="target/release/offramp", help="the binary")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a text longer than max_position_embeddings is meant here
    torch.set_num_threads(1)
    good = True
    with tempfile.TemporaryDirectory() as place:
        for name in sorted(path.name for path in FAMILIES.iterdir()):
            folder = Path(place) / name
            command = [arguments.offramp, "quantize", FAMILIES / name, "--to", "f32", "--out", folder]
            subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
            for what, holds in checks(name, folder):
                print(f"{'ok  ' if holds else 'FAIL'} {name}: {what}")
                good &= holds
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
