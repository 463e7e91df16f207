"""On one GPU: what agrees with the CPU, what repeats itself, and what steps cost.

    python scripts/on_a_gpu.py                           all but the study
    python scripts/on_a_gpu.py --parts steps --models mlp --batch-sizes 2 precision=bf16
    python scripts/on_a_gpu.py --parts study             the whole comparison, timed; long
    python scripts/on_a_gpu.py --device cpu --quick      only whether this script works

It builds nothing but what compile=true does. The parts:

- agree: for every norm and model, loss and gradients of a first step beside those of the CPU, which
  computes them in another memory layout; and some steps in bf16, whose losses have to be finite.
- repeat: with deterministic=true, one seed and four fused, a run twice, and once stopped and
  resumed: weights and optimizer have to be the same bit for bit.
- steps: the time of the trainer's, of the same with compile=true, and of scripts/tutorial.py's.
- seeds: the time of a step of S fused seeds at batch 2, and the peak of memory.
- study: experiment=study with eight seeds and ten epochs.

It prints a table, writes it as CSV, and exits with 1 if something does not agree or repeat itself.
"""

import contextlib
import io
import itertools
import math
import os
import platform
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import torch

from normexp.bench import growth, loops
from normexp.bench.options import Parser, norm_setting
from normexp.bench.table import Column, Row, keep, with_range
from normexp.bench.timing import in_turn, ratios, spread, spread_names, timed
from normexp.config import Config, Precision
from normexp.config_checks import seeds_of
from normexp.data import sources
from normexp.data.sources import Dataset
from normexp.entry import compose, one_line_errors
from normexp.errors import RunFailed, UserError
from normexp.norms.rules import BUILT_IN
from normexp.one_run import jobs_of
from normexp.trainer import loop, process
from normexp.trainer.evaluation import Stopped
from normexp.trainer.run import run
from normexp.trainer.seed_run import SeedRun
from normexp.trainer.steps import Trainer

MODELS = ["simple_cnn", "deep_cnn", "mlp", "resnet20"]
TINY = ("data.train_images=200", "data.test_images=40", "data.image_size=16", "threads=1")
# As many images as CIFAR-10 has.
STUDY = ("data.train_images=50000", "data.test_images=10000", "epochs=10", "seeds=8")
TINY_STUDY = (*TINY, "epochs=1", "seeds=2", "norm=bn,gn", "batch_size=16,32")

# How far the gradient may be from the CPU's, over its length, at the median of some seeds: sums in
# another order differ by 1e-6, but by 2e-3 in resnet20 where a ReLU then decides otherwise; there
# convolutions in TF32 differ by 1e-2 to 5e-2.
AGREES, AGREES_IN_RESNETS, SEEDS = 2e-4, 5e-3, 5
STEPS_IN_BF16, STEPS_REPEATED, STOPPED_AFTER = 20, 40, 17
WRONG = "NOT "  # what a verdict begins with that makes the script fail

FIELDS = (
    *("part", "model", "norm", "batch_size", "seeds", "what", "n"),
    *(*spread_names("value"), "verdict", "machine"),
)
COLUMNS = (
    Column("part", -6, lambda row: row["part"]),
    Column("model", -10, lambda row: row["model"]),
    Column("norm", -14, lambda row: row["norm"]),
    Column("batch", 5, lambda row: str(row["batch_size"])),
    Column("seeds", 5, lambda row: str(row["seeds"])),
    Column("what", -12, lambda row: row["what"]),
    Column("median (min..max)", 30, lambda row: with_range(row, "value", ".3g")),
    Column("n", 3, lambda row: str(row["n"])),
    Column("", -20, lambda row: row["verdict"]),
)


def agree(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    for model, norm in itertools.product(options.models, options.norms):
        own = [f"model={model}", f"norm={norm}", "batch_size=8"]
        own += ["norm.ghost_batch_size=4"] if norm == "ghost_bn" else []
        try:
            config = compose([*own, *options.settings])
            loops.refuse_sync_bn(config.norm, device)
        except UserError:
            continue  # it cannot work in this network, or on this device
        alike = [replace(config, seed=seed) for seed in range(1 if options.quick else SEEDS)]
        found = [_difference(each, dataset, device) for each in alike]
        row = _row("agree", config, "difference", found)
        with process.settings(config, device):
            trainer = Trainer(replace(config, precision=Precision.bf16), [0], dataset, device)
            last = min(STEPS_IN_BF16, trainer.batches.steps)
            part = trainer.interval(trainer.batches.plan(0), 0, last, 0, False, bool, id)
        row["verdict"] = "as on the CPU, trains in bf16"
        limit = AGREES_IN_RESNETS if model.startswith("resnet") else AGREES
        if not row["value"] < limit:
            row["verdict"] = f"{WRONG}as on the CPU: more than {limit:g}"
        elif not all(map(math.isfinite, part.losses[0])):
            row["verdict"] = f"{WRONG}finite in bf16"
        yield row


def _difference(config: Config, dataset: Dataset, device: torch.device) -> float:
    """Of loss and gradients of a first step from those of the CPU: the larger, relative."""
    # torch has syncbn on GPUs only; of one process it is bn.
    norm = replace(config.norm, name="bn") if config.norm.name == "syncbn" else config.norm
    found = []
    for where in (device, torch.device("cpu")):
        with process.settings(config, where):
            trainer = Trainer(config, [config.seed], dataset, where)
            images, labels = next(trainer.batches.chunks(trainer.batches.plan(0), 0, 1))
            loss, _, _ = trainer.step(images, labels)
            gradients = [p.grad.reshape(-1) for p in trainer.parameters if p.grad is not None]
            found.append((loss.reshape(1).cpu().double(), torch.cat(gradients).cpu().double()))
        config = replace(config, channels_last=False, norm=norm)
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True))


def repeat(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    for model, count in itertools.product(options.models, (1, 4)):
        config = compose([
            f"model={model}", "batch_size=8", f"seeds={count}", f"fuse={count}",
            "deterministic=true", "epochs=null", f"max_steps={STEPS_REPEATED}",
            "log.every=10", "log.tensorboard=false", *options.settings,
        ])  # fmt: skip
        row = _row("repeat", config, "bits", [])
        try:
            with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                once, again, resumed = (
                    _trained(replace(config, output=f"{folder}/{name}"), dataset, device, stop)
                    for name, stop in (("once", False), ("again", False), ("resumed", True))
                )
            row["verdict"] = "twice and resumed the same"
            if not _same(once, again):
                row["verdict"] = f"{WRONG}the same the second time"
            elif not _same(once, resumed):
                row["verdict"] = f"{WRONG}the same when resumed"
        except RunFailed as error:
            row["verdict"] = f"{WRONG}possible: {error}"
        yield row


def _trained(config: Config, dataset: Dataset, device: torch.device, stop: bool) -> list[Any]:
    """Weights and optimizer of each seed at the end of its run, which is stopped once or not."""
    jobs = jobs_of(config)
    if stop:
        for _, directory in jobs:
            directory.create()
        asked = itertools.count()
        with process.settings(config, device), contextlib.suppress(Stopped):
            runs = [SeedRun(*job) for job in jobs]
            loop.train(runs, dataset, device, lambda: next(asked) >= STOPPED_AFTER)
    run(jobs, [])
    states = [torch.load(directory.last, device, weights_only=True) for _, directory in jobs]
    return [[state["model"], state["optimizer"]["state"]] for state in states]


def _same(one: Any, other: Any) -> bool:
    """Whether nests hold the same tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return len(one) == len(other) and all(map(_same, one, other))


def steps(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    for model, batch in itertools.product(options.models, options.batch_sizes):
        own = [f"model={model}", f"batch_size={batch}", "epochs=1000000"]
        config = compose([*own, *options.settings])
        with process.settings(config, device):
            made = {
                "eager": loops.trainer_loop(config, dataset, device),
                "compiled": loops.trainer_loop(replace(config, compile=True), dataset, device),
                "tutorial": loops.tutorial_loop(config, dataset, device),
            }
            timers = {name: timed(take, device) for name, take in made.items() if take}
            times = in_turn(timers, options.rounds, options.seconds)
        for name, taken in times.items():
            row = _row("steps", config, f"{name}, ms", [1000 * each for each in taken])
            row["verdict"] = f"{ratios('x', times['eager'], taken)['x']:.2f} x the speed of eager"
            yield row


def seeds(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    for model in options.models:
        own = [f"model={model}", "batch_size=2", "epochs=1000000", *options.settings]
        points = list(growth.by_seeds(own, options.seeds, options))
        for point in points:
            config = compose([*own, f"seeds={point.value}"])
            row = _row("seeds", config, "eager, ms", [1000 * each for each in point.seconds])
            slower = ratios("x", point.seconds, points[0].seconds)["x"]
            row["verdict"] = f"{slower:.2f} x the time of {points[0].value}"
            row["verdict"] += f", peak {point.memory_mb:,.0f} MiB" if point.memory_mb else ""
            yield row


def study(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    own = TINY_STUDY if options.quick else STUDY
    # force=true: what lay there would not be timed.
    chosen = [*own, *options.settings, "name=study_on_a_gpu", "force=true"]
    command = [sys.executable, "-m", "normexp.train", "-m", "experiment=study", *chosen]
    began = time.perf_counter()
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise RunFailed(f"{' '.join(command)} failed")
    row = {"part": "study", "model": "simple_cnn", "norm": "all", "batch_size": "all"}
    row |= {"seeds": "all", "what": "whole, s", "n": 1, "verdict": " ".join(own)}
    yield row | spread("value", [time.perf_counter() - began])


def _row(part: str, config: Config, what: str, values: list[float]) -> Row:
    row: Row = {"part": part, "model": config.model.name, "norm": config.norm.name}
    row |= {"batch_size": config.batch_size, "seeds": len(seeds_of(config)), "what": what}
    return row | {"n": len(values), "verdict": "", **(spread("value", values) if values else {})}


PARTS = {"agree": agree, "repeat": repeat, "steps": steps, "seeds": seeds, "study": study}


def machine(device: torch.device) -> str:
    """What all was measured on."""
    said = f"torch {torch.__version__}, Python {platform.python_version()}"
    if device.type != "cuda":
        return f"CPU, {torch.get_num_threads()} threads, {said}"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True).stdout.split()[0]
    except (OSError, IndexError):
        driver = "unknown"
    cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name(device)}, driver {driver}, {cuda}, {said}"


def parsed(arguments: list[str]) -> Namespace:
    quick = "--quick" in arguments
    parser = Parser("", __doc__.splitlines()[0], "on_a_gpu.csv", 1 if quick else 5)
    parser.prog = "python scripts/on_a_gpu.py"
    parts = list(PARTS)
    parser.add_argument(
        "--parts", nargs="+", choices=parts, default=parts[:-1], metavar="PART",
        help=f"what to do, of {', '.join(parts)}",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny, whatever that measures")
    parser.add_list("--models", ["simple_cnn"] if quick else MODELS, "networks")
    parser.add_list("--norms", list(BUILT_IN), "norms that are to agree; the rest is of bn")
    parser.add_counts("--batch-sizes", [2] if quick else [2, 8, 32, 128, 512], "of the steps")
    parser.add_counts("--seeds", [1, 2] if quick else [1, 2, 4, 8, 16, 32], "that are fused")
    parser.add_seconds()
    options = parser.parse(arguments, taken=("model", "norm", "batch_size"))
    options.seconds = 0.01 if quick else options.seconds
    own = ["data=synthetic", *(TINY if quick else ()), *options.settings]
    options.settings = [*own, f"device={options.device}", "log.progress=false"]
    for norm, model in itertools.product(options.norms, options.models):
        norm_setting(norm)
        compose([f"model={model}", *options.settings])
    return options


def main(arguments: list[str]) -> None:
    options = parsed(arguments)
    # cuBLAS reads it when it is first used, which is before the part that needs it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    config = compose(options.settings)
    device = process.pick_device(config.device)
    about = machine(device)
    print(about)
    dataset = sources.load(config.data)
    wrong = []

    def rows() -> Iterator[Row]:
        for part in options.parts:
            for row in PARTS[part](options, dataset, device):
                wrong.extend([row] if row["verdict"].startswith(WRONG) else [])
                yield row | {"machine": about}

    keep(rows(), options.csv, FIELDS, COLUMNS, None)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
