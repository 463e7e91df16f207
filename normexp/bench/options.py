"""The command line that all parts of the bench share; nothing here imports torch."""

import argparse
import math
from pathlib import Path

from normexp.command_line import OneLineParser
from normexp.config_checks import nearest
from normexp.errors import UserError
from normexp.norms.rules import BUILT_IN


class Parser(OneLineParser):
    """Takes ``KEY=VALUE`` settings anywhere."""

    def __init__(
        self, part: str, description: str, csv: str, rounds: int, epilog: str = ""
    ) -> None:
        super().__init__(
            prog=f"python -m normexp.bench {part}".rstrip(), description=description, epilog=epilog,
            allow_abbrev=False,
        )  # fmt: skip
        self.add_argument(
            "--rounds", type=count, default=rounds, metavar="N",
            help=f"how often each is timed, in turn (default: {rounds})",
        )  # fmt: skip
        place = Path("outputs") / csv
        self.add_argument(
            "--csv", type=Path, default=place, metavar="PATH",
            help=f"where the table is written; the picture lies beside it (default: {place})",
        )  # fmt: skip
        self.add_argument(
            "settings",
            nargs="*",
            metavar="KEY=VALUE",
            help="settings as for normexp.train; images are synthetic unless data= says otherwise",
        )

    def add_list(self, option: str, default: list[str], help: str) -> None:
        help = f"{help} (default: {' '.join(default)})"
        self.add_argument(option, nargs="+", default=default, metavar="NAME", help=help)

    def add_counts(self, option: str, default: list[int], help: str) -> None:
        help = f"{help} (default: {' '.join(map(str, default)) or 'none'})"
        self.add_argument(option, nargs="+", type=count, default=default, metavar="N", help=help)

    def add_seconds(self) -> None:
        self.add_argument(
            "--seconds", type=seconds, default=0.5, metavar="S",
            help="of each in each round (default: 0.5)",
        )  # fmt: skip

    def parse(self, arguments: list[str], taken: tuple[str, ...] = ()) -> argparse.Namespace:
        """What a person chose.

        Args:
            taken: keys that a list of the command line sets, as ``--norms`` sets ``norm``.

        Raises:
            UserError: one line that says what is wrong.
        """
        # A list such as --norms would take the settings after it for its own.
        settings = [text for text in arguments if "=" in text and not text.startswith("-")]
        options = self.parse_args([text for text in arguments if text not in settings])
        options.settings += settings
        for setting in settings:
            key, _, value = setting.partition("=")
            if key in taken:
                option = f"{key.removesuffix('s')}s".replace("_", "-")
                raise UserError(f"{setting}: say --{option} {value} here")
        if options.csv.suffix == ".png":
            raise UserError(f"--csv {options.csv}: the picture takes this name; end it in .csv")
        return options


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a number of seconds above 0")
    return value


def norm_setting(name: str) -> str:
    """The setting that chooses a norm of the catalogue, or ``module:function`` of one's own.

    Raises:
        UserError: the catalogue has no such norm.
    """
    if ":" in name:
        return f"norm.name={name}"
    if name not in BUILT_IN:
        raise UserError(
            f"--norms {name}: no such norm;{nearest(name, BUILT_IN)} known are "
            f"{' '.join(BUILT_IN)}, and module:function for one of your own"
        )
    return f"norm={name}"
