"""Figures of matplotlib as files: whole or not at all, the format by the name's ending; and fonts
that have the letters of what people call things."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from matplotlib import font_manager, rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from normexp.system.errors import UserError
from normexp.system.writing import replacing


def refuse_unknown_format(path: Path) -> None:
    """Raise a UserError for a file whose ending names no format of pictures."""
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise UserError(f"{path}: the ending names no format of pictures; use .png, .pdf or .svg")


def save(figure: Figure, path: Path, fix: str, follow: bool = False) -> None:
    """Write a figure.

    Args:
        fix: what a person can do if it cannot be written.
        follow: as :func:`replacing` has it.

    Raises:
        UserError: it cannot.
    """
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=150)
    with replacing(path, fix, follow) as file:
        file.write(content.getvalue())


@contextlib.contextmanager
def letters_of(texts: Iterable[str]) -> Iterator[Callable[[str, str], str]]:
    """Draw with fonts of this machine that have the letters of these texts.

    Yields:
        A function that gives the first of two texts if there are fonts for it, else the second.
    """
    lacking = {letter for text in texts for letter in text if not letter.isspace()}
    lacking -= _letters(font_manager.findfont(font_manager.FontProperties()))
    families = list(rcParams["font.family"])
    for font in font_manager.fontManager.ttflist if lacking else ():
        # The one draws a box for every letter, the other has colours that matplotlib cannot draw.
        if "Last Resort" in font.name or "Emoji" in font.name:
            continue
        if had := lacking & _letters(font.fname):
            families.append(font.name)
            lacking -= had
    with rc_context({"font.family": families}):
        yield lambda text, instead: instead if lacking.intersection(text) else text


def _letters(font: str) -> set[str]:
    try:  # Not font_manager.get_font, which keeps 64 fonts open.
        return set(map(chr, FT2Font(font).get_charmap()))
    except (OSError, RuntimeError):  # A broken file, or a format that matplotlib does not know.
        return set()
