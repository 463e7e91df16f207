"""What a comparison is asked for, and the keys by which a command line says so."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from normexp.config.checks import nearest
from normexp.report.thresholds import LEAST_SEEDS
from normexp.system.errors import UserError

KEYS = {
    "looks": "seeds of each variant at each look at the table",
    "tune": "false: all at their configured learning rate",
    "tune.rates": "how many learning rates each variant tries",
    "tune.seeds": "seeds that try them; they do not report",
    "tune.share": "of the training that a trial gets, above 0 to 1",
    "budget": "a time to stay within, such as 30m, 2h or 3d",
    "reference": "what the others are compared with, such as norm=bn",
    "margin": "differences within so many points count as the same",
}
"""The keys of `normexp.compare` beside those of a run."""

SEEDS = "{}: compare chooses the seeds; looks=[8,12,16] says how many of each"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DEFAULTS = {"name": "compare", "scheduler": "cosine"}
"""Where nothing else is asked for. An annealed rate can halve the noise: docs/report.md."""
LOOKS = (8, 12, 16)
"""Seeds of each variant at each look, unless asked for otherwise; docs/compare.md compares them."""

FIRST_TUNING_SEED = 1000
"""Seeds that tune are none of those that decide, which are 0, 1, 2, ..."""


@dataclass(frozen=True)
class Asked:
    """The settings of a comparison."""

    looks: tuple[int, ...] = LOOKS
    rates: int = 5
    """Learning rates that each cell tries; 1 for none but its own."""
    tuning_seeds: int = 2
    share: float = 1.0
    """Of the training of a run that deciding gets, what trying a rate gets."""
    budget: float | None = None
    """Seconds."""
    reference: tuple[str, str] | None = None
    """Key and value."""
    margin: float = 0.005
    """Differences of accuracy within it count as none."""

    @property
    def tunes(self) -> bool:
        return self.rates > 1

    def recorded(self) -> dict[str, Any]:
        """What must be the same where a comparison goes on; its time need not."""
        kept = asdict(self)
        del kept["budget"]
        return {**kept, "looks": list(self.looks), "reference": _written(self.reference)}


def _written(reference: tuple[str, str] | None) -> str | None:
    return None if reference is None else "=".join(reference)


def split(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """The settings of a comparison, as its sweeper's, and those of its runs.

    Raises:
        UserError: a key has no place in a comparison.
    """
    own, runs = [], []
    for setting in settings:
        key, sign, value = setting.partition("=")
        if key in KEYS and sign:
            # Quoted, since Hydra reads signs such as = in a value; :func:`read` takes it apart.
            quoted = value.replace("\\", "\\\\").replace("'", "\\'")
            own.append(f"hydra.sweeper.{key.replace('.', '_')}='{quoted}'")
        elif key.partition(".")[0] == "tune":
            known = [one for one in KEYS if one.startswith("tune")]
            raise UserError(f"{key}: no such key;{nearest(key, known)} use {', '.join(known)}")
        elif key in ("seed", "seeds"):
            raise UserError(SEEDS.format(setting))
        else:
            runs.append(setting)
    keys = {one.partition("=")[0] for one in runs}
    if "experiment" not in keys:
        runs += [f"{key}={value}" for key, value in DEFAULTS.items() if key not in keys]
    return own, runs


def read(given: dict[str, str | None]) -> Asked:
    """Take the settings of a command line apart.

    Args:
        given: texts by key of :data:`KEYS`, None where there is none.

    Raises:
        UserError: one cannot work.
    """
    texts = {key: text for key, text in given.items() if text is not None}
    found: dict[str, Any] = {}
    if "looks" in texts:
        found["looks"] = _looks(texts["looks"])
    if "tune" in texts and not _switch(texts["tune"]):
        if extra := [key for key in texts if key.startswith("tune.")]:
            raise UserError(f"tune=false {extra[0]}={texts[extra[0]]}: give one of them")
        found["rates"] = 1
    for key, name, least in (("tune.rates", "rates", 2), ("tune.seeds", "tuning_seeds", 1)):
        if key in texts:
            found[name] = _whole(key, texts[key], least)
    if "tune.share" in texts:
        found["share"] = _number("tune.share", texts["tune.share"], 1)
    if "margin" in texts:
        found["margin"] = _number("margin", texts["margin"], 100) / 100
    if "budget" in texts:
        found["budget"] = seconds(texts["budget"])
    if "reference" in texts:
        key, sign, value = texts["reference"].partition("=")
        if not (key and sign and value):
            raise UserError(f"reference={texts['reference']}: write KEY=VALUE, such as norm=bn")
        found["reference"] = key, value
    return Asked(**found)


def _looks(text: str) -> tuple[int, ...]:
    parts = [part for part in re.split(r"[\s,]+", text.strip("[] ")) if part]
    if any(part.isdecimal() and int(part) < LEAST_SEEDS for part in parts):
        raise UserError(
            f"looks={text}: must be numbers of at least {LEAST_SEEDS}: fewer seeds allow no verdict"
        )
    numbers = tuple(_whole("looks", part, LEAST_SEEDS) for part in parts)
    if not numbers or list(numbers) != sorted(set(numbers)):
        raise UserError(f"looks={text}: give rising numbers of seeds, such as looks=[8,12,16]")
    return numbers


def _whole(key: str, text: str, least: int) -> int:
    if not text.isascii() or not text.isdecimal() or not least <= int(text) <= 10_000:
        raise UserError(f"{key}={text}: must be a whole number of at least {least}")
    return int(text)


def _number(key: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise UserError(f"{key}={text}: must be a number above 0 and at most {most}")
    return value


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"tune={text}: must be true or false")
    return text.lower() == "true"


def seconds(text: str) -> float:
    """A time such as ``90s``, ``30m``, ``1.5h`` or ``3d``.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])", text.strip())
    if found is None or not 0 < float(found[1]) * UNITS[found[2]] <= 366 * 86400:
        raise UserError(f"budget={text}: write a time such as budget=30m, 2h or 3d")
    return float(found[1]) * UNITS[found[2]]
