"""Each norm alone at given shapes: forward, backward, bytes kept, over a plain copy."""

import argparse
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from normexp import config_checks
from normexp.bench.options import Parser, norm_setting
from normexp.bench.table import Column, Row, keep, number, with_range
from normexp.bench.timing import in_turn, of_spread, ratios, spread, spread_names
from normexp.config import Config, NormConfig
from normexp.entry import image_size, read
from normexp.errors import UserError
from normexp.models.plan import norm_sites
from normexp.norms import rules

if TYPE_CHECKING:
    import torch

FIELDS = (
    *("shape", "sites", "precision", "norm", "rounds"),
    *spread_names("forward_ms", "backward_ms", "copy_ms", "forward_x_copy", "backward_x_copy"),
    *("kept_bytes", "input_bytes"),
)
COLUMNS = (
    Column("shape", -17, lambda row: row["shape"]),
    Column("norm", -10, lambda row: row["norm"]),
    Column("forward ms (min..max)", 25, lambda row: with_range(row, "forward_ms", ".3f")),
    Column("backward ms (min..max)", 25, lambda row: with_range(row, "backward_ms", ".3f")),
    Column("kept", 8, lambda row: _bytes(row["kept_bytes"])),
    Column("copy ms", 8, lambda row: number(row, "copy_ms")),
    Column("forward / copy", 18, lambda row: with_range(row, "forward_x_copy", ".1f")),
    Column("backward / copy", 18, lambda row: with_range(row, "backward_x_copy", ".1f")),
)


@dataclass(frozen=True)
class Place:
    """An input that norms are timed on.

    Attributes:
        shape: (N,C,H,W) or (N,C).
        sites: how many sites of which models have it; empty for a shape that was asked for.
    """

    shape: tuple[int, ...]
    sites: str = ""

    @property
    def text(self) -> str:
        return "x".join(map(str, self.shape))

    def site(self) -> rules.Site:
        return rules.Site(self.shape[1], math.prod(self.shape[2:]) if self.shape[2:] else None)


def main(arguments: list[str]) -> None:
    parser = Parser(
        "norms",
        "Time each norm alone, forward and backward, in training mode, on inputs as they come to "
        "the norms of a model; beside a plain copy of the input, the least that reading and "
        "writing it can cost, and the memory it keeps for backward.",
        "bench-norms.csv", 7,
    )  # fmt: skip
    parser.add_list("--models", ["deep_cnn"], "whose norms' inputs")
    parser.add_counts("--batch-sizes", [2, 128], "images in a batch")
    parser.add_list("--norms", list(rules.BUILT_IN), "norms")
    parser.add_argument(
        "--shapes", nargs="+", type=_shape, metavar="N,C[,H,W]",
        help="inputs, instead of those of models",
    )  # fmt: skip
    parser.add_seconds()
    options = parser.parse(arguments, taken=("model", "norm", "batch_size"))
    norms = {name: _settled([norm_setting(name), *options.settings]).norm for name in options.norms}
    config = _settled(options.settings)
    shapes = dict.fromkeys(options.shapes or ())
    places = [Place(shape) for shape in shapes] or _places(options)

    # Which norms there are depends on the device: only torch knows that.
    from normexp.trainer import process

    device = process.pick_device(config.device)
    fit = _fitting(places, norms, device)
    with process.settings(config, device):
        rows = (
            row for place in fit for row in _measure(place, fit[place], config, device, options)
        )
        keep(rows, options.csv, FIELDS, COLUMNS, _draw)


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if len(sizes) not in (2, 4) or not all(size.isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(f"{text}: write N,C,H,W or N,C, such as 128,64,32,32")
    return tuple(map(int, sizes))


def _settled(settings: list[str]) -> Config:
    """A configuration whose norm need not work at all sites: those that do are measured."""
    config = read(["data=synthetic", *settings])
    config_checks.check(config)
    return config


def _places(options: argparse.Namespace) -> list[Place]:
    """The inputs of the norms of the models, each shape once."""
    found: dict[tuple[int, ...], list[str]] = {}
    for model, batch in itertools.product(options.models, options.batch_sizes):
        config = _settled([f"model={model}", *options.settings])
        found_sites = norm_sites(config.model, image_size(config))
        sites = Counter(rules.Site(site.channels, site.positions) for site in found_sites)
        if not sites:
            raise UserError(f"model={model}: has no norms to time")
        for site, count in sites.items():
            side = math.isqrt(site.positions) if site.positions else None
            shape = (batch, site.channels, *((side, side) if side else ()))
            found.setdefault(shape, []).append(f"{count} of {model}")
    return [Place(shape, ", ".join(dict.fromkeys(sites))) for shape, sites in found.items()]


def _fitting(
    places: list[Place], norms: dict[str, NormConfig], device: "torch.device"
) -> dict[Place, dict[str, NormConfig]]:
    """The norms that can work at each place; says which cannot, and why.

    Raises:
        UserError: none can anywhere.
    """
    from normexp.bench.loops import refuse_sync_bn

    fit: dict[Place, dict[str, NormConfig]] = {}
    refused: dict[str, list[str]] = {}
    for place in places:
        for name, norm in norms.items():
            try:
                rules.check(norm, [place.site()], place.shape[0])
                refuse_sync_bn(norm, device)
                fit.setdefault(place, {})[name] = norm
            except UserError as error:
                refused.setdefault(str(error), []).append(place.text)
    for reason, where in refused.items():
        print(f"left out at {', '.join(where)}: {reason}")
    if not fit:
        raise UserError("none of these norms can work at these places; choose others")
    return fit


def _measure(
    place: Place, norms: dict[str, NormConfig], config: Config, device: "torch.device",
    options: argparse.Namespace,
) -> Iterator[Row]:  # fmt: skip
    """All norms at one place, timed in turn."""
    from normexp.bench import norm_loops
    from normexp.norms.factory import build_norm
    from normexp.trainer.process import autocast

    channels, dims = place.shape[1], len(place.shape)
    x = norm_loops.make_input(place.shape, config, device)
    precision = autocast(config.precision, device)
    layers = {name: build_norm(channels, dims, norm).to(device) for name, norm in norms.items()}
    loops = {("", "copy"): norm_loops.copy(x)}
    for name, layer in layers.items():
        loops[name, "forward"] = norm_loops.forward(layer, x, precision)
        loops[name, "backward"] = norm_loops.backward(layer, x, precision)
    times = in_turn(loops, options.rounds, options.seconds)
    copy = times["", "copy"]
    for name, layer in layers.items():
        row: Row = {
            "shape": place.text, "sites": place.sites, "precision": config.precision.value,
            "norm": name, "rounds": options.rounds,
            "kept_bytes": norm_loops.kept_for_backward(layer, x, precision),
            "input_bytes": x.nbytes,
        }  # fmt: skip
        row |= spread("copy_ms", [1000 * value for value in copy])
        for part in ("forward", "backward"):
            row |= spread(f"{part}_ms", [1000 * value for value in times[name, part]])
            row |= ratios(f"{part}_x_copy", times[name, part], copy)
        yield row


def _draw(rows: list[Row], path: Path) -> None:
    from normexp.bench import pictures

    def bar(row: Row | None, part: str) -> pictures.Bar | None:
        if row is None:
            return None
        keeps = f", keeps {_bytes(row['kept_bytes'])}" if part == "forward" else ""
        factor = row[f"{part}_x_copy"]
        return pictures.Bar(*of_spread(row, f"{part}_x_copy"), f"x {factor:.2g}{keeps}")

    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    across = min(3, len(shapes))
    down = -(-len(shapes) // across)
    most = max(Counter(row["shape"] for row in rows).values())
    made = pictures.figure(1 + 4 * across, 1 + down * (0.8 + 0.36 * most))
    panels = list(made.subplots(down, across, squeeze=False).flat)
    for shape, axes in zip(shapes, panels, strict=False):
        found = {row["norm"]: row for row in rows if row["shape"] == shape}
        series = {
            part: [bar(row, part) for row in found.values()] for part in ("forward", "backward")
        }
        pictures.bars(axes, list(found), series)
        axes.axvline(1, color="black", linewidth=1)
        copy = next(iter(found.values()))["copy_ms"]
        axes.set_title(f"{shape} (a copy: {copy:.2g} ms)", fontsize=10)
    for axes in panels[len(shapes) :]:
        axes.set_visible(False)
    made.supxlabel("time over that of a plain copy (log scale)", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    pictures.save(made, path)


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.3g} kB" if count < 1e6 else f"{count / 1e6:.4g} MB"
