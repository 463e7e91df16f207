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
- seeds: the time of a step a seed, of S fused seeds at batch 2, and the peak of memory.
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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from normexp.bench import growth
from normexp.bench.cells import cells
from normexp.bench.engine import Rounds, Row, in_turn, keep, spread
from normexp.bench.steps import refuse_sync_bn, trainer_loop, tutorial_loop
from normexp.config.checks import seeds_of
from normexp.config.command_line import OneLineParser
from normexp.config.one_line import one_line_errors
from normexp.config.schema import Config, Precision
from normexp.data import sources
from normexp.data.sources import Dataset
from normexp.norms.catalogue import BUILT_IN
from normexp.norms.rules import unknown_norm
from normexp.runs import recording
from normexp.runs.composing import compose
from normexp.runs.one_run import jobs_of
from normexp.runs.seed_run import SeedRun
from normexp.runs.training import run
from normexp.system.errors import RunFailed, UserError
from normexp.trainer import process
from normexp.trainer.evaluation import Stopped
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

COLUMNS = {
    "part": "part", "model": "model", "norm": "norm", "batch_size": "batch", "seeds": "seeds",
    "what": "what", "value": "median", "value_min": "min", "value_max": "max", "n": "n",
    "verdict": "",
}  # fmt: skip


def agree(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    for model, norm in itertools.product(options.models, options.norms):
        own = [f"model={model}", f"norm={norm}", "batch_size=8"]
        own += ["norm.ghost_batch_size=4"] if norm == "ghost_bn" else []
        try:
            config = compose([*own, *options.settings])
            refuse_sync_bn(config.norm, device)
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
            recording.train_and_record(runs, dataset, device, lambda: next(asked) >= STOPPED_AFTER)
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
                "eager": trainer_loop(config, dataset, device),
                "compiled": trainer_loop(replace(config, compile=True), dataset, device),
                "tutorial": tutorial_loop(config, dataset, device),
            }
            takes = {name: take for name, take in made.items() if take}
            times = in_turn(device, options.rounds, options.seconds, takes)
        for name, taken in times.items():
            row = _row("steps", config, f"{name}, ms", 1000 * taken)
            speed = spread("x", times["eager"] / taken)["x"]
            yield row | {"verdict": f"{speed:.2f} x the speed of eager"}


def seeds(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    timer = partial(in_turn, device, options.rounds, options.seconds)
    counts = ",".join(map(str, options.seeds))
    for model in options.models:
        own = [f"model={model}", "batch_size=2", "epochs=1000000", f"seeds={counts}"]
        asked = cells("seeds", own, options.settings)
        with process.settings(asked[0].config, device):
            for cell, row in zip(asked, growth.rows(asked, device, timer), strict=True):
                peak = f"peak {row['peak_memory_mb']:,.0f} MiB" if row["peak_memory_mb"] > 0 else ""
                found = {f"value{end}": row[f"ms{end}"] for end in ("", "_min", "_max")}
                found |= {"n": options.rounds, "verdict": peak}
                yield _row("seeds", cell.config, "ms a seed", []) | found


def study(options: Namespace, dataset: Dataset, device: torch.device) -> Iterator[Row]:
    own = TINY_STUDY if options.quick else STUDY
    # force=true: what lay there would not be timed.
    chosen = [*own, *options.settings, "name=study_on_a_gpu", "force=true"]
    command = [sys.executable, "-m", "normexp.train", "-m", "experiment=study", *chosen]
    began = time.perf_counter()
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise RunFailed(f"{' '.join(command)} failed")
    row: Row = {"part": "study", "model": "simple_cnn", "norm": "all", "batch_size": "all"}
    row |= {"seeds": "all", "what": "whole, s", "n": 1, "verdict": " ".join(own)}
    yield row | spread("value", np.array([time.perf_counter() - began]))


def _row(part: str, config: Config, what: str, values: Sequence[float] | Rounds) -> Row:
    row: Row = {"part": part, "model": config.model.name, "norm": config.norm.name}
    row |= {"batch_size": config.batch_size, "seeds": len(seeds_of(config)), "what": what}
    found = spread("value", np.array(values)) if len(values) else {}
    return row | {"n": len(values), "verdict": "", **found}


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
    parser = OneLineParser(prog="python scripts/on_a_gpu.py", description=__doc__.splitlines()[0])
    parts = list(PARTS)
    parser.add_argument(
        "--parts", nargs="+", choices=parts, default=parts[:-1], metavar="PART",
        help=f"what to do, of {', '.join(parts)}",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny, whatever that measures")
    for name, of, default in (
        ("--models", str, ["simple_cnn"] if quick else MODELS),
        ("--norms", str, [name for name in BUILT_IN if name != "frozen_bn"]),
        ("--batch-sizes", int, [2] if quick else [2, 8, 32, 128, 512]),
        ("--seeds", int, [1, 2] if quick else [1, 2, 4, 8, 16, 32]),
    ):
        shown = f"default: {' '.join(map(str, default))}"
        parser.add_argument(name, nargs="+", type=of, default=default, metavar="X", help=shown)
    parser.add_argument("--rounds", type=int, default=1 if quick else 5, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each in each round")
    parser.add_argument("--csv", type=Path, default=Path("outputs/on_a_gpu.csv"), metavar="PATH")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="as for normexp.train")
    # A list such as --norms would take the settings after it for its own.
    given = [text for text in arguments if "=" in text and not text.startswith("-")]
    options = parser.parse_args([text for text in arguments if text not in given])
    options.settings += given
    options.seconds = 0.01 if quick else options.seconds
    own = ["data=synthetic", *(TINY if quick else ()), *options.settings]
    options.settings = [*own, f"device={options.device}", "log.progress=false"]
    for norm in set(options.norms).difference(BUILT_IN):
        raise unknown_norm(norm)
    for model in options.models:
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

    keep(rows(), COLUMNS, options.csv)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
