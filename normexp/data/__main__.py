"""``python -m normexp.data fetch [KEY=VALUE ...]``: prepare a data set before a sweep."""

import argparse
import logging
import time

from normexp.config.command_line import OneLineParser
from normexp.config.one_line import one_line_errors
from normexp.config.schema import CIFAR, Config, DataName
from normexp.runs.composing import compose
from normexp.system.errors import UserError
from normexp.system.printable import printable


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with a non-zero status on errors, said in one line."""
    parser = OneLineParser(
        prog="python -m normexp.data", description="Prepare data sets before a sweep."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    fetch = commands.add_parser(
        "fetch",
        help="download and check, or pack, the images that a run would use",
        description="Download and check CIFAR-10, or pack a folder of images, so that later runs\n"
        "only read it. Takes the same settings as normexp.train.",
        epilog="examples:\n  fetch data.root=/data data.url=https://mirror/cifar-10-python.tar.gz\n"
        "  fetch data=image_folder data.root=/data/pets data.image_size=64",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fetch.add_argument(
        "--verify", action="store_true", help="check every packed image, not a sample of them"
    )
    fetch.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for normexp.train")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with one_line_errors():
        given = parser.parse_args(arguments)
        _fetch(compose(given.overrides), given.verify)


def _fetch(config: Config, every: bool) -> None:
    from normexp.data import sources

    if every and config.data.name in CIFAR and not config.data.verify:
        raise UserError("--verify data.verify=false: there is nothing to check by; leave one out")
    start = time.perf_counter()
    data, ignored = sources.settle(config.data)
    dataset = sources.load(data, progress=config.log.progress, every=every)
    seconds = time.perf_counter() - start
    place = sources.place(data) or "nowhere: each run makes them, or scikit-learn brings them"
    sets = {"train": dataset.train, "validation": dataset.val, "test": dataset.test}
    there = {name: each.images for name, each in sets.items() if each is not None}
    megabytes = sum(images.nbytes for images in there.values()) / 1e6
    size = dataset.test.images.shape
    rows = {
        "data": DataName(config.data.name).value,
        "images": ", ".join(f"{len(images):,} {name}" for name, images in there.items()),
        "classes": f"{len(dataset.classes)} ({_shorten(dataset.classes)})",
        "size": f"{size[3]}x{size[2]} pixels, {megabytes:.0f} MB in memory",
        "place": place,
        "checked": "every image" if every else "a sample; --verify checks every image",
        "time": f"{seconds:.1f} s",
    }
    for name, value in rows.items():
        print(f"{name:8} {value}")
    for note in (*ignored, *dataset.notes):
        print(f"note: {note}")


def _shorten(names: tuple[str, ...], most: int = 10) -> str:
    return printable(", ".join(names[:most])) + (", ..." if len(names) > most else "")


if __name__ == "__main__":
    main()
