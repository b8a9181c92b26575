"""Checks what a model's card promises in Python: its code runs as printed, and every exit is offramp's.

    python tests/python/check_card.py MODEL_FOLDER --offramp target/release/offramp

Runs the Python code of the folder's README.md, if there is one. Loads the folder with `trust_remote_code`, compares
its logits at every exit with offramp's (through `cargo run --example logits`) and its greedy stories with
`offramp generate`. Loads it without, as a stock Llama. Prints one line per check. Exit code 1 if any differs.

A folder for which `offramp card` has not been run yet is copied, and the module put beside the copy.
"""

import argparse
import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
import transformers
from check_transformers import STORIES, offramp
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "crates/eval/src/card/modeling_early_exit.py"
AUTO_MAP = {"AutoModelForCausalLM": "modeling_early_exit.EarlyExitLlamaForCausalLM"}
TOLERANCE = 1e-3  # of a logit
# Loaded so: bf16 that is made f32 afterwards computes something else.
F32 = {"torch_dtype" if transformers.__version__.startswith("4.") else "dtype": torch.float32}
TOKENS = 40
PROMPT = "Once upon a time"


class Warnings(logging.Handler):
    """What transformers warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []
        transformers_logging.get_logger("transformers").addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())


def check_card(folder):
    """One line: the code of the card runs in the order in which it stands, from where its paths lead."""
    card = folder / "README.md"
    if not card.is_file():
        yield True, "there is no README.md: no code of it was run (offramp card writes one)"
        return
    blocks = re.findall(r"^```python\n(.*?)^```", card.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    code = "\n".join(blocks)
    named = set(re.findall(r"from_pretrained\(\s*[\"']([^\"']+)[\"']", code))
    leads_here = lambda place: all((place / name).resolve() == folder.resolve() for name in named)
    place = next(filter(leads_here, [Path.cwd(), *folder.resolve().parents]), None)
    if not blocks or not named or place is None:
        yield False, f"README.md has {len(blocks)} blocks of Python, and from nowhere above does {named} lead here"
        return
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    last = (done.stdout if done.returncode == 0 else done.stderr).strip().split("\n")[-1]
    yield done.returncode == 0, f"README.md: {len(blocks)} blocks of Python run as printed; the last line is {last!r}"


def announced(folder, place):
    """The folder, or where its config.json does not name the module yet, a copy in which it does."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("auto_map") == AUTO_MAP:
        same = (folder / MODULE.name).read_bytes() == MODULE.read_bytes()
        return folder, (same, f"the folder has its {MODULE.name}, the repository's")
    copy = place / folder.name
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("README.md"))
    shutil.copy(MODULE, copy)
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP}), encoding="utf-8")
    return copy, (True, f"config.json names no {MODULE.name} (offramp card does that): a copy of the folder does")


def check_tokenizer(tokenizer, folder, model):
    """One line: AutoTokenizer gives the ids of tokenizer.json and what the model's generate takes, no more."""
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    same = all(tokenizer(story)["input_ids"] == plain.encode(story).ids for story in STORIES)
    whole = all(tokenizer.decode(tokenizer(story)["input_ids"], skip_special_tokens=True) == story for story in STORIES)
    keys = set(tokenizer(PROMPT))
    stops = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id in (stops if isinstance(stops, list) else [stops])
    good = same and whole and ends and keys == {"input_ids", "attention_mask"} and len(tokenizer) <= model.vocab_size
    yield good, (
        f"AutoTokenizer: a {type(tokenizer).__name__} of {len(tokenizer)} tokens, same ids {same}, texts come back "
        f"{whole}, its end ends the model's texts {ends}, gives {sorted(keys)}"
    )


def offramp_logits(folder, ids):
    """offramp's logits, [exits, tokens, vocab]."""
    cargo = ["cargo", "run", "--release", "--quiet", "-p", "offramp-engine", "--example", "logits", "--"]
    command = [*cargo, str(folder.resolve()), ",".join(map(str, ids))]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode} from: {' '.join(command)}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    logits = numpy.frombuffer(done.stdout, dtype="<f4")
    return torch.from_numpy(logits.reshape(config["num_hidden_layers"], len(ids), config["vocab_size"]).copy())


def difference(found, expected):
    return (found - expected).abs().max().item()


@torch.no_grad()
def check_logits(model, ids, expected):
    """One line per exit, and one for all exits in one pass."""
    inputs = torch.tensor([ids])
    for exit_layer, want in enumerate(expected, start=1):
        model.set_exit_layer(exit_layer)
        worst = difference(model(inputs).logits[0], want)
        yield worst < TOLERANCE, f"exit {exit_layer}: {len(ids)} tokens' logits differ by {worst:.1e} at most"
    model.set_exit_layer(None)
    together = model.exit_logits(inputs)
    worst = max(difference(together[exit_layer][0], want) for exit_layer, want in enumerate(expected, start=1))
    good = list(together) == list(range(1, len(expected) + 1)) and worst < TOLERANCE
    yield good, f"exit_logits, {len(together)} exits in one pass: they differ by {worst:.1e} at most"


def story(model, tokenizer, **options):
    """The ids of a text's continuation, without the end of text."""
    inputs = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=32, pad_token_id=tokenizer.eos_token_id, **options)
    return [token for token in output[0, inputs["input_ids"].shape[1] :].tolist() if token != tokenizer.eos_token_id]


def check_stories(model, tokenizer, arguments):
    """One line per exit: the greedy story is that of `offramp generate`. One for sampling with a cache and without."""
    layers = model.config.num_hidden_layers
    for exit_layer in [*range(1, layers + 1), 1]:  # down again at the end
        flags = ["--prompt", PROMPT, "--max-new-tokens", 32, "--temperature", 0, "--exit-layer", exit_layer]
        flags += ["--format", "f32", "--head-format", "f32"]  # as the model here, whatever the folder holds
        want = offramp(arguments.offramp, "generate", arguments.model, *flags)["tokens"]
        model.set_exit_layer(exit_layer)
        found = story(model, tokenizer, do_sample=False)
        same = sum(a == b for a, b in zip(found, want))
        text = tokenizer.decode(found)[:40]
        yield found == want, f"exit {exit_layer}: greedy story, {same} of {len(want)} tokens the same: {text!r}"
    equal = []
    for exit_layer in range(1, layers + 1):
        model.set_exit_layer(exit_layer)
        told = []
        for use_cache in (True, False):
            torch.manual_seed(exit_layer)
            told.append(story(model, tokenizer, do_sample=True, temperature=0.8, use_cache=use_cache))
        equal.append(told[0] == told[1])
    yield all(equal), f"sampled stories with a cache and without: {sum(equal)} of {layers} exits the same"


def check_refusals(model):
    """One line: exits that do not exist are refused, and the exit stays where it was."""
    layers, refused = model.config.num_hidden_layers, []
    model.set_exit_layer(1)
    for exit_layer in (0, -1, layers + 1, 1.5, "1"):
        try:
            model.set_exit_layer(exit_layer)
        except ValueError:
            refused.append(exit_layer)
    yield len(refused) == 5 and model.exit_layer == 1, f"exits that do not exist are refused: {refused}"


@torch.no_grad()
def check_saving(model, folder, ids, expected, place):
    """One line: what is saved while an exit is set is the whole model, to every reader."""
    model.set_exit_layer(1)
    model.save_pretrained(place)
    # The same logits from offramp, the class again, and stock transformers.
    read = offramp_logits(place, ids)
    again = AutoModelForCausalLM.from_pretrained(place, trust_remote_code=True, **F32)
    stock = LlamaForCausalLM.from_pretrained(place, **F32)
    inputs = torch.tensor([ids])
    worst = max(
        difference(read, expected), *(difference(loaded(inputs).logits[0], expected[-1]) for loaded in (again, stock))
    )
    before, after = LlamaForCausalLM.from_pretrained(folder, **F32).state_dict(), again.state_dict()
    equal = list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)
    good = worst < TOLERANCE and equal and hasattr(again, "set_exit_layer")
    yield good, f"save_pretrained at exit 1: {len(after)} weights, all there {equal}; logits differ by {worst:.1e}"


@torch.no_grad()
def check_stock(folder, ids, expected):
    """One line: without remote code the folder is a stock Llama, with nothing to warn of or to ask."""
    warnings = Warnings()
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **F32)
    strange = [*warnings.lines, *(key for key, value in info.items() if value)]
    worst = difference(model(torch.tensor([ids])).logits[0], expected[-1])
    good = type(model) is LlamaForCausalLM and not strange and worst < TOLERANCE
    yield good, f"without remote code: a {type(model).__name__}, logits differ by {worst:.1e} {strange or ''}"


def check_quantised(arguments, place):
    """One line per format: transformers refuses what it cannot read."""
    transformers_logging.set_verbosity(logging.CRITICAL)
    for name in ("int8", "int4"):
        offramp(arguments.offramp, "quantize", arguments.model, "--to", name, "--out", place / name)
        try:
            model = AutoModelForCausalLM.from_pretrained(place / name)
            yield False, f"{name}: transformers takes it for a {type(model).__name__}"
        except Exception as error:  # whatever it says
            yield True, f"{name}: transformers refuses it: {type(error).__name__}: {str(error)[:70]}"


def checks(arguments, place):
    yield from check_card(arguments.model)
    folder, line = announced(arguments.model, place)
    yield line
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(STORIES[0])["input_ids"][:TOKENS]
    expected = offramp_logits(folder, ids)
    # First, because transformers 4.45 remembers: a process that has run remote code gets its class from then on.
    yield from check_stock(folder, ids, expected)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **F32).eval()
    yield from check_tokenizer(tokenizer, folder, model)
    yield from check_logits(model, ids, expected)
    yield from check_stories(model, tokenizer, arguments)
    yield from check_refusals(model)
    yield from check_saving(model, folder, ids, expected, place / "saved")
    yield from check_quantised(arguments, place)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder, best one for which `offramp card` was run")
    parser.add_argument("--offramp", type=Path, required=True, help="the offramp binary")
    arguments = parser.parse_args()
    transformers_logging.disable_progress_bar()
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        for good, line in checks(arguments, Path(place)):
            print("ok  " if good else "FAIL", line, flush=True)
            failed += not good
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
