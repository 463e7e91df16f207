"""Images side by side, each with what a network says of it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from normexp.figure_files import save
from normexp.printable import printable

if TYPE_CHECKING:
    import numpy as np

WIDEST = 10  # images in a row


def draw(shown: "Sequence[tuple[str, np.ndarray, list[tuple[str, float]]]]", path: Path) -> None:
    """Draw a sheet.

    Args:
        shown: name, pixels uint8 (3,S,S) as the network gets them, and predictions, best first.
        path: its ending chooses the format.

    Raises:
        UserError: it cannot be written.
    """
    columns = min(WIDEST, math.ceil(math.sqrt(len(shown))))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(1.7 * columns, 2.3 * rows), layout="constrained")
    for place, (name, pixels, top) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        # What others named is no formula, whatever signs of dollars it has.
        title = _short(Path(name).name)
        axes.set_title(title, fontsize=6, color="#555555", parse_math=False)
        says = "\n".join(f"{_short(label)} {100 * share:.0f} %" for label, share in top[:3])
        axes.set_xlabel(says, fontsize=7, parse_math=False)
    save(figure, path, "choose another --figure", follow=True)


def _short(text: str, most: int = 22) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
