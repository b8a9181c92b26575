"""What a model is worth: perplexity, speed and speculation at every exit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, Literal, TypeVar, cast

from . import native
from .auto import format_name, positive
from .model import CausalLM
from .table import Column, Table

Path = str | PathLike[str]
Verdict = Literal["pays", "unsure", "loses"]
T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The median of some samples, the least and the greatest."""

    median: float
    min: float
    max: float

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.min:.1f}–{self.max:.1f})"


@dataclass(frozen=True)
class ExitScore:
    """How well an exit predicts a text."""

    exit_layer: int
    tokens: int
    bytes: int
    nats_per_token: float
    perplexity: float
    bits_per_byte: float
    agreement: float
    """The share of positions at which its most likely token is the full model's."""


@dataclass(frozen=True)
class ExitSpeed:
    """How fast an exit is. Rates are tokens per second, times are seconds."""

    exit_layer: int
    prefill: Spread
    first_token: Spread
    decode: Spread
    bytes_per_token: int
    bandwidth_share: Spread
    speed_up: float
    """Of decoding, over the full depth."""


@dataclass(frozen=True)
class SpeedReport:
    """The speed of a model at some exits."""

    exits: Table[ExitSpeed]
    kernels: str
    threads: int
    bandwidth: Spread
    """Bytes per second at which memory was read in the same run."""
    taken_by_others: float | None
    """The share of the processors that other programs took; a busy machine measures little."""

    def __str__(self) -> str:
        return f"{self.exits}\n{self.kernels}, {self.threads} threads"

    def _repr_html_(self) -> str:
        return self.exits.to_html()

    def to_pandas(self) -> Any:
        """The exits as a `pandas.DataFrame`."""
        return self.exits.to_pandas()


@dataclass(frozen=True)
class SweepPoint:
    """Speculation with one exit and one draft length."""

    exit_layer: int
    draft_format: str | None
    """The number format of the copied layers that draft; `None` for the model's own."""
    num_speculations: int
    acceptance_rate: float
    acceptance_of_next: float
    acceptance_by_position: list[float]
    """The share of drafts whose first token, first two, … were accepted."""
    accepted_length: float
    """Tokens accepted of a draft, in the mean."""
    decode: Spread
    speed_up: Spread
    """Over plain decoding beside it."""


@dataclass(frozen=True)
class SweepReport:
    """Speculation at exits and draft lengths."""

    points: Table[SweepPoint]
    best: SweepPoint
    plain: Spread
    """Plain decoding, tokens per second."""
    auto: Spread
    """Speed-up of the adaptive policy over plain decoding."""
    trained_for_exits: bool
    """Whether the configuration says so; models trained with exits elsewhere say nothing of it."""
    verdict: Verdict
    """Whether the best point or the policy beats plain decoding: in every round, in the median only, or not."""

    def __str__(self) -> str:
        return f"{self.points}\nplain {self.plain} tokens/s, auto {self.auto.median:.2f}×"

    def _repr_html_(self) -> str:
        return self.points.to_html()

    def to_pandas(self) -> Any:
        """The points as a `pandas.DataFrame`."""
        return self.points.to_pandas()


@dataclass(frozen=True)
class Quantized:
    """A model folder that was written in another format."""

    out: str
    layers: str | None
    head: str | None
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Card:
    """A card that was written."""

    card: str
    """Its path."""
    measured: dict[str, Any]
    """The numbers, as `card.json` has them."""


SCORES: tuple[Column, ...] = (
    ("exit", lambda row: str(row.exit_layer)),
    ("perplexity", lambda row: f"{row.perplexity:.3f}"),
    ("nats/token", lambda row: f"{row.nats_per_token:.4f}"),
    ("bits/byte", lambda row: f"{row.bits_per_byte:.4f}"),
    ("agreement", lambda row: f"{100 * row.agreement:.2f} %"),
)
SPEEDS: tuple[Column, ...] = (
    ("exit", lambda row: str(row.exit_layer)),
    ("prefill tokens/s", lambda row: str(row.prefill)),
    ("decode tokens/s", lambda row: str(row.decode)),
    ("first token ms", lambda row: f"{1000 * row.first_token.median:.1f}"),
    ("of bandwidth", lambda row: f"{100 * row.bandwidth_share.median:.0f} %"),
    ("speed-up", lambda row: f"{row.speed_up:.2f}×"),
)
POINTS: tuple[Column, ...] = (
    ("exit", lambda row: str(row.exit_layer) + (f" in {row.draft_format}" if row.draft_format else "")),
    ("length", lambda row: str(row.num_speculations)),
    ("accepted", lambda row: f"{100 * row.acceptance_rate:.0f} %"),
    ("tokens/s", lambda row: str(row.decode)),
    ("speed-up", lambda row: f"{row.speed_up.median:.2f}×"),
)


def evaluate(
    model: CausalLM,
    data: Path | Sequence[Path] = (),
    *,
    exits: Sequence[int] = (),
    context: int | None = None,
    max_tokens: int | None = None,
) -> Table[ExitScore]:
    """Perplexity and agreement at exits, as `offramp eval` measures them.

    Args:
        model: The model.
        data: Text files, or a folder that `offramp prepare` wrote; without any, the stories that come with
            offramp.
        exits: Exit layers; without any, all of them.
        context: Tokens of a window (default 512, or the model's context).
        max_tokens: Scores about so many tokens.

    >>> model = AutoModelForCausalLM.from_pretrained()
    >>> scores = evaluate(model, exits=[12, 24], max_tokens=512)
    >>> [score.exit_layer for score in scores], scores[1].agreement
    ([12, 24], 1.0)
    """
    found = native.evaluate(model.core, paths(data), list(exits), context, max_tokens)
    return Table([made(ExitScore, row) for row in json.loads(found)], SCORES)


def benchmark(
    model: CausalLM,
    *,
    exits: Sequence[int] = (),
    prompt_tokens: int = 128,
    new_tokens: int = 128,
    runs: int = 5,
    dtype: Any = None,
    head_dtype: Any = None,
) -> SpeedReport:
    """Tokens per second at exits, one text at a time, as `offramp bench` measures them.

    The model is loaded once more for it. Without `exits`, each quarter of the depth is measured.
    """
    options = {
        "exits": list(exits) or model.core.quarters,
        "prompt_tokens": positive("prompt_tokens", prompt_tokens),
        "new_tokens": positive("new_tokens", new_tokens),
        "runs": positive("runs", runs),
        "dtype": format_name(dtype),
        "head_dtype": format_name(head_dtype),
    }
    found = json.loads(native.benchmark(model.core, options))
    return SpeedReport(
        exits=Table([made(ExitSpeed, row) for row in found["exits"]], SPEEDS),
        kernels=found["kernels"],
        threads=found["threads"],
        bandwidth=made(Spread, found["bandwidth"]),
        taken_by_others=found["taken_by_others"],
    )


def sweep(
    model: CausalLM,
    data: Path | Sequence[Path] = (),
    *,
    exits: Sequence[int] = (),
    lengths: Sequence[int] = (1, 2, 3, 4, 6, 8),
    new_tokens: int | None = None,
    runs: int = 5,
) -> SweepReport:
    """Speculation at exits and draft lengths, as `offramp sweep` measures it."""
    options = {"exits": list(exits), "lengths": list(lengths), "new_tokens": new_tokens, "runs": positive("runs", runs)}
    found = json.loads(native.sweep(model.core, paths(data), options))
    points: list[SweepPoint] = [made(SweepPoint, row) for row in found["points"]]
    return SweepReport(
        points=Table(points, POINTS),
        best=points[int(found["best"])],
        plain=made(Spread, found["plain"]),
        auto=made(Spread, found["auto"]["speed_up"]),
        trained_for_exits=bool(found["trained_for_exits"]),
        verdict=found["verdict"],
    )


def quantize(path: Path, out: Path, *, to: str, head: str | None = None) -> Quantized:
    """Writes a model folder in another number format: `"f32"`, `"bf16"`, `"int8"`, `"int4"` or `"ternary"`.

    Args:
        path: The model folder, run folder or GGUF file.
        out: The folder to write, which must not be there.
        to: The format of the layers.
        head: The format of the head, if it differs.
    """
    return made(Quantized, json.loads(native.quantize(path, out, to, head)))


def export_gguf(path: Path | None, out: Path, *, type: str = "bf16") -> None:
    """Writes a model as a GGUF file, which llama.cpp loads, as `offramp export` does.

    Args:
        path: A model folder, a run folder or a GGUF file; `None` is the model that comes with offramp.
        out: The file to write.
        type: The format of the matrices: `"f32"`, `"f16"`, `"bf16"`, `"q8_0"`, `"q4_0"` or `"tq2_0"`.
    """
    native.export_gguf(path, out, type)


def card(
    path: Path,
    *,
    data: Path | Sequence[Path] = (),
    untouched: Path | Sequence[Path] = (),
    run: Path | None = None,
    out: Path | None = None,
    runs: int = 5,
    exits: Sequence[int] = (),
    name: str | None = None,
    place: str | None = None,
    license: str | None = None,
    dataset: str | None = None,
    language: str | None = None,
    overwrite: bool = False,
) -> Card:
    """Writes a model's card, `README.md` in its folder, with every number measured, as `offramp card` does.

    Args:
        path: The model folder or run folder.
        data: Text for perplexity at every exit.
        untouched: Text that was not used for any choice.
        run: The run folder with the journal and the recipe (default: the model's folder or the one around it).
        out: The folder of the card of a GGUF file.
        runs: Samples of each exit's speed; with 0, speed is not measured.
        exits: Rows of the card's table (default: each quarter of the depth).
        name, place, license, dataset, language: Words of the card.
        overwrite: Replaces a `README.md` that offramp did not write.
    """
    options = {
        "data": paths(data),
        "untouched": paths(untouched),
        "run": run,
        "out": out,
        "runs": runs,
        "exits": list(exits),
        "name": name,
        "place": place,
        "license": license,
        "dataset": dataset,
        "language": language,
        "overwrite": overwrite,
    }
    return Card(**json.loads(native.card(path, options)))


def paths(data: Path | Sequence[Path]) -> list[Path]:
    return [data] if isinstance(data, (str, PathLike)) else list(data)


def made(kind: type[T], row: dict[str, Any]) -> T:
    """A dataclass of the values that it has fields for."""
    names = [field.name for field in fields(cast(Any, kind))]
    values: dict[str, Any] = {name: row[name] for name in names}
    return kind(**{name: spread(one) for name, one in values.items()})


def spread(value: Any) -> Any:
    """A spread, where the value is one."""
    return Spread(**cast("dict[str, float]", value)) if isinstance(value, dict) else value
