"""Names and messages that others chose, fit for terminals, JSON and spreadsheets."""

import json
import sys
import unicodedata
from typing import Any

JOINERS = "\u200c\u200d"
"""Format characters that letters of some languages need, and no terminal obeys."""


def printable(text: str) -> str:
    """The same in one line, with ``\\x1b`` and the like for what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def _printable(sign: str) -> str:
    if sign.isprintable() or sign in JOINERS or unicodedata.category(sign) == "Zs":
        return sign
    return sign.encode("unicode_escape").decode()


def note(text: str) -> None:
    """Tell a person on stderr what they may want to know."""
    print(printable(f"note: {text}"), file=sys.stderr)


def to_json(value: Any) -> str:
    """Indented JSON in which letters stay readable, but for what a terminal would obey."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    plain = all(printable(line) == line for line in text.split("\n"))
    return text if plain else json.dumps(value, indent=2, allow_nan=False)


def csv_cell(value: Any) -> Any:
    """A value for a CSV: printable, and with an apostrophe before a text that spreadsheets would
    compute, as is usual. Numbers stay what they are."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    if not text.startswith(("=", "+", "-", "@")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
