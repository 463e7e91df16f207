"""What norms with running averages use in evaluation: running, precise, the batch's statistics."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from small_runs import run, same_tensors, small, state
from torch import Tensor, nn

from normexp.config.schema import Architecture, ModelConfig, NormConfig
from normexp.data.sources import MADE_UP
from normexp.models.build import build_model
from normexp.models.fuse import fuse
from normexp.norms.factory import build_norm
from normexp.norms.population import evaluating
from normexp.runs.composing import check, compose
from normexp.runs.one_run import train_unless_done
from normexp.system.errors import UserError
from normexp.trainer.evaluation import parts

FUSED = (
    *("bn", "ghost_bn", "batch_renorm", "evonorm_b0", "batch_instance", "frozen_bn", "switchable"),
)
PLAIN = ("syncbn", *FUSED[:-1])
"""All but the one with a variance of its own."""


def batches(count: int, size: int, channels: int = 3, seed: int = 0) -> list[Tensor]:
    """Batches of maps 4x4 whose means and spreads differ from batch to batch."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (1 + index) * torch.randn(size, channels, 4, 4, generator=generator) + index
        for index in range(count)
    ]


def layer(name: str, channels: int = 3) -> Any:
    """A norm that has seen some batches."""
    made = build_norm(channels, 4, NormConfig(name=name, ghost_batch_size=2))
    for images in batches(3, 6, channels, seed=1):
        made(images)
    return made


def averages(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance that a norm uses in evaluation."""
    variance = norm.running_var if hasattr(norm, "running_var") else norm.running_std**2 - norm.eps
    mean = getattr(norm, "running_mean", torch.zeros(len(variance)))
    return mean.numpy().copy(), variance.numpy().copy()


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("count", "size"), [(1, 5), (4, 2), (3, 7)])
def test_precise_statistics_are_those_of_the_population(name: str, count: int, size: int) -> None:
    norm = layer(name)
    samples = batches(count, size)
    with torch.inference_mode(), evaluating(norm, "precise", lambda: samples, nullcontext()):
        mean, variance = averages(norm)
    everything = torch.cat(samples).double().numpy()  # as if it had been one batch
    if name != "evonorm_b0":
        np.testing.assert_allclose(mean, everything.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(variance, everything.var((0, 2, 3)), rtol=1e-5)


def test_precise_statistics_of_switchable_are_of_its_own_variance() -> None:
    norm = layer("switchable")
    samples = batches(3, 4)
    with torch.inference_mode(), evaluating(norm, "precise", lambda: samples, nullcontext()):
        mean, variance = averages(norm)
    everything = torch.cat(samples).double().numpy()
    means, within = everything.mean((2, 3)), everything.var((2, 3), ddof=1)
    np.testing.assert_allclose(mean, means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, within.mean(0) + means.var(0), rtol=1e-5)


def test_layers_after_the_first_see_batches_normalized_by_themselves() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    samples = batches(4, 5)
    with torch.inference_mode(), evaluating(network, "precise", lambda: samples, nullcontext()):
        mean, variance = averages(network[2])
    hidden = []
    for images in samples:
        x = images.double().numpy()
        own_mean, own_var = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
        hidden.append(np.maximum((x - own_mean) / np.sqrt(own_var + 1e-5), 0))
    of_batches = np.stack([x.mean((0, 2, 3)) for x in hidden])
    squares = np.stack([(x**2).mean((0, 2, 3)) for x in hidden])
    np.testing.assert_allclose(mean, of_batches.mean(0), rtol=1e-5)
    # E[μB² + σB²] - μ² of the paper, where μB² + σB² is the mean square of a batch.
    np.testing.assert_allclose(variance, squares.mean(0) - of_batches.mean(0) ** 2, rtol=1e-5)


@pytest.mark.parametrize("name", ["bn", "ghost_bn", "batch_renorm", "frozen_bn"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_statistics_of_the_batch_are_those_of_all_its_images(name: str, size: int) -> None:
    norm = layer(name)
    (images,) = batches(1, size)
    with torch.inference_mode(), evaluating(norm, "batch", list, nullcontext()):
        found = norm(images).numpy()
    x = images.double().numpy()
    mean, variance = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-5)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("kind", ["precise", "batch"])
@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_leaves_networks_trained_together_bit_for_bit(
    name: str, kind: str, fails: bool
) -> None:
    model = ModelConfig("cnn", Architecture.cnn, channels=[4, 4], pool_after=[1])
    members = [build_model(model, NormConfig(name), 8, 10, seed) for seed in (0, 1)]
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fused = fuse(members)
    fused(torch.cat([images, images], 1))
    for module in fused.modules():
        if hasattr(module, "rho"):
            module.rho.data.fill_(1.1)  # as an optimizer's step leaves it
    before = {key: value.clone() for key, value in fused.state_dict().items()}
    bounds = [value.clone() for value in members[0].buffers()]

    def samples() -> Iterator[Tensor]:
        yield images
        if fails:
            raise KeyboardInterrupt

    expected = pytest.raises(KeyboardInterrupt) if fails else nullcontext()
    with expected, torch.inference_mode(), evaluating(members[0], kind, samples, nullcontext()):
        members[0](images)
        if fails:
            raise KeyboardInterrupt
    assert same_tensors(before, dict(fused.state_dict()))
    assert all(map(torch.equal, bounds, members[0].buffers()))
    assert all(module.training for module in members[0].modules())
    # The members still share memory with the network of both.
    members[1](images).sum().backward()
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.sub_(1)
    assert not same_tensors(before, dict(fused.state_dict()))


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 400), size=st.integers(1, 150))
def test_evaluation_batches_leave_no_image_out_and_none_alone(count: int, size: int) -> None:
    found = parts(torch.arange(count), size, "batch")
    assert sorted(torch.cat(list(found)).tolist()) == list(range(count))
    sizes = [len(part) for part in found]
    assert min(sizes) >= min(size, count)
    assert max(sizes) - min(sizes) <= 1


def test_batches_of_sorted_images_are_mixed() -> None:
    labels = torch.arange(10).repeat_interleave(100)
    assert all(len(labels[part].unique()) == 10 for part in parts(torch.arange(1000), 100, "batch"))


# --- In training


EACH = "evaluate.bn_stats=[{}]"


def test_the_first_kind_is_the_runs_and_training_is_the_same(tmp_path: Path) -> None:
    found = {}
    for kinds in ("running", "running,precise,batch", "batch,running,precise"):
        config, directory = small(
            tmp_path / str(len(found)), "norm=bn", "batch_size=2", "epochs=1", EACH.format(kinds),
            *(["evaluate.precise_samples=90"] if "precise" in kinds else []),
        )  # fmt: skip
        found[kinds] = run(config, directory), state(directory)
    (running, weights), (three, same), (batch, also) = found.values()
    assert same_tensors(weights["model"], same["model"])
    assert same_tensors(weights["model"], also["model"])
    assert running["test_acc_by_bn_stats"] == {"running": running["test_acc"]}
    assert list(three["test_acc_by_bn_stats"]) == ["running", "precise", "batch"]
    assert three["test_acc"] == running["test_acc"]
    assert batch["test_acc_by_bn_stats"] == three["test_acc_by_bn_stats"]
    assert batch["test_acc"] == three["test_acc_by_bn_stats"]["batch"]
    assert batch["val_loss"] != running["val_loss"]


def test_several_seeds_end_with_the_mean_of_each_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = small(tmp_path, "norm=bn", "max_steps=3", EACH.format("running,batch"), "seeds=3")
    answers = train_unless_done(OmegaConf.structured(config))
    found = [answer.result["test_acc_by_bn_stats"] for answer in answers]
    percents = {kind: 100 * np.array([one[kind] for one in found]) for kind in ("running", "batch")}
    each = [f"{kind} {x.mean():.2f} ± {x.std(ddof=1):.2f} %" for kind, x in percents.items()]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "by statistics" in line] == [
        f"  test accuracy by statistics: {', '.join(each)}"
    ]
    assert lines[-2] == f"  test accuracy {each[0].removeprefix('running ')} (n = 3)"
    assert lines[-1] == MADE_UP


def test_results_of_before_there_was_a_choice_are_read(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "epochs=1", "max_steps=2")
    whole = run(config, directory)
    older = {key: value for key, value in whole.items() if key != "test_acc_by_bn_stats"}
    (directory.path / "result.json").write_text(json.dumps(older))
    assert directory.answer() == {**older, "test_acc_by_bn_stats": None}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["evaluate.bn_stats=presice"], "one of running, precise, batch"),
        (["evaluate.bn_stats=[]"], "one of running, precise, batch"),
        (["evaluate.bn_stats=[batch,batch]"], "list of different ones"),
        (["evaluate.precise_samples=0", "evaluate.bn_stats=precise"], "greater than 0"),
        (["model=mlp", "evaluate.bn_stats=batch", "evaluate.batch_size=1"], "batch_size=2 or more"),
    ],
)
def test_what_cannot_work_is_refused(given: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        compose(given)


def test_syncbn_over_several_processes_is_refused() -> None:
    config = compose(["norm=syncbn", "evaluate.bn_stats=precise"])
    with pytest.raises(UserError, match=r"normexp\.evaluate afterwards"):
        check(config, ranks=2)


def test_an_unknown_layer_with_averages_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from torch import nn\n"
        "def build(channels, dims, norm):\n"
        "    return nn.InstanceNorm2d(channels, track_running_stats=True)\n"
    )
    (tmp_path / "norm_with_strange_averages.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    config, directory = small(
        tmp_path, "norm.name=norm_with_strange_averages:build", "evaluate.bn_stats=precise"
    )
    with pytest.raises(UserError, match="InstanceNorm2d is not of normexp"):
        run(config, directory)
