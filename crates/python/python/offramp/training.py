"""Training, as `offramp train` does it: the same bytes, and either goes on where the other stopped."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

from . import native

Callback = Callable[[dict[str, Any]], bool | None]


@dataclass(frozen=True)
class TrainSummary:
    """How a run ended."""

    step: int
    """Steps made in all."""
    stopped: bool
    """Whether it was stopped before its model was finished; `resume=True` goes on."""
    skipped: int
    """Steps that changed nothing because their gradient was not finite."""
    model: str
    """The finished model's folder; of a stopped run, the newest checkpoint's."""
    seconds: float
    best: dict[str, Any] | None
    """Step and loss of the checkpoint with the lowest validation loss, if one was validated."""


def train(
    recipe: str | PathLike[str] | Mapping[str, Any],
    *,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    best: bool = False,
    callbacks: Callback | Sequence[Callback] = (),
) -> TrainSummary:
    """Trains the model that a recipe describes.

    Args:
        recipe: The path of a recipe, its text (TOML), or its sections as a dict.
        out: The run folder (default: `runs/` and the recipe's name). A recipe without a path needs it.
        resume: Goes on with the run in the run folder.
        best: Makes `model/` the checkpoint with the lowest validation loss.
        callbacks: Called with each record of the journal: a dict whose `kind` is `step`, `validation` or
            `checkpoint`. A callback that returns `False` stops the run after a checkpoint, as Ctrl-C does.

    Raises:
        FileExistsError: If the run folder holds another run.
        ValueError: If the recipe or its data are wrong.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.
    """
    hears = [callbacks] if callable(callbacks) else list(callbacks)

    def heard(line: str) -> bool | None:
        record = json.loads(line)
        answers = [hear(record) for hear in hears]
        return False if any(answer is False for answer in answers) else None

    def run(path: Path, folder: Path) -> TrainSummary:
        return TrainSummary(**json.loads(native.train(path, folder, resume, best, heard)))

    if isinstance(recipe, PathLike) or (isinstance(recipe, str) and "\n" not in recipe and "=" not in recipe):
        path = Path(recipe)
        return run(path, Path(out) if out is not None else Path("runs") / path.stem)
    if out is None:
        raise ValueError("a recipe without a path has no name: say where its run goes with out=")
    text = recipe if isinstance(recipe, str) else toml(recipe)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return run(path, Path(out))


def toml(sections: Mapping[str, Any]) -> str:
    """A recipe's sections as TOML."""
    lines: list[str] = []
    for name, keys in sections.items():
        if not isinstance(keys, Mapping):
            raise ValueError(f"{name} is {keys!r}: a recipe is a dict of sections, and each section a dict of keys")
        lines.append(f"[{name}]")
        section = cast("Mapping[str, Any]", keys)
        lines += [f"{key} = {value(one)}" for key, one in section.items() if one is not None]
    return "\n".join(lines) + "\n"


def value(one: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(one, (list, tuple)):
        return "[" + ", ".join(value(each) for each in cast("list[Any]", one)) + "]"
    if isinstance(one, PathLike):
        one = os.fspath(cast("PathLike[str]", one))
    if isinstance(one, (bool, int, float, str)):
        return json.dumps(one, ensure_ascii=False)
    raise ValueError(f"{one!r} is no value of a recipe: give numbers, strings, true or false, or lists of them")
