"""Several batches a step: what is normalized is one thing, what the optimizer steps on another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fused_runs import CPU, after, alone, assert_same_run, together
from small_runs import metrics, run, same_tensors, small, state

from normexp.data import sources
from normexp.runs import recording
from normexp.runs.composing import compose
from normexp.runs.seed_run import SeedRun
from normexp.system.errors import UserError
from normexp.trainer.evaluation import Stopped
from normexp.trainer.steps import Trainer

# Plain SGD, because Adam makes whole steps of rounding errors.
SGD = ("optimizer=sgd", "optimizer.lr=0.05")
IN_PARTS = ("batch_size=4", "accumulate_steps=3")


def weights(output: Path, *settings: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    config, directory = small(output, *SGD, *settings)
    result = run(config, directory)
    return state(directory)["model"], result


@pytest.mark.parametrize(
    "settings",
    [
        ("norm=none", "grad_clip=0.1"),
        ("norm=ln", "optimizer.weight_decay=0.1", "label_smoothing=0.1"),
        ("norm=gn", "model=mlp", "optimizer.lr_rule=linear", "scheduler=cosine"),
    ],
)
def test_without_batch_statistics_it_is_the_larger_batch(
    tmp_path: Path, settings: tuple[str, ...]
) -> None:
    parts, found = weights(tmp_path, *settings, *IN_PARTS)
    whole, expected = weights(tmp_path, *settings, "batch_size=12")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)
    for key in ("train_loss", "val_loss", "test_loss"):
        assert found[key] == pytest.approx(expected[key], rel=1e-3)
    for key in ("steps", "epochs", "samples_seen", "lr"):
        assert found[key] == expected[key]
    assert found["run_id"] != expected["run_id"]


def test_batch_norm_sees_the_small_batch(tmp_path: Path) -> None:
    """As many updates of the running averages as batches, and another network in the end."""
    parts, _ = weights(tmp_path, "norm=bn", *IN_PARTS)
    whole, _ = weights(tmp_path, "norm=bn", "batch_size=12")
    assert parts["norm1.num_batches_tracked"] == 3 * whole["norm1.num_batches_tracked"] == 132
    assert not torch.allclose(parts["conv2.weight"], whole["conv2.weight"], atol=1e-3)


def test_the_gradient_of_a_step_is_the_mean_of_its_batches(tmp_path: Path) -> None:
    """One step of SGD with BN, by hand."""
    settings = ("norm=bn", "optimizer.momentum=0", *IN_PARTS, "max_steps=1", *SGD)
    config, directory = small(tmp_path, *settings)
    trainer = Trainer(config, [0], sources.load(config.data), CPU)
    images, labels = next(trainer.batches.chunks(trainer.batches.plan(0), 0, 1))
    network = trainer.network
    for batch, target in zip(images.split(4), labels.split(4), strict=True):
        torch.nn.functional.cross_entropy(network(batch), target).backward()
    expected = {}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        expected[name] = parameter.detach() - 0.05 * parameter.grad / 3
    run(config, directory)
    for name, value in expected.items():
        torch.testing.assert_close(state(directory)["model"][name], value, rtol=1e-4, atol=1e-6)


def test_what_is_counted(tmp_path: Path) -> None:
    """270 images are 22 steps of 12; the last 6 are dropped."""
    settings = ("norm=bn", *IN_PARTS, "optimizer.lr_rule=linear", "optimizer.reference_batch=6")
    config, directory = small(tmp_path, *settings)
    result = run(config, directory)
    rows = metrics(directory)
    assert [row["step"] for row in rows] == ["22", "44"]
    assert [row["samples_seen"] for row in rows] == ["264", "528"]
    assert (result["steps"], result["samples_seen"], result["batch_size"]) == (44, 528, 4)
    assert result["lr"] == pytest.approx(2 * config.optimizer.lr)
    assert 0.1 < float(rows[1]["train_acc"]) <= 1


def test_max_steps_are_steps_of_the_optimizer(tmp_path: Path) -> None:
    config, directory = small(tmp_path, *IN_PARTS, "max_steps=7")
    result = run(config, directory)
    assert (result["steps"], result["samples_seen"]) == (7, 84)


def test_each_fused_seed_is_the_run_it_is_alone(tmp_path: Path) -> None:
    asked = ("norm=bn", "grad_clip=0.05", *IN_PARTS, *SGD)
    found = together(*asked, "seeds=[3,0]", "fuse=2", output=tmp_path / "together")
    for seed, (directory, _) in zip((3, 0), found, strict=True):
        assert_same_run(directory, alone(*asked, f"seed={seed}", output=tmp_path / "alone")[0])


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = ("norm=bn", *IN_PARTS, "precision=bf16")
    config, whole = small(tmp_path / "whole", *settings)
    run(config, whole)
    config, directory = small(tmp_path / "broken", *settings)
    one = SeedRun(config, directory)
    one.directory.create()
    with pytest.raises(Stopped):
        recording.train_and_record([one], sources.load(config.data), CPU, after(12))
    run(config, directory)
    for part in ("model", "optimizer"):
        assert same_tensors(state(directory)[part], state(whole)[part])


def test_more_than_all_images_in_a_step_are_refused(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "batch_size=100", "accumulate_steps=3")
    with pytest.raises(UserError, match="batch_size=100 accumulate_steps=3: there are 270") as told:
        run(config, directory)
    assert "270 or less" in str(told.value)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "null"])
def test_only_whole_numbers_of_batches_are_taken(value: str) -> None:
    with pytest.raises(Exception, match="accumulate_steps"):
        compose([f"accumulate_steps={value}"])
