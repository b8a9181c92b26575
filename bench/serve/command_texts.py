"""What `offramp generate` answers to a request: the text, and every token's logprobs; and what differs."""

import json
import struct
import subprocess
from dataclasses import dataclass


def f32(number):
    """The float that a printed number stands for: the command may print more digits than the server."""
    return struct.pack("<f", number)


def value(number):
    return struct.unpack("<f", number)[0]


@dataclass
class Expected:
    text: str
    tokens: list
    logprobs: list  # the bytes of each token's
    tops: list  # for each token, the bytes of its most likely tokens' logprobs, sorted


def options(sampling):
    """OpenAI's fields as options of the command."""
    return [word for name, value in sampling.items() for word in (f"--{name.replace('_', '-')}", value)]


def ask(job, case):
    words = [job.offramp, "generate", *([job.model] if job.model else []), "--json", "--prompt", case.prompt]
    words += ["--max-new-tokens", case.new_tokens, "--logprobs", job.top, *options(case.sampling)]
    words += ["--exit-layer", case.exit_layer] if case.exit_layer else []
    words += ["--threads", job.threads] if job.threads else []
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"the command failed: {' '.join(map(str, words))}\n{ran.stderr}")
    answer = json.loads(ran.stdout)
    found = answer["logprobs"]
    tops = [sorted(f32(logprob) for _, logprob in entry["top"]) for entry in found]
    tokens = [entry["token_id"] for entry in found]
    return Expected(answer["text"], tokens, [f32(entry["logprob"]) for entry in found], tops)


def difference(expected, served):
    """In one line what differs, or None. `served` has the text, the logprobs and the depths of one choice."""
    if served["text"] != expected.text:
        return f"text: expected {expected.text!r}, got {served['text']!r}"
    ids = [entry["token_id"] for entry in served["depths"]]
    # The command's list may end with the token that ended the text.
    if ids != expected.tokens[: len(ids)] or len(expected.tokens) - len(ids) > 1:
        return f"tokens: expected {expected.tokens}, got {ids}"
    logprobs = [f32(number) for number in served["logprobs"]["token_logprobs"]]
    for place, (ours, theirs) in enumerate(zip(expected.logprobs, logprobs)):
        if ours != theirs:
            return f"logprob of token {place}: expected {value(ours)!r}, got {value(theirs)!r}"
    if len(logprobs) < len(ids):
        return f"{len(logprobs)} logprobs of {len(ids)} tokens"
    for place, (ours, theirs) in enumerate(zip(expected.tops, served["logprobs"]["top_logprobs"])):
        # Tokens of equal text share an entry there: fewer numbers, and none that the command does not give, but the
        # chosen token's, which may stand beside the most likely ones.
        extra = {f32(number) for number in theirs.values()} - set(ours) - {expected.logprobs[place]}
        if extra or (ours and f32(max(theirs.values())) != max(ours, key=value)):
            return f"top logprobs of token {place}: expected {sorted(map(value, ours))}, got {theirs}"
    return None
