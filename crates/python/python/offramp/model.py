"""A language model that can be left early."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from . import native
from .generation import EngineDefaults, GeneratedText, StreamItem, TextOptions, engine_options
from .ids import as_ids, in_rows, is_one
from .texts import continue_ids, read, scores, steps
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Streamer(Protocol):
    """What `transformers` calls a streamer: it gets the prompt's ids, then each token, then `end`."""

    def put(self, value: Any) -> None: ...
    def end(self) -> None: ...


class CausalLM:
    """A loaded model with its tokenizer. `AutoModelForCausalLM.from_pretrained` makes one.

    Any number of Python threads may use it at once. Their texts share every pass through the weights, and
    each is the text that it would be alone.
    """

    def __init__(self, core: native.Model) -> None:
        self.core = core
        """The Rust object behind it: not for users."""
        self._exit_layer = core.num_hidden_layers
        self.tokenizer = Tokenizer(core.tokenizer)
        self.config: Any = SimpleNamespace(**json.loads(core.config_json))
        """The keys of `config.json`, as attributes."""

    def __repr__(self) -> str:
        layers, head, cache = self.core.formats
        depth = f"exit_layer={self.exit_layer} of {self.num_hidden_layers}"
        return f"CausalLM({self.name!r}, {depth}, dtype={layers}, head_dtype={head}, kv_cache={cache})"

    @property
    def name(self) -> str:
        """Its folder, or the name of the model that comes with offramp."""
        return self.core.name

    @property
    def num_hidden_layers(self) -> int:
        """The full depth."""
        return self.core.num_hidden_layers

    @property
    def context(self) -> int:
        """The most tokens of a text, its prompt among them."""
        return self.core.context

    @property
    def dtype(self) -> str | None:
        """The number format of the layers' weights."""
        return self.core.formats[0]

    @property
    def exit_layer(self) -> int:
        """How many layers run."""
        return self._exit_layer

    def set_exit_layer(self, exit_layer: int | None) -> None:
        """Leaves after so many layers from now on, from 1 to all of them; `None` is the full depth.

        >>> model = AutoModelForCausalLM.from_pretrained()
        >>> model.set_exit_layer(12)
        >>> model.exit_layer
        12
        >>> model.set_exit_layer(25)
        Traceback (most recent call last):
        ValueError: exit_layer is 25: this model has the exits 1 to 24
        """
        depth = self.num_hidden_layers
        chosen = depth if exit_layer is None else exit_layer
        if isinstance(chosen, bool) or not hasattr(chosen, "__index__") or not 1 <= chosen <= depth:
            raise ValueError(f"exit_layer is {chosen!r}: this model has the exits 1 to {depth}")
        self._exit_layer = int(chosen)

    # --- Texts --------------------------------------------------------------------------------------------

    @overload
    def generate(
        self, inputs: str, *, streamer: Streamer | None = None, **options: Unpack[TextOptions]
    ) -> GeneratedText: ...
    @overload
    def generate(self, inputs: list[str], **options: Unpack[TextOptions]) -> list[GeneratedText]: ...
    @overload
    def generate(
        self,
        inputs: Any = None,
        *,
        input_ids: Any = None,
        attention_mask: Any = None,
        streamer: Streamer | None = None,
        num_return_sequences: int = 1,
        pad_token_id: int | None = None,
        **options: Unpack[TextOptions],
    ) -> Any: ...
    def generate(
        self,
        inputs: Any = None,
        *,
        input_ids: Any = None,
        attention_mask: Any = None,
        streamer: Streamer | None = None,
        num_return_sequences: int = 1,
        pad_token_id: int | None = None,
        **options: Unpack[TextOptions],
    ) -> Any:
        """Continues a text, several texts, or token ids; several run together.

        Args:
            inputs: A string (the result is a `GeneratedText`), a list of strings (a list of them), or token
                ids `[tokens]` or `[texts, tokens]` as a list, an array or a tensor. For ids the result has
                the same form, and is prompt and new tokens, as in `transformers`; shorter texts are padded
                on the right.
            input_ids, attention_mask: The same ids under the names that a tokenizer gives them:
                `model.generate(**tokenizer(text, return_tensors="np"))`.
            streamer: A streamer of `transformers`, for one text.
            num_return_sequences: So many texts for each row of ids, with the seeds `seed`, `seed + 1`, …
            pad_token_id: What rows are padded with (default: the end of the text).
            **options: See `TextOptions`.

        Raises:
            ValueError: If an option is out of range, or a prompt does not fit the context.

        >>> model = AutoModelForCausalLM.from_pretrained()
        >>> model.generate("Once upon a time", max_new_tokens=3, do_sample=False).text
        ', there was'
        >>> model.generate([[0, 12]], max_new_tokens=2, do_sample=False).shape
        (1, 4)
        """
        given = inputs if input_ids is None else input_ids
        if (inputs is None) == (input_ids is None):
            raise ValueError("give either a text, or input_ids" if given is None else "give one: inputs or input_ids")
        if isinstance(given, str):
            if num_return_sequences != 1:
                raise ValueError("num_return_sequences is for token ids: give a list of texts instead")
            return self._texts([given], options, streamer)[0]
        if not hasattr(given, "ndim") and len(given) and all(isinstance(one, str) for one in given):
            if streamer is not None:
                raise ValueError("a streamer hears one text: give a single prompt")
            return self._texts(list(given), options, None)
        arrays = {"mask": attention_mask, "copies": num_return_sequences, "pad": pad_token_id}
        return continue_ids(self, given, arrays, options, streamer)

    def stream_generate(self, prompt: str | Sequence[int], **options: Unpack[TextOptions]) -> Iterator[StreamItem]:
        """Continues a text or token ids, and yields each token as soon as it is there.

        The last item has no token; it says why the text ended. Closing the iterator stops the text.

        >>> model = AutoModelForCausalLM.from_pretrained()
        >>> items = list(model.stream_generate("Once upon a time", max_new_tokens=3, do_sample=False))
        >>> [item.text for item in items], items[-1].finish_reason
        ([',', ' there', ' was', ''], 'length')
        """
        ids = self.core.encode(prompt) if isinstance(prompt, str) else as_ids(prompt)
        stream = self.core.start(ids, self.engine_options(options, "stream_generate"))
        return steps(stream)

    def chat(self, messages: str | Sequence[Mapping[str, Any]], **options: Unpack[TextOptions]) -> GeneratedText:
        """Answers a conversation through the model's own chat template.

        Args:
            messages: `[{"role": "user", "content": "…"}, …]`, or the user's one message as a string.
            **options: See `TextOptions`.

        Raises:
            ValueError: If the model has no chat template, or it refuses the messages.
        """
        listed = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        ids = self.core.chat_prompt(json.dumps(listed))
        asked = self.engine_options(options, "chat") | {"chat": True}
        return read(self.core.start(ids, asked), "", self.num_hidden_layers)

    def _texts(self, prompts: list[str], options: TextOptions, streamer: Streamer | None) -> list[GeneratedText]:
        asked = self.engine_options(options, "generate")
        encoded = [self.core.encode(prompt) for prompt in prompts]
        # All begin before the first is read: they run together.
        streams = [self.core.start(ids, asked) for ids in encoded]
        if streamer is not None:
            streamer.put(np.array([encoded[0]]))
        found = [read(one, prompt, self.num_hidden_layers, streamer) for one, prompt in zip(streams, prompts)]
        if streamer is not None:
            streamer.end()
        return found

    def engine_options(self, options: TextOptions, caller: str) -> dict[str, object]:
        """What the engine is told. Not for users."""
        speculates = self.num_hidden_layers > 1
        defaults = EngineDefaults(self._exit_layer, self.core.says_how_to_sample, speculates)
        return engine_options(options, defaults, caller)

    def token_scores(self, inputs: Any, *, exit_layer: int | None = None) -> Any:
        """How likely the tokens of given texts are, without their first. Several texts run together.

        Args:
            inputs: A text, or its token ids: of at most one more than the context holds. Or a list of them.
            exit_layer: Layers that run, instead of those of `set_exit_layer`.

        Returns:
            A list of `TokenScore`; for several texts a list of such lists.

        >>> model = AutoModelForCausalLM.from_pretrained()
        >>> scores = model.token_scores("Once upon a time")
        >>> len(scores), scores[-1].is_greedy, round(scores[-1].logprob, 2)
        (3, True, -0.0)
        """
        single = isinstance(inputs, str) or (is_one(inputs) and not (len(inputs) and isinstance(inputs[0], str)))
        rows = [self._ids(one) for one in ([inputs] if single else inputs)]
        asked: TextOptions = {"max_new_tokens": 1, "do_sample": False, "logprobs": 1, "ignore_eos": True}
        asked["speculate"] = "off"
        if exit_layer is not None:
            asked["exit_layer"] = exit_layer
        found = scores(self.core, rows, self.engine_options(asked, "token_scores"))
        return found[0] if single else found

    # --- Numbers ------------------------------------------------------------------------------------------

    def logits(self, ids: Any, exits: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Logits of every position of one text, through the one shared norm and head.

        Args:
            ids: A text, or its token ids.
            exits: Exit layers. Without them the present one.

        Returns:
            `[exits, tokens, vocab]`, or `[tokens, vocab]` without `exits`; `torch.from_dlpack` takes it.

        >>> model = AutoModelForCausalLM.from_pretrained()
        >>> model.logits([0, 12, 5], exits=[6, 12, 24]).shape
        (3, 3, 3264)
        """
        found = self.core.logits(self._ids(ids), [self._exit_layer] if exits is None else as_ids(exits))
        return found[0] if exits is None else found

    def hidden_states(self, ids: Any) -> NDArray[np.float32]:
        """The states of every position at every depth, as `output_hidden_states` of `transformers` has them.

        Args:
            ids: A text, or its token ids.

        Returns:
            `[layers + 1, tokens, hidden]`: after the embedding, after each layer, and the last one after the
            final norm.
        """
        return self.core.hidden_states(self._ids(ids))

    def _ids(self, ids: Any) -> list[int]:
        if isinstance(ids, str):
            return self.core.encode(ids)
        if is_one(ids):
            return as_ids(ids)
        rows = in_rows(ids)
        if len(rows) != 1:
            raise ValueError(f"these are the ids of {len(rows)} texts: give one text at a time")
        return rows[0]
