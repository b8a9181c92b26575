"""What is asked of a text, and what comes of it."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast

from . import html

Origin = Literal["chosen", "accepted", "corrected"]
FinishReason = Literal["stop", "length", "context_full", "cancelled"]


class TextOptions(TypedDict, total=False):
    """The keywords that `generate`, `stream_generate` and `chat` share. All of them are optional."""

    max_new_tokens: int
    """At most so many new tokens (default 256, and no more than the context allows)."""
    do_sample: bool
    """Whether tokens are drawn at random. By default as the model's `generation_config.json` says; without
    one, only if `temperature`, `top_k` or `top_p` is given."""
    temperature: float
    """Below 1 sharpens the distribution; 0 is greedy."""
    top_k: int
    """Keeps so many of the most likely tokens; 0 keeps all."""
    top_p: float
    """Keeps the most likely tokens until their probabilities sum to this."""
    min_p: float
    """Keeps only tokens that are at least this share as likely as the most likely one."""
    repetition_penalty: float
    """Above 1 makes tokens that have occurred less likely."""
    presence_penalty: float
    """Makes tokens less likely that have occurred in the new text, from -2 to 2."""
    frequency_penalty: float
    """The same, for each time that they have occurred."""
    stop: str | list[str]
    """Strings at which the text ends. They are not part of it."""
    seed: int
    """The same seed gives the same text, whoever else is served. By default Python's `random` draws one."""
    exit_layer: int
    """Layers that run, instead of those of `set_exit_layer`."""
    assistant_early_exit: int
    """Drafts at this layer and verifies with the rest, as in `transformers`: the text stays the same."""
    num_assistant_tokens: int
    """Tokens of a draft, beside `assistant_early_exit` (default 5)."""
    speculate: str
    """`"auto"` (the default) drafts where that turns out to be faster, `"off"` never, `"6:4"` always four
    tokens at layer 6. The text stays the same."""
    agreement: float
    """Leaves early where an exit is sure enough, so that about this share of tokens stays the full model's.
    The threshold is calibrated when an agreement is first asked for, which takes seconds."""
    logprobs: int
    """The log-probability of each token, and of so many of the most likely ones in its place."""
    ignore_eos: bool
    """Goes on after the end of the text."""


KEYWORDS = tuple(TextOptions.__annotations__)
DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True)
class Statistics:
    """What a text took. Times are in seconds."""

    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    rounds: int
    drafted: int
    accepted: int
    mean_depth: float | None
    time_to_first_token: float
    decode_seconds: float
    decode_tokens_per_second: float | None

    @property
    def acceptance_rate(self) -> float | None:
        """Tokens accepted of those drafted; `None` if none was drafted."""
        return self.accepted / self.drafted if self.drafted else None


@dataclass(frozen=True)
class StreamItem:
    """A new token, or, as the last item, the end of the text, which has no token."""

    text: str
    """What is certain after it: never half a character. The last item has what was held back."""
    token_id: int | None
    exit_layer: int | None
    """Layers that ran for the logits from which the token was chosen."""
    origin: Origin | None
    """`accepted`: it was drafted; `corrected`: it was chosen in place of a draft; else `chosen`."""
    logprob: float | None = None
    """In nats, of the layers that verify, where `logprobs` asks for it."""
    top_logprobs: tuple[tuple[int, float], ...] = ()
    """The most likely tokens and their log-probabilities, the most likely first."""
    tokens_per_second: float | None = None
    """Tokens so far but the first, over the time since the first."""
    finish_reason: FinishReason | None = None
    """Of the last item: `stop` (a token or a string ended it), `length`, or `context_full`."""
    stop_string: str | None = None
    statistics: Statistics | None = None
    """Of the last item."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TokenScore:
    """How likely a token of a given text is."""

    token_id: int
    logprob: float
    """In nats."""
    is_greedy: bool
    """Whether it is the most likely token in its place."""


@dataclass(frozen=True)
class GeneratedText:
    """A text, and how it came about. As a string it is prompt and text."""

    prompt: str
    text: str
    """The new text, without the prompt."""
    items: tuple[StreamItem, ...]
    """One for each new token."""
    finish_reason: FinishReason
    statistics: Statistics
    num_hidden_layers: int
    stop_string: str | None = None

    @property
    def token_ids(self) -> list[int]:
        """The new tokens."""
        return [item.token_id for item in self.items if item.token_id is not None]

    @property
    def exit_layers(self) -> list[int]:
        """The depth of each new token."""
        return [item.exit_layer for item in self.items if item.exit_layer is not None]

    def __str__(self) -> str:
        return self.prompt + self.text

    def _repr_html_(self) -> str:
        """The text for a notebook, each token on the colour of its depth."""
        return html.text(self)


def engine_options(asked: TextOptions, model: EngineDefaults, caller: str) -> dict[str, object]:
    """What the engine wants to know, from what a caller gave: every key is there."""
    check_keywords(asked, caller)
    exit_layer = whole(asked, "exit_layer", model.exit_layer, 1)
    asks_to_sample = any(asked.get(key) is not None for key in ("temperature", "top_k", "top_p"))
    do_sample = asked.get("do_sample")
    if do_sample is None and not asks_to_sample and not model.says_how_to_sample:
        do_sample = False
    stop = asked.get("stop") or []
    agreement = asked.get("agreement")
    return {
        "max_new_tokens": whole(asked, "max_new_tokens", DEFAULT_NEW_TOKENS, 1),
        "exit_layer": exit_layer,
        "do_sample": do_sample,
        "temperature": number(asked, "temperature", None, 0.0),
        "top_k": whole(asked, "top_k", None, 0),
        "top_p": number(asked, "top_p", None, 0.0, 1.0),
        "min_p": number(asked, "min_p", 0.0, 0.0, 1.0),
        "repetition_penalty": number(asked, "repetition_penalty", None, 0.0),
        "presence_penalty": number(asked, "presence_penalty", 0.0, -2.0, 2.0),
        "frequency_penalty": number(asked, "frequency_penalty", 0.0, -2.0, 2.0),
        "seed": whole(asked, "seed", None, 0, 2**64 - 1, or_else=lambda: random.getrandbits(64)),
        "stop": [stop] if isinstance(stop, str) else list(stop),
        "speculate": speculation(asked, model.speculates),
        "agreement": number(asked, "agreement", None, 0.5, 1.0) if agreement is not None else None,
        "logprobs": whole(asked, "logprobs", None, 0),
        "prompt_logprobs": None,
        "ignore_eos": bool(asked.get("ignore_eos", False)),
        "only": None,
        "chat": False,
    }


@dataclass(frozen=True)
class EngineDefaults:
    """What a model says where a caller does not."""

    exit_layer: int
    says_how_to_sample: bool
    speculates: bool


def check_keywords(asked: Mapping[str, object], caller: str) -> None:
    """Names a keyword that there is not, and the nearest that there is."""
    for name in asked:
        if name not in KEYWORDS:
            near = difflib.get_close_matches(name, KEYWORDS, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{hint}")


def speculation(asked: TextOptions, speculates: bool) -> str:
    early_exit = whole(asked, "assistant_early_exit", None, 1)
    how = asked.get("speculate")
    agrees = asked.get("agreement") is not None
    if early_exit is not None:
        if how is not None or agrees:
            raise ValueError("assistant_early_exit drafts: give no speculate and no agreement beside it")
        return f"{early_exit}:{whole(asked, 'num_assistant_tokens', 5, 1, 64)}"
    if agrees:
        if how not in (None, "off"):
            raise ValueError("a text cannot be drafted and leave by agreement at once: give one of the two")
        return "off"
    return str(how) if how is not None else ("auto" if speculates else "off")


def whole(
    asked: Mapping[str, Any],
    key: str,
    default: Any,
    least: int,
    most: int | None = None,
    or_else: Any = None,
) -> Any:
    """The whole number under a key, within its bounds."""
    value = asked.get(key)
    if value is None:
        return or_else() if or_else is not None else default
    index = getattr(value, "__index__", None)
    if isinstance(value, bool) or index is None:
        raise ValueError(f"{key} is {value!r}: give a whole number")
    found = cast(int, index())
    if found < least or (most is not None and found > most):
        raise ValueError(f"{key} is {found}: give a whole number {bounds(least, most)}")
    return found


def number(
    asked: Mapping[str, Any], key: str, default: float | None, least: float, most: float | None = None
) -> float | None:
    """The number under a key, within its bounds."""
    value = asked.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ValueError(f"{key} is {value!r}: give a number")
    found = float(value)
    if not (found >= least and (most is None or found <= most)):
        raise ValueError(f"{key} is {found:g}: give a number {bounds(least, most)}")
    return found


def bounds(least: float, most: float | None) -> str:
    return f"from {least:g} on" if most is None else f"from {least:g} to {most:g}"
