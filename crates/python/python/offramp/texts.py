"""From the engine's steps to texts and rows of ids."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import native
from .generation import GeneratedText, Statistics, StreamItem, TextOptions, TokenScore, whole
from .ids import as_ids, in_rows, is_one
from .optional import optional

if TYPE_CHECKING:
    from .model import CausalLM, Streamer


def steps(stream: native.Stream) -> Iterator[StreamItem]:
    """The items of a stream, to its end."""
    first, count = 0.0, 0
    while True:
        step = stream.next()
        now = time.perf_counter()
        for token in step["tokens"]:
            first = first or now
            rate = count / (now - first) if count and now > first else None
            count += 1
            yield item(token, rate)
        end = step["end"]
        if end is not None:
            yield StreamItem(
                text=end["text"],
                token_id=None,
                exit_layer=None,
                origin=None,
                tokens_per_second=(count - 1) / (now - first) if count > 1 and now > first else None,
                finish_reason=end["finish_reason"],
                stop_string=end["stop_string"],
                statistics=Statistics(**end["statistics"]),
            )
            return


def item(token: dict[str, Any], rate: float | None) -> StreamItem:
    logprobs = token["logprobs"]
    return StreamItem(
        text=token["text"],
        token_id=token["token_id"],
        exit_layer=token["exit_layer"],
        origin=token["origin"],
        logprob=logprobs["logprob"] if logprobs else None,
        top_logprobs=tuple(map(tuple, logprobs["top"])) if logprobs else (),
        tokens_per_second=rate,
    )


def read(
    stream: native.Stream, prompt: str, num_hidden_layers: int, streamer: Streamer | None = None
) -> GeneratedText:
    """The whole text of a stream."""
    items: list[StreamItem] = []
    for found in steps(stream):
        items.append(found)
        if streamer is not None and found.token_id is not None:
            streamer.put(np.array([found.token_id]))
    end = items.pop()
    assert end.finish_reason is not None and end.statistics is not None
    return GeneratedText(
        prompt=prompt,
        text="".join(found.text for found in items) + end.text,
        items=tuple(items),
        finish_reason=end.finish_reason,
        statistics=end.statistics,
        num_hidden_layers=num_hidden_layers,
        stop_string=end.stop_string,
    )


def scores(core: native.Model, rows: list[list[int]], asked: dict[str, object]) -> list[list[TokenScore]]:
    """Scores of all tokens but the first: the last one is not run, only its logits are read."""
    streams: list[native.Stream | None] = []
    for row in rows:
        if len(row) < 2:
            streams.append(None)
            continue
        only = {"only": row[-1], "prompt_logprobs": 1 if len(row) > 2 else None}
        streams.append(core.start(row[:-1], asked | only))
    return [score(stream, row) if stream else [] for stream, row in zip(streams, rows)]


def score(stream: native.Stream, row: list[int]) -> list[TokenScore]:
    found: list[dict[str, Any]] = []
    end = None
    while end is None:
        step = stream.next()
        found += step["prompt_logprobs"]
        found += [token["logprobs"] for token in step["tokens"]]
        end = step["end"]
    return [
        TokenScore(token, one["logprob"], one["top"][0][0] == token) for token, one in zip(row[1:], found, strict=True)
    ]


def continue_ids(
    model: CausalLM, given: Any, arrays: dict[str, Any], options: TextOptions, streamer: Streamer | None
) -> Any:
    """Rows of ids and what follows them, in the form in which they were given."""
    one = is_one(given)
    rows = [as_ids(given)] if one else in_rows(given)
    masks = [as_ids(arrays["mask"])] if one and arrays["mask"] is not None else arrays["mask"]
    prompts = unmasked(rows, masks)
    copies = whole(arrays, "copies", 1, 1)
    if streamer is not None and len(prompts) * copies != 1:
        raise ValueError("a streamer hears one text: give a single prompt")
    asked = model.engine_options(options, "generate")
    seed = asked["seed"]
    assert isinstance(seed, int)
    streams = [
        model.core.start(prompt, asked | {"seed": (seed + copy) % 2**64})
        for prompt in prompts
        for copy in range(copies)
    ]
    if streamer is not None:
        streamer.put(np.array([prompts[0]]))
    new = [read(stream, "", model.num_hidden_layers, streamer).token_ids for stream in streams]
    if streamer is not None:
        streamer.end()
    whole_rows = [row + tokens for row, tokens in zip((row for row in rows for _ in range(copies)), new)]
    pad = whole(arrays, "pad", model.tokenizer.pad_token_id, 0)
    longest = max((len(row) for row in whole_rows), default=0)
    found = np.array([row + [pad] * (longest - len(row)) for row in whole_rows], dtype=np.int64)
    found = found[0] if one and copies == 1 else found
    return optional("torch", "a tensor").from_numpy(found) if type(given).__module__.startswith("torch") else found


def unmasked(rows: list[list[int]], masks: Any) -> list[list[int]]:
    """Rows without their padding."""
    if masks is None:
        return rows
    kept = in_rows(masks)
    if [len(mask) for mask in kept] != [len(row) for row in rows]:
        raise ValueError("attention_mask and input_ids have different shapes: give both of one tokenizer's call")
    return [[token for token, one in zip(row, mask) if one] for row, mask in zip(rows, kept)]
