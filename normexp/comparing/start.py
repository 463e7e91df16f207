"""A comparison as a command line asks for it, checked before anything is trained."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from normexp.comparing.budget import Length
from normexp.comparing.cells import Table, arrange
from normexp.comparing.driver import Driver
from normexp.comparing.settings import SEEDS, Asked
from normexp.comparing.stage import Stages
from normexp.runs import sweep as sweeps
from normexp.system.errors import UserError


def start(sweeper: Any, arguments: list[str], asked: Asked) -> Driver:
    """Set up the comparison that a command line asks for.

    Args:
        arguments: the settings of its runs, with the values that are crossed.

    Raises:
        UserError: it cannot be done.
    """
    stages = Stages(sweeper)
    parsed = OverridesParser.create(stages.loader).parse_overrides(
        [*sweeper._parse_config(), *arguments]
    )
    (lists,) = sweeper.split_arguments(parsed, None)
    (sweep,) = sweeps.opened
    for one in parsed:
        if one.key_or_group in ("seed", "seeds") and one.value() is not None:
            raise UserError(SEEDS.format(one.input_line))
    settings = [sweeps.settings_of(one, sweep) for one in lists]
    jobs = stages.compose(lists)
    table = arrange(jobs, settings, asked.reference)
    _refuse(table, asked)
    return Driver(stages, table, asked)


def _refuse(table: Table, asked: Asked) -> None:
    if len({cell.folder for cell in table.cells}) > 1:
        raise UserError("name: all runs of a comparison share one; start one for each name")
    if len({Length.of(cell.config) for cell in table.cells}) > 1:
        raise UserError(
            "epochs, max_steps: all cells of a comparison train equally long; start a comparison "
            "for each length"
        )
    if not asked.tunes:
        return
    if any("optimizer.lr" in cell.settings for cell in table.cells):
        raise UserError(
            "optimizer.lr: compare tunes it for each cell; leave it out, or give tune=false"
        )
    if len({cell.rate for cell in table.cells}) > 1:
        raise UserError(
            "optimizer.lr differs between cells, and rates are tried around one; give "
            "optimizer.lr=... or tune=false"
        )
    if any(cell.config.data.val_fraction == 0 for cell in table.cells):
        raise UserError(
            "data.val_fraction=0: rates are chosen on validation images; give a share of "
            "them, or tune=false"
        )
