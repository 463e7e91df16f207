"""What a command line asks to be measured: one cell for each combination of the values given.

Nothing here imports torch: --help and mistakes answer at once.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from normexp.config.checks import seeds_of
from normexp.config.schema import Config
from normexp.runs.composing import compose
from normexp.system.errors import UserError

OF_ALL = ("data", "device", "threads", "deterministic")
"""Keys that all cells share: they are timed in one process, on the same images."""


@dataclass(frozen=True)
class Cell:
    """One combination of settings."""

    part: str
    """Of the bench."""
    settings: list[str]
    config: Config
    swept: dict[str, str]
    """Its values of the keys that have several."""

    @property
    def seeds(self) -> int:
        return len(seeds_of(self.config))

    def row(self) -> dict[str, Any]:
        """The columns that tell it from others."""
        config = self.config
        row: dict[str, Any] = {"model": config.model.name, "norm": config.norm.name}
        row |= {"batch_size": config.batch_size, "seeds": self.seeds}
        return row | {"also": self.others(*row)}

    def others(self, *shown: str) -> str:
        """What is swept beside the keys that are shown anyway."""
        return " ".join(f"{key}={self.swept[key]}" for key in self.swept if key not in shown)


def cells(part: str, defaults: Sequence[str], given: Sequence[str]) -> list[Cell]:
    """The cells of settings as ``normexp.train -m`` reads them, ``norm=bn,gn batch_size=2,8``.

    Args:
        part: of the bench; norms that cannot work in a model are said and left out.
        defaults: settings that given ones take the place of, beside ``data=synthetic``.

    Raises:
        UserError, HydraException, OmegaConfBaseException: as :func:`one_line_errors` shows them.
    """
    parsed = OverridesParser.create().parse_overrides(["data=synthetic", *defaults, *given])
    # norm.name=mine:rms chooses the norm as norm=bn does, and norm=bn,mine:rms may stand for both.
    keys = [re.sub(r"^norm\.name$", "norm", each.key_or_group) for each in parsed]
    chosen = dict(zip(keys, parsed, strict=True))
    (jobs,) = BasicSweeper.split_arguments(list(chosen.values()), None)
    swept = [key for key, each in chosen.items() if each.is_sweep_override()]
    for key in swept:
        if key.split(".")[0] in OF_ALL and part != "images":
            raise UserError(f"{key}: give one value; all is timed in one process on equal images")
    found, refused = [], []
    for job in jobs:
        values = dict(zip(chosen, (setting.partition("=")[2] for setting in job), strict=True))
        own = [re.sub(r"^norm=(?=.*:)", "norm.name=", setting) for setting in job]
        try:
            config = compose(own)
            if config.rates is not None:
                raise UserError("rates: steps of one learning rate are timed; leave it out")
            found.append(Cell(part, own, config, {key: values[key] for key in swept}))
        except UserError as error:
            refused.append(error)
    if refused and (part != "norms" or not found):
        raise refused[0]
    for reason in dict.fromkeys(map(str, refused)):
        print(f"left out: {reason}")
    return found
