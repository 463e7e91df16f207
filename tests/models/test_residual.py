"""ResNet-18 and ResNet-20: what torchvision and the paper say they are."""

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from normexp.models.build import build_model
from normexp.models.fuse import fuse
from normexp.models.residual import PaddedShortcut
from normexp.norms.weight_standardization import StandardizedConv2d
from normexp.runs.composing import compose
from normexp.system.errors import UserError

IMAGENET = ("model=resnet18", "model.stem=imagenet")


def build(*overrides: str, seed: int = 0) -> Any:
    config = compose([*overrides])
    return build_model(config.model, config.norm, 32, 10, seed)


def test_resnet18_is_torchvisions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = torchvision.models.resnet18(num_classes=10)
    found = build(*IMAGENET, seed=5)
    assert type(found) is type(expected)
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(found(images), expected(images))


def test_the_cifar_stem_keeps_the_size_of_the_images() -> None:
    network = build("model=resnet18", "norm=gn")
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    assert stem(torch.randn(2, 3, 32, 32)).shape == (2, 64, 32, 32)


def test_resnet20_computed_from_its_weights() -> None:
    """By functions alone, as section 4.2 of the paper describes it."""
    network = build("model=resnet20", "norm=none")
    weights = network.state_dict()
    images = torch.randn(2, 3, 17, 17)
    x = F.conv2d(images, weights["conv1.weight"], padding=1).relu()
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in (1, 2, 3):
            stride = 2 if (stage > 1 and block == 1) else 1
            prefix = f"block{stage}_{block}"
            y = F.conv2d(x, weights[f"{prefix}.conv1.weight"], stride=stride, padding=1).relu()
            y = F.conv2d(y, weights[f"{prefix}.conv2.weight"], padding=1)
            y[:, : x.shape[1]] += x[:, :, ::stride, ::stride]
            x = y.relu()
        assert x.shape[1] == width
    logits = x.mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(network(images), logits)


def test_a_shortcut_pads_the_channels_of_each_seed() -> None:
    images = torch.randn(2, 3, 4, 5, 5)
    alone = [PaddedShortcut(2)(images[:, seed]) for seed in range(3)]
    assert alone[0].shape == (2, 6, 3, 3)
    assert torch.equal(alone[0][:, :4], images[:, 0, :, ::2, ::2])
    assert not alone[0][:, 4:].any()
    together = fuse([PaddedShortcut(2) for _ in range(3)])(images.flatten(1, 2))
    assert torch.equal(together, torch.cat(alone, 1))


@pytest.mark.parametrize("model", ["resnet18", "resnet20"])
def test_weight_standardization_is_of_all_convolutions(model: str) -> None:
    plain = build(f"model={model}", "norm=gn")
    changed = build(f"model={model}", "norm=gn", "norm.weight_standardization=true")
    kinds = {type(layer) for layer in changed.modules() if isinstance(layer, nn.Conv2d)}
    assert kinds == {StandardizedConv2d}
    assert all(
        torch.equal(value, changed.state_dict()[name]) for name, value in plain.state_dict().items()
    )
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(plain(images), changed(images))


@pytest.mark.parametrize("model", ["resnet18", "resnet20"])
@pytest.mark.parametrize("norm", ["none", "bn", "gn", "dyt", "rms"])
def test_norms_without_scale_and_shift_can_be_trained(model: str, norm: str) -> None:
    network = build(f"model={model}", f"norm={norm}", "norm.affine=false")
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("model", ["resnet18", "resnet20"])
@pytest.mark.parametrize("norm", ["frn", "evonorm_s0", "evonorm_b0"])
def test_a_norm_with_an_activation_is_refused_before_an_addition(model: str, norm: str) -> None:
    with pytest.raises(UserError, match=rf"norm={norm} at \S+2: contains the .*addition; use"):
        compose([f"model={model}", f"norm={norm}"])


def test_so_is_one_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "norm_that_activates.py").write_text(
        "from torch import nn\n\n\nclass Bounded(nn.ReLU6):\n    contains_activation = True\n\n\n"
        "def build(channels, dims, norm):\n    return Bounded()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="norm_that_activates:build: contains the activation"):
        build("model=resnet20", "norm.name=norm_that_activates:build")


def test_groups_may_differ_by_layer() -> None:
    numbers = [1, 2, 4, 8, 16] * 3 + [1, 2, 4, 8, 16]
    network = build("model=resnet18", "norm=gn", f"norm.num_groups={numbers}")
    found = [layer.num_groups for layer in network.modules() if isinstance(layer, nn.GroupNorm)]
    assert found == numbers


# --- Pretrained weights


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_pretrained_weights_are_all_but_the_classifiers(torch_home: Path, norm: str) -> None:
    published = torchvision.models.resnet18().state_dict()
    published["layer4.1.bn2.running_var"].uniform_()
    torch.save(published, torch_home / "resnet18-f37072fd.pth")
    found = build(*IMAGENET, f"norm={norm}", "model.pretrained=true").state_dict()
    assert "layer4.1.bn2.running_var" in found
    fresh = build(*IMAGENET).state_dict()
    for name, value in found.items():
        expected: Tensor = (fresh if name.startswith("fc.") else published)[name]
        assert torch.equal(value, expected), name


def test_weights_that_cannot_be_had_are_one_line(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(UserError, match=r"pretrained=true: http.*no route.*; put") as caught:
        build(*IMAGENET, "model.pretrained=true")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["model.stem=cifar"], "model.stem=imagenet"),
        (["norm=gn"], "norm=gn: the weights were trained with BatchNorm"),
        (["norm=none"], "norm=none"),
        (["norm.affine=false"], "norm.affine=false"),
        (["norm.weight_standardization=true"], "weight_standardization=true"),
    ],
)
def test_weights_that_do_not_fit_are_refused(settings: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        compose([*IMAGENET, "model.pretrained=true", *settings])
