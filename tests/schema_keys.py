"""The keys of the configuration's schema, for tests that walk all of them."""

from dataclasses import fields, is_dataclass
from typing import Any

from normexp.config.schema import Config


def leaves(level: Any = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the schema."""
    keys = []
    for item in fields(level):
        inner = is_dataclass(item.type)
        key = f"{prefix}{item.name}"
        keys += leaves(item.type, f"{key}.") if inner else [key]
    return keys
