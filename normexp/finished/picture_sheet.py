"""Images side by side, each with what a network says of it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from normexp.system.figure_files import letters_of, save
from normexp.system.printable import printable

if TYPE_CHECKING:
    import numpy as np

WIDEST = 10  # images in a row


def draw(
    shown: "Sequence[tuple[str, np.ndarray, list[tuple[str, float]]]]", classes: Sequence[str],
    path: Path,
) -> dict[str, str]:  # fmt: skip
    """Draw a sheet.

    Args:
        shown: name, pixels uint8 (3,S,S) as the network gets them, and predictions, best first.
        classes: all names, in the order of the network's outputs.
        path: its ending chooses the format.

    Returns:
        What stands for names that no font here can write, by name.

    Raises:
        UserError: it cannot be written.
    """
    columns = min(WIDEST, math.ceil(math.sqrt(len(shown))))
    rows = math.ceil(len(shown) / columns)
    files = [printable(Path(name).name) for name, _, _ in shown]
    named = {label for _, _, top in shown for label, _ in top[:3]}
    figure = Figure(figsize=(1.7 * columns, 2.3 * rows), layout="constrained")
    with letters_of([*files, *map(printable, named)]) as written:
        labels = {
            label: written(printable(label), f"class {place}")
            for place, label in enumerate(classes, start=1)
            if label in named
        }
        for place, (_, pixels, top) in enumerate(shown):
            axes = figure.add_subplot(rows, columns, place + 1)
            axes.imshow(pixels.transpose(1, 2, 0), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            # What others named is no formula, whatever signs of dollars it has.
            title = _short(written(files[place], f"image {place + 1}"))
            axes.set_title(title, fontsize=6, color="#555555", parse_math=False)
            says = [f"{_short(labels[label])} {100 * share:.0f} %" for label, share in top[:3]]
            axes.set_xlabel("\n".join(says), fontsize=7, parse_math=False)
    save(figure, path, "choose another --figure", follow=True)
    return {label: text for label, text in labels.items() if printable(label) != text}


def _short(text: str, most: int = 22) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
