"""Figures of matplotlib as files: whole or not at all, the format by the name's ending."""

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from normexp.errors import UserError
from normexp.run_directory import replacing


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
