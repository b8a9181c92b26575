"""Token ids in all the forms that callers have them in."""

from __future__ import annotations

from typing import Any


def as_list(values: Any) -> Any:
    """A list, whatever it was: an array, a tensor, a tuple."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def as_ids(values: Any) -> list[int]:
    """One sequence of ids."""
    found = as_list([values] if isinstance(values, int) else values)
    if isinstance(found, int):
        return [found]
    for one in found:
        if isinstance(one, bool) or not hasattr(one, "__index__"):
            raise ValueError(f"token ids are whole numbers, and {one!r} is none: give one sequence of ids")
        if not 0 <= one < 2**32:
            raise ValueError(f"{one} is no token id: give ids from 0 on")
    return [int(one) for one in found]


def in_rows(values: Any) -> list[list[int]]:
    """Several sequences of ids."""
    return [as_ids(row) for row in as_list(values)]


def is_one(values: Any) -> bool:
    """Whether these are the ids of one sequence, and not several sequences."""
    if hasattr(values, "ndim"):
        return bool(values.ndim == 1)
    return len(values) == 0 or not hasattr(values[0], "__len__")
