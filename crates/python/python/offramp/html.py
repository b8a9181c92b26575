"""Texts and tables for notebooks."""

from __future__ import annotations

import html as escaping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .generation import GeneratedText, StreamItem

STYLE = "padding:0 1px;border-radius:2px;color:#111;background:"


def text(generated: GeneratedText) -> str:
    """Each token on the colour of its depth, pale where it left early; a title says the rest."""
    layers = generated.num_hidden_layers
    tokens = "".join(token(item, layers) for item in generated.items)
    legend = " ".join(
        f'<span style="{STYLE}{colour(depth, layers)}">layer {depth}</span>'
        for depth in sorted(set(generated.exit_layers))
    )
    prompt = escaping.escape(generated.prompt)
    return (
        f'<div style="white-space:pre-wrap;line-height:1.6">{prompt}{tokens}</div>'
        f'<div style="margin-top:.5em;font-size:smaller">{legend}</div>'
    )


def token(item: StreamItem, layers: int) -> str:
    depth = item.exit_layer or layers
    title = f"token {item.token_id}, layer {depth} of {layers}, {item.origin}"
    mark = {"accepted": "border-bottom:2px solid #2a7", "corrected": "border-bottom:2px dotted #c40"}
    style = f"{STYLE}{colour(depth, layers)};{mark.get(item.origin or '', '')}"
    return f'<span style="{style}" title="{escaping.escape(title)}">{escaping.escape(item.text)}</span>'


def colour(depth: int, layers: int) -> str:
    """From pale yellow to blue with the depth; dark letters stand out on all of them."""
    share = depth / max(layers, 1)
    return f"hsl({60 + 150 * share:.0f} 75% {88 - 20 * share:.0f}%)"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = "".join(f'<th style="text-align:right">{escaping.escape(cell)}</th>' for cell in head)
    lines = [f"<thead><tr>{cells}</tr></thead><tbody>"]
    for row in rows:
        cells = "".join(f'<td style="text-align:right">{escaping.escape(cell)}</td>' for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</tbody></table>"
