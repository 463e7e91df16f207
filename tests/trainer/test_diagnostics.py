"""What diagnostics measure, against other formulas, and that a run does not notice them."""

import copy
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_runs import write_run, write_sweep
from fused_runs import CPU, after, jobs
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import metrics, run, same_tensors, small, state
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional as F

from normexp.data import sources
from normexp.models.build import build_model
from normexp.report.cells import arrange
from normexp.report.drawing import Picture
from normexp.report.figures import pictures
from normexp.report.read import read_runs
from normexp.report.verdicts import Judge
from normexp.runs import recording
from normexp.runs.directory import RunDirectory
from normexp.runs.seed_run import SeedRun
from normexp.runs.training import run as run_all
from normexp.system.seeds import stream_seed
from normexp.trainer.diagnostics import Diagnostics, geometry, landscape
from normexp.trainer.evaluation import Stopped
from normexp.trainer.steps import Trainer

Rows = dict[tuple[int, str, str], float]


def read(directory: RunDirectory) -> Rows:
    with (directory.path / "diagnostics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {
        (int(row["epoch"]), row["layer"], row["quantity"]): float(row["value"]) for row in rows
    }
    assert len(found) == len(rows)
    return found


def matrices(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(2, 12), columns=st.integers(1, 30), seed=st.integers(0, 1000))
def test_stable_rank_is_that_of_the_singular_values(rows: int, columns: int, seed: int) -> None:
    activations = matrices(rows, columns, seed)
    values = np.linalg.svd(activations.double().numpy(), compute_uv=False)
    assert geometry(activations)[1] == pytest.approx(np.sum(values**2) / values[0] ** 2, rel=1e-4)


def test_cosine_similarity_by_hand() -> None:
    # Cosines of the three pairs: 0, 0.6 and 0.8; lengths do not count, nor does the shape.
    activations = torch.tensor([[2.0, 0.0], [0.0, 5.0], [0.3, 0.4]])
    assert geometry(activations)[0] == pytest.approx((0 + 0.6 + 0.8) / 3, rel=1e-5)
    assert geometry(activations.view(3, 1, 2, 1)) == geometry(activations)
    assert geometry(torch.ones(4, 6)) == pytest.approx((1, 1))
    # A dead image is like no other.
    assert geometry(torch.tensor([[1.0], [1.0], [0.0]]))[0] == pytest.approx(1 / 3)


def test_activations_that_overflow_end_no_run(tmp_path: Path) -> None:
    """A run that is about to diverge ends as it would have without diagnostics."""
    assert all(map(math.isnan, geometry(torch.tensor([[1e30], [1.0]]))))
    asked = ("norm=none", "optimizer=sgd", "optimizer.lr=300", "diagnostics=true", "epochs=3")
    assert run(*small(tmp_path, *asked))["status"] in ("completed", "diverged")


def test_on_a_quadratic_function_beta_is_the_curvature() -> None:
    """L = wᵀAw/2 has the gradient Aw, which changes by ηAg along g = Aw."""
    half = matrices(5, 5, 0).double()
    a, w = half @ half.T, matrices(5, 1, 1).double().flatten()

    def loss(weights: Sequence[Tensor]) -> Tensor:
        both = torch.cat([*weights])
        return both @ a @ both / 2

    steps = [0.01, 0.02, 0.1]
    found = landscape(loss, [w[:2], w[2:]], steps)
    g = a @ w
    assert found.beta == pytest.approx(((a @ g).norm() / g.norm()).item())
    assert found.changes == pytest.approx([eta * (a @ g).norm().item() for eta in steps])
    moved = [w - eta * g for eta in steps]
    assert found.losses == pytest.approx([(v @ a @ v / 2).item() for v in moved])
    # Along an eigenvector it is the eigenvalue.
    values, vectors = torch.linalg.eigh(a)
    assert landscape(loss, [vectors[:, 3]], steps).beta == pytest.approx(values[3].item())


@pytest.mark.parametrize("norm", ["bn", "gn", "none", "batch_renorm", "batch_instance"])
def test_what_is_recorded_follows_from_the_weights(tmp_path: Path, norm: str) -> None:
    """Formulas of the README on the weights before and after an epoch, on the probe."""
    asked = (f"norm={norm}", "epochs=1", "diagnostics=true", "evaluate.checkpoint=last")
    config, directory = small(tmp_path, *asked, "optimizer=sgd", "optimizer.lr=0.1")
    run(config, directory)
    found = read(directory)
    images, labels = Trainer(config, [0], sources.load(config.data), CPU).probe()
    assert len(images) == 30
    first = build_model(config.model, config.norm, 8, 10, stream_seed(0, "weights"))
    last = copy.deepcopy(first)
    last.load_state_dict(state(directory)["model"])
    for epoch, network in enumerate((first, last)):
        inputs = network.conv1(images)
        mean, std = inputs.mean((0, 2, 3)), inputs.std((0, 2, 3), correction=0)
        assert found[epoch, "conv1", "activation_mean"] == pytest.approx(mean.mean().item())
        rms = std.square().mean().sqrt().item()
        assert found[epoch, "conv1", "activation_std"] == pytest.approx(rms, rel=1e-5)
        if epoch == 1:
            before, scale = first.conv1(images).mean((0, 2, 3)), first.conv1(images)
            scale = scale.std((0, 2, 3), correction=0).norm()
            drift = ((mean - before).norm() / scale).item()
            assert found[1, "conv1", "mean_drift"] == pytest.approx(drift, rel=1e-4)
        if norm == "batch_renorm":
            continue  # its bounds are no part of the weights
        evaluated = F.cross_entropy(copy.deepcopy(network).eval()(images), labels).item()
        loss = F.cross_entropy(network.train()(images), labels)
        loss.backward()
        assert found[epoch, "", "loss"] == pytest.approx(loss.item(), rel=1e-4)
        gap = found[epoch, "", "train_eval_gap"]
        assert gap == pytest.approx(loss.item() - evaluated, abs=1e-5)
        assert (abs(gap) > 1e-4) is (norm in ("bn", "batch_instance"))
        total = math.hypot(*(p.grad.norm().item() for p in network.classifier.parameters()))
        assert found[epoch, "classifier", "gradient_norm"] == pytest.approx(total, rel=1e-3)
    old, new = (torch.cat([p.flatten() for p in n.conv2.parameters()]) for n in (first, last))
    ratio = ((new - old).norm() / old.norm()).item()
    assert found[1, "conv2", "update_ratio"] == pytest.approx(ratio, rel=1e-4)
    assert (0, "conv2", "update_ratio") not in found
    assert (1, "relu1", "activation_std") not in found
    assert (1, "conv1", "per_channel") not in found
    assert ((1, "norm1", "per_channel") in found) is (norm != "none")
    assert ((1, "norm1", "activation_std") in found) is (norm != "none")


def progress(directory: RunDirectory) -> dict[str, Any]:
    found: dict[str, Any] = state(directory)["progress"]
    for name in ("seconds", "train_seconds", "epoch_seconds", "cpu_seconds"):
        del found[name]
    for row in found["rows"]:
        del row["seconds"], row["images_per_second"]
    return found


@pytest.mark.parametrize(
    "asked",
    [
        ("norm=bn", "seeds=2", "fuse=2"),
        ("norm=batch_renorm", "model=mlp", "seed=3", "precision=bf16"),
        ("norm=batch_instance", "seeds=2", "fuse=2", "accumulate_steps=2"),
    ],
)
def test_the_run_stays_bit_for_bit_the_same(tmp_path: Path, asked: tuple[str, ...]) -> None:
    found = []
    for name, diagnostics in (("with", "true"), ("without", "false")):
        wanted = jobs(tmp_path / name, *asked, f"diagnostics={diagnostics}")
        run_all(wanted, [])
        found.append([directory for _, directory in wanted])
    for one, other in zip(*found, strict=True):
        assert one.run_id == other.run_id
        assert (one.path / "diagnostics.csv").exists()
        assert not (other.path / "diagnostics.csv").exists()
        for part in ("model", "optimizer", "rng"):
            assert same_tensors(state(one)[part], state(other)[part]), part
        assert progress(one) == progress(other)
        best = [torch.load(each.best, weights_only=True) for each in (one, other)]
        assert same_tensors(best[0]["model"], best[1]["model"])


@pytest.mark.parametrize("stopped_after", [27, 35])
def test_a_stopped_run_goes_on_measuring(tmp_path: Path, stopped_after: int) -> None:
    """In the validation of the first epoch, and within the second."""
    asked = ("norm=bn", "epochs=3", "diagnostics=true")
    config, whole = small(tmp_path / "whole", *asked)
    run(config, whole)
    config, directory = small(tmp_path / "broken", *asked)
    one = SeedRun(config, directory)
    one.directory.create()
    with pytest.raises(Stopped):
        recording.train_and_record([one], sources.load(config.data), CPU, after(stopped_after))
    run(config, directory)
    written = (directory.path / "diagnostics.csv").read_bytes()
    assert written == (whole.path / "diagnostics.csv").read_bytes()
    assert written.startswith(b"epoch,step,layer,quantity,value\n")
    assert {epoch for epoch, _, _ in read(directory)} == {0, 1, 2, 3}


def test_measuring_may_begin_in_a_run_that_goes_on(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "epochs=3")
    one = SeedRun(config, directory)
    one.directory.create()
    with pytest.raises(Stopped):
        recording.train_and_record([one], sources.load(config.data), CPU, after(12))
    config.diagnostics = True
    run(config, directory)
    found = read(directory)
    assert {epoch for epoch, _, _ in found} == {1, 2, 3}
    assert (1, "conv1", "mean_drift") not in found
    assert (2, "conv1", "mean_drift") in found


def test_tensorboard_has_them_by_images_seen(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "diagnostics=true", "log.tensorboard=true")
    run(config, directory)
    events = EventAccumulator(str(directory.path)).Reload()
    rows = read(directory)
    for tag, layer, quantity in (
        ("diagnostics/effective_beta", "", "effective_beta"),
        ("diagnostics/stable_rank/conv2", "conv2", "stable_rank"),
    ):
        scalars = events.Scalars(tag)
        assert [event.step for event in scalars] == [0, 270, 540]
        expected = [rows[epoch, layer, quantity] for epoch in range(3)]
        assert [event.value for event in scalars] == pytest.approx(expected, rel=1e-6)
    assert len(metrics(directory)) == 2


def test_without_validation_training_images_are_the_probe(tmp_path: Path) -> None:
    """And no ghost batch of a single image is left: 64 are 7 times 9, and one."""
    settings = ("model=mlp", "norm=ghost_bn", "norm.ghost_batch_size=9", "batch_size=18")
    config, directory = small(tmp_path, *settings, "diagnostics=true", "data.val_fraction=0")
    assert len(Trainer(config, [0], sources.load(config.data), CPU).probe()[0]) == 63
    assert run(config, directory)["status"] == "completed"
    assert (2, "fc1", "stable_rank") in read(directory)


def test_what_is_no_number_is_left_out() -> None:
    network = nn.Sequential()
    network.add_module("dead", nn.Linear(3, 2))
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    diagnostics = Diagnostics(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]), lr=0.1)
    for _ in range(2):
        found = {one.quantity: one.value for one in diagnostics.measure(network)}
    assert found["activation_std"] == 0
    assert not {"stable_rank", "mean_drift", "update_ratio"} & found.keys()


def test_the_report_shows_them_where_they_are(tmp_path: Path) -> None:
    """Means over seeds, and the layers before norms in their order."""
    write_sweep(tmp_path, {"norm=bn": [0.5, 0.6], "norm=gn": [0.4]})
    assert "diagnostics" not in {picture.name for picture in shown(tmp_path)}
    for seed, beta in ((0, 2.0), (1, 4.0)):
        values = [
            *((0, "conv1", "activation_std", 7.0), (2, "conv1", "activation_std", 3.0)),
            *((2, "norm1", "activation_std", 1.0), (2, "conv2", "activation_std", 5.0)),
            *((2, "layer1.bn1", "activation_std", 1.0), (2, "layer1.bn1", "per_channel", 1.0)),
            *((0, "", "effective_beta", 1.0), (2, "", "effective_beta", beta)),
            *((0, "", "train_eval_gap", 9.0), (2, "", "train_eval_gap", -0.5)),
        ]
        directory = write_run(tmp_path, "norm=bn", seed=seed)
        keys = ("epoch", "layer", "quantity", "value")
        directory.write_diagnostics(
            [dict(zip(keys, row, strict=True)) | {"step": 1} for row in values]
        )
    (picture,) = [one for one in shown(tmp_path) if one.name == "diagnostics"]
    depth, smooth, gap = (one.get_lines() for one in picture.figure.axes)
    assert [line.get_label() for line in smooth] == ["bn"]
    assert smooth[0].get_xydata().tolist() == [[0, 1], [2, 3]]
    assert depth[0].get_xydata().tolist() == [[0, 3], [1, 5]]
    names = [label.get_text() for label in picture.figure.axes[0].get_xticklabels()]
    assert names == ["conv1", "conv2"]
    assert gap[0].get_xydata().tolist() == [[2, -0.5]]


def shown(root: Path) -> list[Picture]:
    judge = Judge(arrange(runs := read_runs(root / "default")), runs)
    return pictures(judge, judge.rows(), pd.DataFrame())
