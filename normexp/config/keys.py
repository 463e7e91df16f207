"""What is known of a key of the schema beside its type and its docstring: kept with its field."""

from collections.abc import Iterator
from dataclasses import Field, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING


def key(default: Any = MISSING, **facts: Any) -> Any:
    """A field of the schema.

    Args:
        default: or what makes it, such as ``list``.
        facts: `above`, `least`, `most`, `below`: what a number may be, or each of a list;
            `length`: of a list;
            `read_by`: a key beside it and which of its choices read this one; elsewhere all do;
            `identity` False: it cannot change the result of a run (but for rounding), only how,
            where or how fast that is computed;
            `was`: of a key that schema version 1 began without, the value at which a run is what it
            was before: there it is no part of the identity either, so that runs keep their names.
    """
    if callable(default):
        return field(default_factory=default, metadata=facts)
    return field(default=default, metadata=facts)


SEED = {"least": 0, "most": 2**63 - 1}
FRACTION = {"least": 0, "below": 1}


def keys(level: Any, prefix: str = "") -> "Iterator[tuple[str, Field[Any]]]":
    """Every dotted key below a dataclass, groups before what is in them."""
    for item in fields(level):
        yield f"{prefix}{item.name}", item
        if is_dataclass(item.type):
            yield from keys(item.type, f"{prefix}{item.name}.")


def read_by(level: Any) -> dict[str, tuple[str, frozenset[str]]]:
    """Keys that only some choices read: {key: (key of the choice, choices that read it)}."""
    found = {}
    for name, item in keys(level):
        if "read_by" in item.metadata:
            choice, *readers = item.metadata["read_by"]
            found[name] = f"{name.rpartition('.')[0]}.{choice}", frozenset(readers)
    return found
