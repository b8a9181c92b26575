"""Packages that only some functions need."""

from __future__ import annotations

import importlib
from typing import Any


def optional(name: str, needed_for: str) -> Any:
    """A module, or an error that says what to install and why."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{needed_for} needs {name}: pip install {name}") from error
