"""Language models that can be left early.

>>> import offramp
>>> model = offramp.AutoModelForCausalLM.from_pretrained()  # the model that comes with offramp
>>> model.set_exit_layer(12)
>>> story = model.generate("Once upon a time", max_new_tokens=20, do_sample=False)
>>> str(story).startswith("Once upon a time, there was a")
True

`model.generate` continues texts or token ids, `model.stream_generate` yields a text token by token, and
`model.chat` answers messages. `evaluate`, `benchmark` and `sweep` say what each exit is worth, `train` makes
a model, `quantize` writes it in fewer bits.
"""

import os

from . import native
from .native import __version__, kernels, threads
from .auto import AutoModelForCausalLM, demo
from .generation import GeneratedText, Statistics, StreamItem, TextOptions, TokenScore
from .measures import (
    Card,
    ExitScore,
    ExitSpeed,
    Quantized,
    SpeedReport,
    Spread,
    SweepPoint,
    SweepReport,
    benchmark,
    card,
    evaluate,
    export_gguf,
    quantize,
    sweep,
)
from .model import CausalLM
from .table import Table
from .tokenizer import AutoTokenizer, Encoding, Tokenizer
from .training import TrainSummary, train

__all__ = [
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "Card",
    "CausalLM",
    "Encoding",
    "ExitScore",
    "ExitSpeed",
    "GeneratedText",
    "Quantized",
    "SpeedReport",
    "Spread",
    "Statistics",
    "StreamItem",
    "SweepPoint",
    "SweepReport",
    "Table",
    "TextOptions",
    "TokenScore",
    "Tokenizer",
    "TrainSummary",
    "__version__",
    "benchmark",
    "card",
    "demo",
    "evaluate",
    "export_gguf",
    "kernels",
    "quantize",
    "sweep",
    "threads",
    "train",
]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=native.forked)
