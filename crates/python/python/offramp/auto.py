"""Where a model comes from, with the names of `transformers`."""

from __future__ import annotations

import re
from os import PathLike
from typing import Any

from . import native
from .generation import GeneratedText
from .model import CausalLM

BINARY = {"k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20, "g": 2**30, "gib": 2**30, "t": 2**40, "tib": 2**40}
UNITS = BINARY | {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
NAMES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "torch.float32": "f32", "torch.bfloat16": "bf16"}


class AutoModelForCausalLM:
    """Loads a model that continues texts."""

    @staticmethod
    def from_pretrained(
        path: str | PathLike[str] | None = None,
        *,
        dtype: Any = None,
        head_dtype: Any = None,
        kv_cache: Any = "f32",
        draft_dtype: Any = None,
        threads: int | None = None,
        memory: int | str = "1GiB",
        max_texts: int = 16,
    ) -> CausalLM:
        """Loads a model folder as Hugging Face has them, a run folder, or a GGUF file.

        Args:
            path: The folder or the file; without one, the model that comes with offramp.
            dtype: The number format of the weights: `"f32"`, `"bf16"`, `"int8"`, `"int4"`, `"q8_0"`, `"q4_0"` or
                `"ternary"`, or `torch.float32` and `torch.bfloat16`. By default as the folder or file holds them.
            head_dtype: That of the LM head, if it differs.
            kv_cache: That of keys and values: `"f32"` or `"f16"`.
            draft_dtype: That of copied layers that draft where a text asks for `speculate`, or `"own"`: the model's own
                layers draft. By default `"auto"` chooses between its own and int4, and an exit that is named is its own.
            threads: How many threads compute. It can be set once in a process.
            memory: The most that keys and values of all texts take, in bytes or as `"512MiB"`.
            max_texts: Texts that run at a time. More wait for their turn.

        Raises:
            FileNotFoundError: If there is no model.
            ValueError: If the model is none that offramp runs, or an option is out of range.
            MemoryError: If it does not fit.
        """
        options = {
            "dtype": format_name(dtype),
            "head_dtype": format_name(head_dtype),
            "kv_cache": format_name(kv_cache) or "f32",
            "draft_dtype": format_name(draft_dtype),
            "threads": positive("threads", threads) if threads is not None else None,
            "memory": size(memory),
            "max_texts": positive("max_texts", max_texts),
        }
        return CausalLM(native.Model.open(path, options))


def demo(prompt: str = "Once upon a time", *, exit_layer: int | None = None, seed: int = 0) -> GeneratedText:
    """A story by the model that comes with offramp.

    >>> print(demo())  # doctest: +ELLIPSIS
    Once upon a time...
    """
    model = AutoModelForCausalLM.from_pretrained()
    depth = exit_layer or model.config.num_hidden_layers
    return model.generate(prompt, exit_layer=depth, seed=seed, temperature=0.6, top_p=0.9)


def format_name(dtype: Any) -> str | None:
    """The name of a number format, of ours or of torch's."""
    name = None if dtype is None else str(dtype)
    return None if name in (None, "auto") else NAMES.get(name, name)


def positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name} is {value!r}: give a whole number from 1 on")
    return int(value)


def size(memory: int | str) -> int:
    """Bytes, as a number or as `512MiB`."""
    if not isinstance(memory, str):
        return positive("memory", memory)
    found = re.fullmatch(r"([0-9]*\.?[0-9]+) *([a-z]*)", memory.strip().lower())
    unit = UNITS.get(found[2]) if found else None
    if not found or not unit or not float(found[1]):
        raise ValueError(f"memory is {memory!r}: give a size such as 512MiB or 1GiB")
    return int(float(found[1]) * unit)
