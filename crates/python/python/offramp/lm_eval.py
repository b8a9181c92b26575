"""offramp in EleutherAI's lm-evaluation-harness.

`python -m offramp.lm_eval` is `lm_eval` with one more model:

    python -m offramp.lm_eval --model offramp --model_args pretrained=FOLDER,exit_layer=12,format=int8 \\
        --tasks lambada_openai

lm-eval 0.4.13 finds models by import alone, so somebody has to import this module. A program that calls
`lm_eval.simple_evaluate` imports `offramp.lm_eval`, too, or gives it `OfframpLM(…)` as the model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from .auto import AutoModelForCausalLM
from .generation import StreamItem, TextOptions

Request = tuple[tuple[str, str] | None, list[int], list[int]]


@register_model("offramp")
class OfframpLM(TemplateLM):
    """A model of offramp, at one exit. Requests run together.

    Args:
        pretrained: The model folder; without one, the model that comes with offramp.
        exit_layer: Layers that run (default: all).
        format, head_format: Number formats, as `dtype` and `head_dtype` of `from_pretrained`.
        kv_cache, threads, memory: As there.
        batch_size: Requests that run at a time.
        max_length: Tokens of a request (default: the model's context).
        max_gen_toks: New tokens where a task does not say.
        device: Has no effect: offramp computes on the cpu, and lm-eval names a device unasked.
        add_bos_token: Whether prompts begin with the beginning of text (default: as the tokenizer does).
    """

    def __init__(
        self,
        pretrained: str | None = None,
        exit_layer: int | None = None,
        format: str | None = None,
        head_format: str | None = None,
        kv_cache: str = "f32",
        threads: int | None = None,
        memory: int | str = "1GiB",
        batch_size: int | str = 16,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        texts = 16 if batch_size == "auto" else int(batch_size)
        self.model = AutoModelForCausalLM.from_pretrained(
            pretrained,
            dtype=format,
            head_dtype=head_format,
            kv_cache=kv_cache,
            threads=threads,
            memory=memory,
            max_texts=max_batch_size or texts,
        )
        self.model.set_exit_layer(int(exit_layer) if exit_layer is not None else None)
        self.tokenizer = self.model.tokenizer
        self.max_length = min(int(max_length or self.model.context), self.model.context)
        self.max_gen_toks = int(max_gen_toks)
        self.add_bos_token = add_bos_token

    @property
    def eot_token_id(self) -> int:
        return self.model.tokenizer.pad_token_id

    @property
    def prefix_token_id(self) -> int:
        bos = getattr(self.model.config, "bos_token_id", None)
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        return self.model.name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if add_special_tokens is None:
            prefix = self.tok_decode([self.prefix_token_id])
            named = self.add_bos_token if self.add_bos_token is not None else True
            add_special_tokens = named and not (prefix and string.startswith(prefix))
        return self.model.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def tok_decode(self, tokens: list[int]) -> str:
        return self.model.tokenizer.decode(tokens)

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        # A prompt is cut on the left, as transformers' backend does.
        rows = [(context + continuation)[-(self.max_length + 1) :] for _, context, continuation in requests]
        found: list[tuple[float, bool]] = []
        for (pair, _, continuation), scores in zip(requests, self.model.token_scores(rows)):
            last = scores[len(scores) - len(continuation) :]
            answer = (sum(one.logprob for one in last), all(one.is_greedy for one in last))
            found.append(answer)
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        windows: list[Request] = []
        counts: list[int] = []
        for (string,) in (request.args for request in requests):
            rolling = utils.get_rolling_token_windows(
                token_list=self.tok_encode(string),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [utils.make_disjoint_window(window) for window in rolling]
            windows += [(None, context, continuation) for context, continuation in pairs]
            counts.append(len(pairs))
        scores = iter(self._loglikelihood_tokens(windows))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        streams = [self._begin(*request.args) for request in requests]
        texts: list[str] = []
        for request, stream in zip(requests, streams):
            text = "".join(item.text for item in stream)
            self.cache_hook.add_partial("generate_until", request.args, text)
            texts.append(text)
        return texts

    def _begin(self, prompt: str, asked: dict[str, Any]) -> Iterator[StreamItem]:
        keywords = normalize_gen_kwargs(dict(asked), self.max_gen_toks)
        most = int(keywords["max_gen_toks"])
        room = self.max_length - most
        if room < 1:
            raise ValueError(f"max_gen_toks is {most}, and the context holds {self.max_length}: ask for fewer")
        options: TextOptions = {"max_new_tokens": most, "do_sample": bool(keywords.get("do_sample", False))}
        options["stop"] = [stop for stop in handle_stop_sequences(keywords.get("until"), eos=None) if stop]
        if options["do_sample"]:
            for key in ("temperature", "top_p", "top_k", "repetition_penalty"):
                if key in keywords:
                    options[key] = keywords[key]
        return self.model.stream_generate(self.tok_encode(prompt)[-room:], **options)


def main() -> None:
    from lm_eval.__main__ import cli_evaluate

    sys.exit(cli_evaluate())


if __name__ == "__main__":
    # Under `-m` this module is `__main__`: the class is already registered by importing it here.
    main()
