"""``python -m normexp.norms [NAME]``: all norms as a table, or one with its formula."""

from normexp.config.command_line import OneLineParser
from normexp.config.one_line import one_line_errors
from normexp.norms.catalogue import CATALOGUE, card, table
from normexp.norms.rules import unknown_norm
from normexp.system.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with a non-zero status on errors, said in one line."""
    parser = OneLineParser(
        prog="python -m normexp.norms", description="Show the norms that normexp knows."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="show one, with its formula")
    with one_line_errors():
        name = parser.parse_args(arguments).name
        if name is not None and ":" in name:
            raise UserError(
                f"{name}: a norm of your own is not in the table; give one of its names"
            )
        if name is not None and name not in CATALOGUE:
            raise unknown_norm(name)
        print(table() if name is None else card(CATALOGUE[name]))


if __name__ == "__main__":
    main()
