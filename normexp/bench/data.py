"""The batch pipeline alone, beside a DataLoader over the tutorial's data set."""

from collections.abc import Iterator
from pathlib import Path

from normexp.bench.options import Parser
from normexp.bench.table import Column, Row, keep, with_range
from normexp.bench.timing import Loop, in_turn, of_spread, ratios, spread, spread_names
from normexp.config import Config
from normexp.entry import compose

PIPELINE = "pipeline"
FIELDS = (
    *("batch_size", "source", "workers", "rounds"),
    *spread_names("images_per_second", "pipeline_x"),
)
COLUMNS = (
    Column("batch", 5, lambda row: str(row["batch_size"])),
    Column("source", -22, lambda row: row["source"]),
    Column("images/s (min..max)", 28, lambda row: with_range(row, "images_per_second", ",.0f")),
    Column("ms/batch", 9, lambda row: format(1000 * row["batch_size"] / row["images_per_second"],
                                             ".3f")),
    Column("pipeline is x times as fast (min..max)", 38,
           lambda row: with_range(row, "pipeline_x", ".1f")),
)  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = Parser(
        "data",
        "Time how fast batches come, without a network: the pipeline that the trainer uses, and a "
        "DataLoader over the data set of scripts/tutorial.py (PIL images, torchvision transforms).",
        "bench-data.csv", 7,
    )  # fmt: skip
    parser.add_counts("--batch-sizes", [2, 16, 128], "images in a batch")
    parser.add_counts("--workers", [], "also DataLoaders with so many worker processes")
    parser.add_seconds()
    options = parser.parse(arguments, taken=("batch_size",))
    configs = [
        compose(["data=synthetic", *options.settings, f"batch_size={batch}"])
        for batch in options.batch_sizes
    ]
    rows = _rows(configs, options.workers, options.rounds, options.seconds)
    keep(rows, options.csv, FIELDS, COLUMNS, _draw)


def _rows(configs: list[Config], workers: list[int], rounds: int, seconds: float) -> Iterator[Row]:
    """One row for each batch size and source of batches."""
    from normexp.bench import loops
    from normexp.data import sources
    from normexp.trainer import process

    device = process.pick_device(configs[0].device)
    dataset = sources.load(configs[0].data)
    for config in configs:
        with process.settings(config, device):
            timers: dict[tuple[str, int], Loop] = {
                (PIPELINE, 0): loops.pipeline_loop(config, dataset, device)
            }
            for number_of in (0, *workers):
                loader = loops.loader_loop(config, dataset, device, number_of)
                if loader is not None:
                    timers["DataLoader", number_of] = loader
            times = in_turn(timers, rounds, seconds)
        for (source, number_of), taken in times.items():
            name = f"{source}, workers: {number_of}" if number_of else source
            row: Row = {"batch_size": config.batch_size, "source": name, "workers": number_of}
            row["rounds"] = rounds
            row |= spread("images_per_second", [config.batch_size / value for value in taken])
            if source != PIPELINE:
                row |= ratios("pipeline_x", taken, times[PIPELINE, 0])
            yield row


def _draw(rows: list[Row], path: Path) -> None:
    from normexp.bench import pictures

    found = {}
    for row in rows:
        speed = of_spread(row, "images_per_second")
        factor = f", pipeline x {row['pipeline_x']:.1f}" if "pipeline_x" in row else ""
        note = f"{row['images_per_second']:,.0f}{factor}"
        found[row["batch_size"], row["source"]] = pictures.Bar(*speed, note)
    sizes = list(dict.fromkeys(size for size, _ in found))
    sources = list(dict.fromkeys(source for _, source in found))
    made = pictures.figure(7.5, 1.2 + 0.22 * len(sources) * len(sizes))
    axes = made.subplots()
    pictures.bars(
        axes, [f"batch {size}" for size in sizes],
        {source: [found.get((size, source)) for size in sizes] for source in sources},
    )  # fmt: skip
    axes.set_xlabel("images a second (log scale)")
    made.legend(loc="outside upper center", ncols=3, frameon=False)
    pictures.save(made, path)
