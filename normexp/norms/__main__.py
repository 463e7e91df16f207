"""``python -m normexp.norms [NAME]``: all norms as a table, or one with its formula."""

import re
import textwrap
from collections.abc import Sequence

from normexp.config.command_line import OneLineParser
from normexp.config.one_line import one_line_errors
from normexp.norms.catalogue import CATALOGUE, Facts
from normexp.norms.rules import ONE_VALUE, unknown_norm
from normexp.system.errors import UserError

WIDTH = 80
NOTES = (
    "keeps: statistics of a kind for N images, C channels, G groups, H·W positions.",
    "uses batch: an image's result depends on its batch in training, and not in evaluation.",
    "norm.weight_standardization=true with any norm but none (Qiao et al. 2019, arXiv 1903.10520): "
    "convolutions use Ŵ = (W - μ) / √(σ² + 1e-6), over the weights of each output channel.",
    "python -m normexp.norms NAME shows one norm with its formula, settings and where it is "
    "refused.",
)


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
        print(_table() if name is None else _card(CATALOGUE[name]))


def _table() -> str:
    """All norms, one a line: what they are for, and below that what they do."""
    uses = [("name", "paper", "used in")]
    facts = [("name", "(N,C,H,W)", "(N,C)", "keeps", "learns", "uses batch")]
    for each in CATALOGUE.values():
        uses.append((each.name, re.split("[,;]", each.paper)[0], each.when))
        facts.append((each.name, *_axes(each), each.keeps, each.parameters, _yes(each.uses_batch)))
    notes = [textwrap.fill(note, WIDTH, break_on_hyphens=False) for note in NOTES]
    return "\n".join([*_aligned(uses), "", *_aligned(facts), "", *notes])


def _card(each: Facts) -> str:
    """One norm, a fact a line."""
    maps, vectors = _axes(each)
    refused = [each.refused, *(ONE_VALUE[axes][0] for axes in sorted(each.axes, key=len)[:1])]
    facts = {
        "norm": f"{each.name}: {each.title}",
        "paper": each.paper,
        "used in": each.when,
        "formula": each.formula,
        "(N,C,H,W)": "no statistics" if maps == "-" else f"statistics over {maps}",
        "(N,C)": vectors if vectors in ("-", "refused") else f"statistics over {vectors}",
        "(N,L,C)": "each token as one of (N,C)" if each.tokens else "refused",
        "keeps": f"{each.keeps} statistics of a kind for N images, C channels"
        + (", G groups" if "G" in each.keeps else ""),
        "learns": f"{each.parameters} numbers",
        "activation": "-",
        "train≠eval": _yes(each.train_differs),
        "uses batch": _yes(each.uses_batch),
        "refused": "; ".join(filter(None, refused)) or "-",
        "settings": " ".join(f"norm.{key}" for key in each.settings) or "-",
    }
    if each.contains_activation:
        facts["activation"] = "contained: it takes the place of the ReLU"
    return "\n".join(
        textwrap.fill(f"{name:<10}  {fact}", WIDTH, subsequent_indent=" " * 12)
        for name, fact in facts.items()
    )


def _axes(each: Facts) -> tuple[str, str]:
    """What its statistics are over, for maps and for vectors."""
    vectors = "refused" if each.vectors is None else "; ".join(each.vectors) or "-"
    return "; ".join(each.axes) or "-", vectors


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


if __name__ == "__main__":
    main()
