"""The stories that the task scores."""

import os
from pathlib import Path
from typing import Any

from datasets import Dataset

STORIES = Path(__file__).resolve().parents[4] / "stories/valid.txt"


def load(**_: Any) -> dict[str, Dataset]:
    """Stories of a text file, which `<|endoftext|>` separates."""
    text = Path(os.environ.get("OFFRAMP_TEXT", STORIES)).read_text(encoding="utf-8")
    stories = [story.strip() for story in text.split("<|endoftext|>")]
    return {"test": Dataset.from_list([{"text": story} for story in stories if story])}


def score(doc: dict[str, str], results: tuple[float]) -> dict[str, tuple[float, int]]:
    """Nats and bytes, which lm-eval sums over all stories."""
    (loglikelihood,) = results
    return {"bits_per_byte": (loglikelihood, len(doc["text"].encode()))}
