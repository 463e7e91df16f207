"""Texts and paths on the command line are taken as they are written, whatever Hydra would read."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from normexp.config.schema import KEYS
from normexp.system.errors import UserError

TYPES = {
    name: item.type for name, item in KEYS.items()
    if item.type in (str, str | None) and not name.endswith(".name")
}  # fmt: skip
"""Keys of texts and paths; names of choices are words."""


def quoted(settings: Iterable[str], sweeps: bool = False) -> list[str]:
    """Settings with the values of texts and paths in quotes, so that they come through unchanged.

    What has quotes around it is left to Hydra, as are `null`, where a key may have none, and
    `${...}`.

    Args:
        sweeps: several values may be given, separated by commas.

    Raises:
        UserError: whether a comma separates values or is part of a path is not clear.
    """
    return [_quoted(setting, sweeps) for setting in settings]


def _quoted(setting: str, sweeps: bool) -> str:
    key, equals, value = setting.partition("=")
    name = key.lstrip("+")
    if not equals or name not in TYPES or "${" in value:
        return setting
    read = _read(setting)
    if read is not None and value.lstrip()[:1] in ("'", '"'):
        return setting
    if read is not None and read.value() is None and TYPES[name] is not str:
        return setting
    if sweeps and (read.is_sweep_override() if read is not None else "," in value):
        if "," in value and Path(value).expanduser().exists():
            raise UserError(
                f"{setting}: a comma separates the values of a sweep; for the one path write "
                f"{line(key, value)}"
            )
        if read is None and not {"'", '"'} & set(value):
            return f"{key}={','.join(_in_quotes(part.strip()) for part in value.split(','))}"
        return setting
    return f"{key}={_in_quotes(value)}"


def line(key: str, value: str) -> str:
    """What to type in a shell so that Hydra takes a value as it is."""
    return shlex.quote(f"{key}={_in_quotes(value, Quote.double)}")


def _in_quotes(text: str, quote: Quote = Quote.single) -> str:
    found: str = QuotedString(text, quote).with_quotes()
    return found


def _read(setting: str) -> Override | None:
    """What Hydra reads, or None where it cannot."""
    try:
        return OverridesParser.create().parse_overrides([setting])[0]
    except HydraException:
        return None
