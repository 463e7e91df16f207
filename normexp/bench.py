"""python -m normexp.bench: how fast the trainer is, beside a tutorial's loop and a bare one.

All are timed in one process and in turn, so that a machine whose speed drifts is fair to all.
"""

import argparse
import csv
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from normexp.config import Architecture, Config
from normexp.entry import compose, one_line_errors
from normexp.openmp import wait_briefly

LOOPS = ("trainer", "bare", "tutorial")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m normexp.bench", description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--models", nargs="+", default=["simple_cnn", "mlp"])
    parser.add_argument("--norms", nargs="+", default=["bn"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[2, 128])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed, in turn")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each loop in each round")
    parser.add_argument("--csv", type=Path, default=Path("outputs/bench.csv"))
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="as for normexp.train")
    # Settings and lists may stand in any order.
    options = parser.parse_intermixed_args(arguments)
    with one_line_errors():
        rows = list(_measure(options))
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"written to {options.csv}")


def _measure(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each model x norm x batch size, printed as it comes."""
    print(
        f"{'model':<11} {'norm':<5} {'batch':>5}   {'trainer':>9} {'bare':>9} {'tutorial':>9}  "
        f"ms/step   {'images/s':>9}   of bare (min..max)    x tutorial (min..max)"
    )
    cells = itertools.product(options.models, options.norms, options.batch_sizes)
    for model, norm, batch in cells:
        chosen = [f"model={model}", f"norm={norm}", f"batch_size={batch}", "data=synthetic"]
        config = compose([*chosen, "epochs=1000000", *options.settings])
        times = _times(config, options.rounds, options.seconds)
        row = {"model": model, "norm": norm, "batch_size": batch, "rounds": options.rounds}
        for name in LOOPS:
            middle = statistics.median(times[name]) if name in times else None
            row[f"{name}_ms"] = None if middle is None else 1000 * middle
        row["images_per_second"] = 1000 * batch / row["trainer_ms"]
        row |= _ratios("of_bare", times["bare"], times["trainer"])
        if "tutorial" in times:
            row |= _ratios("x_tutorial", times["tutorial"], times["trainer"])
        print(_line(row), flush=True)
        yield row


def _times(config: Config, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds a step of each loop in each round, with the threads and precision of a run."""
    wait_briefly()
    from normexp.data import sources
    from normexp.trainer import process

    device = process.pick_device(config.device)
    dataset = sources.load(config.data)
    with process.settings(config, device):
        loops = {
            "trainer": _trainer_loop(config, dataset, device),
            "bare": _bare_loop(config, dataset, device),
        }
        script = Path(__file__).parents[1] / "scripts" / "tutorial.py"
        if script.exists() and device.type == "cpu":
            loops["tutorial"] = _tutorial_loop(config, dataset, script)
        return _in_turn(loops, rounds, seconds)


def _ratios(name: str, other: list[float], trainer: list[float]) -> dict[str, float]:
    """How many times as fast as another loop the trainer is, round by round."""
    ratios = [theirs / ours for theirs, ours in zip(other, trainer, strict=True)]
    middle = statistics.median(ratios)
    return {name: middle, f"{name}_min": min(ratios), f"{name}_max": max(ratios)}


def _line(row: dict[str, Any]) -> str:
    tutorial = f"{row['tutorial_ms']:>9.3f}" if row["tutorial_ms"] is not None else f"{'-':>9}"
    parts = [f"{row['model']:<11} {row['norm']:<5} {row['batch_size']:>5}   "]
    parts.append(f"{row['trainer_ms']:>9.3f} {row['bare_ms']:>9.3f} {tutorial}           ")
    parts.append(f"{row['images_per_second']:>9,.0f}   ")
    for name in ("of_bare", "x_tutorial"):
        if name in row:
            parts.append(
                f"{row[name]:.2f} ({row[name + '_min']:.2f}..{row[name + '_max']:.2f})    "
            )
    return "".join(parts).rstrip()


def _in_turn(
    loops: dict[str, Callable[[int], None]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds a step of each loop, in each round; the first steps are not counted."""
    counts = {}
    for name, take in loops.items():
        take(3)
        began = time.perf_counter()
        take(5)
        counts[name] = max(1, round(5 * seconds / (time.perf_counter() - began)))
    times: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, take in loops.items():
            began = time.perf_counter()
            take(counts[name])
            times[name].append((time.perf_counter() - began) / counts[name])
    return times


def _trainer_loop(config: Config, dataset: Any, device: Any) -> Callable[[int], None]:
    """The trainer itself: intervals of log.every steps, as in a run."""
    from normexp.trainer.steps import Trainer

    trainer = Trainer(config, [config.seed], dataset, device)
    plan, epoch, position, done = trainer.batches.plan(0), 0, 0, 0

    def take(count: int) -> None:
        nonlocal plan, epoch, position, done
        while count:
            if position == trainer.batches.steps:
                epoch, position = epoch + 1, 0
                plan = trainer.batches.plan(epoch)
            last = min(position + min(config.log.every, count), trainer.batches.steps)
            trainer.interval(plan, position, last, done, True, lambda: False, lambda taken: None)
            count, done, position = count - (last - position), done + last - position, last

    return take


def _bare_loop(config: Config, dataset: Any, device: Any) -> Callable[[int], None]:
    """The least a step can cost: a resident batch, forward, backward, fused Adam."""
    import torch
    from torch.nn import functional as F

    from normexp.models.build import build_model
    from normexp.trainer.process import autocast

    size = dataset.train.images.shape[-1]
    network = build_model(config.model, config.norm, size, len(dataset.classes), 0).to(device)
    images = torch.randn(config.batch_size, 3, size, size, device=device)
    labels = torch.from_numpy(dataset.train.labels[: config.batch_size]).to(device)
    if config.channels_last and config.model.architecture is Architecture.cnn:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    precision = autocast(config.precision, device)

    def take(count: int) -> None:
        for _ in range(count):
            with precision:
                logits = network(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()

    return take


def _tutorial_loop(config: Config, dataset: Any, script: Path) -> Callable[[int], None]:
    from torch.utils.data import DataLoader

    from normexp.models.build import build_model

    spec = importlib.util.spec_from_file_location("tutorial", script)
    assert spec is not None
    assert spec.loader is not None
    tutorial = importlib.util.module_from_spec(spec)
    sys.modules["tutorial"] = tutorial
    spec.loader.exec_module(tutorial)
    size = dataset.train.images.shape[-1]
    network = build_model(config.model, config.norm, size, len(dataset.classes), 0)
    images = tutorial.Images(dataset.train.images, dataset.train.labels)
    loader = DataLoader(images, batch_size=config.batch_size, shuffle=True, drop_last=True)
    steps = tutorial.train(network, loader)

    def take(count: int) -> None:
        for _ in range(count):
            next(steps)

    return take


if __name__ == "__main__":
    main()
