"""Strings to token ids and back, with the names that `transformers` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, TypedDict

import numpy as np

from . import native
from .ids import as_ids, in_rows
from .optional import optional


class Encoding(TypedDict):
    """What a tokenizer makes of texts: what `generate` takes as `**encoding`."""

    input_ids: Any
    """Token ids: a list for one text, lists for several, `[texts, tokens]` as an array."""
    attention_mask: Any
    """1 for a token, 0 for padding."""


class Tokenizer:
    """A model's tokenizer. `AutoTokenizer.from_pretrained` and `model.tokenizer` make one."""

    def __init__(self, core: native.Tokenizer) -> None:
        self._core = core

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        return_tensors: str | None = None,
    ) -> Encoding:
        """Token ids of one text or of several.

        With `return_tensors` `"np"` or `"pt"` they are an array `[texts, tokens]` of NumPy or torch; shorter
        texts are padded on the left with the end of the text, so that all of them can be continued.

        >>> tokenizer = AutoTokenizer.from_pretrained()
        >>> tokenizer(["Once", "Once upon a time"], return_tensors="np")["attention_mask"]
        array([[0, 0, 0, 1],
               [1, 1, 1, 1]])
        """
        texts = [text] if isinstance(text, str) else list(text)
        rows = [self.encode(one, add_special_tokens=add_special_tokens) for one in texts]
        if return_tensors is None:
            masks = [[1] * len(row) for row in rows]
            if isinstance(text, str):
                return {"input_ids": rows[0], "attention_mask": masks[0]}
            return {"input_ids": rows, "attention_mask": masks}
        if return_tensors not in ("np", "pt"):
            raise ValueError(f'return_tensors is {return_tensors!r}: give "np", "pt" or None')
        longest = max((len(row) for row in rows), default=0)
        ids = np.full((len(rows), longest), self.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            if tokens:
                ids[row, longest - len(tokens) :] = tokens
                mask[row, longest - len(tokens) :] = 1
        if return_tensors == "np":
            return {"input_ids": ids, "attention_mask": mask}
        torch = optional("torch", 'return_tensors="pt"')
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, as `transformers` encodes it."""
        return self._core.encode(text, add_special_tokens)

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = False) -> str:
        """The text of token ids: a list, an array or a tensor."""
        return self._core.decode(as_ids(token_ids), skip_special_tokens)

    def batch_decode(self, sequences: Any, *, skip_special_tokens: bool = False) -> list[str]:
        """The texts of several sequences."""
        return [self._core.decode(row, skip_special_tokens) for row in in_rows(sequences)]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary."""
        return self._core.token_id(token)

    @property
    def vocab_size(self) -> int:
        """The largest id plus one."""
        return self._core.vocab_size

    def __len__(self) -> int:
        return self._core.vocab_size

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        return self._core.eos_token_id

    @property
    def pad_token_id(self) -> int:
        """What fills shorter rows: the end of the text."""
        return self._core.eos_token_id or 0


class AutoTokenizer:
    """Finds a model's tokenizer, as in `transformers`."""

    @staticmethod
    def from_pretrained(path: str | PathLike[str] | None = None) -> Tokenizer:
        """That of a model folder; without a path, of the model that comes with offramp."""
        return Tokenizer(native.Tokenizer.open(path))
