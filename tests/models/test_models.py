"""The networks: their layers, parameters, weights by seed, and where their norms stand."""

import itertools
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normexp.config.schema import Architecture, Config, ModelConfig, NormConfig, Stem
from normexp.models.build import build_model, count_parameters
from normexp.models.plan import norm_sites
from normexp.norms.group_norm import GroupNorm
from normexp.norms.rules import Site
from normexp.norms.weight_standardization import StandardizedConv2d
from normexp.runs.composing import compose
from normexp.system.errors import UserError

NORMS = {"simple_cnn": ["none", "bn", "ln", "in", "gn"], "mlp": ["none", "bn", "ln", "gn"]}
NORMS["deep_cnn"] = NORMS["resnet20"] = NORMS["resnet18"] = NORMS["simple_cnn"]

conv, norm, relu, pool = nn.Conv2d, GroupNorm, nn.ReLU, nn.MaxPool2d
flatten, linear = nn.Flatten, nn.Linear


@cache
def composed(*overrides: str) -> Config:
    return compose(list(overrides))


def build(*overrides: str, seed: int = 0, image_size: int = 32, classes: int = 10) -> nn.Module:
    config = composed(*overrides)
    return build_model(config.model, config.norm, image_size, classes, seed)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and biases of convolutions and linear layers, by name."""
    return {
        f"{name}.{key}": value.detach()
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
        for key, value in layer.named_parameters()
    }


STACKS = {
    "simple_cnn": [conv, norm, relu, pool] * 2 + [flatten, linear],
    "deep_cnn": [conv, norm, relu, pool] * 3 + [flatten, linear, relu, linear],
    "mlp": [flatten] + [linear, norm, relu] * 2 + [linear],
}


@pytest.mark.parametrize("model", STACKS)
def test_layers_stand_in_the_order_described(model: str) -> None:
    assert [type(layer) for layer in build(f"model={model}", "norm=gn").children()] == STACKS[model]


LAYERS = [*STACKS, "resnet20", "resnet18"]

# Inputs times outputs times the 3x3 window, and one bias an output.
SIMPLE = (3 * 9 + 1) * 16 + (16 * 9 + 1) * 16 + (16 * 8 * 8 + 1) * 10
DEEP_CONVOLUTIONS = (3 * 9 + 1) * 64 + (64 * 9 + 1) * 128 + (128 * 9 + 1) * 256
DEEP = DEEP_CONVOLUTIONS + (256 * 4 * 4 + 1) * 512 + (512 + 1) * 10
MLP = (3072 + 1) * 64 + (64 + 1) * 32 + (32 + 1) * 10
TUTORIAL = (3 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (64 * 16 * 16 + 1) * 128 + (128 + 1) * 10
RESNET20 = 9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2) + (64 + 1) * 10
# But for the stem; the second term is of the 1x1 convolutions in shortcuts.
RESNET18 = 9 * (4 * 64**2 + sum(width * width // 2 + 3 * width**2 for width in (128, 256, 512)))
RESNET18 += sum(width * width // 2 for width in (128, 256, 512)) + (512 + 1) * 10
RESNET18_NORMED = 5 * 64 + 5 * (128 + 256 + 512)
TUTORIAL_KEYS = ["model.channels=[32,64]", "model.pool_after=[2]", "model.hidden=[128]"]


@pytest.mark.parametrize(
    ("overrides", "plain", "normed_channels"),
    [
        (["model=simple_cnn"], SIMPLE, 16 + 16),
        (["model=deep_cnn"], DEEP, 64 + 128 + 256),
        (["model=mlp"], MLP, 64 + 32),
        (["model=simple_cnn", *TUTORIAL_KEYS], TUTORIAL, 32 + 64),
        (["model=resnet20"], RESNET20, 7 * 16 + 6 * 32 + 6 * 64),
        (["model=resnet18", "model.stem=imagenet"], RESNET18 + 3 * 49 * 64, RESNET18_NORMED),
        (["model=resnet18"], RESNET18 + 3 * 9 * 64, RESNET18_NORMED),
    ],
)
@pytest.mark.parametrize("name", ["none", "bn", "ln", "gn"])
def test_parameters_counted_by_hand(
    overrides: list[str], plain: int, normed_channels: int, name: str
) -> None:
    affine = 0 if name == "none" else 2 * normed_channels
    assert count_parameters(build(*overrides, f"norm={name}")) == plain + affine


def test_a_32_64_network_with_one_pool_by_configuration() -> None:
    network = build("model=simple_cnn", *TUTORIAL_KEYS, "norm=gn")
    kinds = [conv, norm, relu, conv, norm, relu, pool, flatten, linear, relu, linear]
    assert [type(layer) for layer in network.children()] == kinds
    shapes = [
        tuple(layer.weight.shape)
        for layer in network.children()
        if isinstance(layer, (conv, linear))
    ]
    assert shapes == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64 * 16 * 16), (10, 128)]


def test_bias_before_a_norm_is_configuration() -> None:
    without = weights(build("model=deep_cnn", "model.bias=false"))
    assert [name for name in without if name.endswith("bias")] == ["fc1.bias", "classifier.bias"]
    without = weights(build("model=mlp", "model.bias=false"))
    assert [name for name in without if name.endswith("bias")] == ["classifier.bias"]


@pytest.mark.parametrize("name", ["frn", "evonorm_s0", "evonorm_b0"])
def test_norms_with_an_activation_stand_in_the_place_of_the_relu(name: str) -> None:
    network = build("model=deep_cnn", f"norm={name}")
    # The one that is left follows the hidden linear layer, which has no norm.
    assert [key for key, layer in network.named_children() if isinstance(layer, relu)] == [
        "fc_relu1"
    ]


def test_a_norm_of_ones_own_may_contain_the_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "norm_with_an_activation.py").write_text(
        "from torch import nn\n\n\nclass Bounded(nn.ReLU6):\n    contains_activation = True\n\n\n"
        "def build(channels, dims, norm):\n    return Bounded()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = build("norm.name=norm_with_an_activation:build")
    names = [type(layer).__name__ for layer in network.children()]
    assert names == [*["Conv2d", "Bounded", "MaxPool2d"] * 2, "Flatten", "Linear"]


def test_weight_standardization_is_of_all_convolutions_and_of_nothing_else() -> None:
    plain = build("model=deep_cnn", "norm=gn")
    standardized = build("model=deep_cnn", "norm=gn", "norm.weight_standardization=true")
    assert [type(layer) for layer in standardized.children()] == [
        StandardizedConv2d if isinstance(layer, conv) else type(layer) for layer in plain.children()
    ]
    one, other = plain.state_dict(), standardized.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("model", LAYERS)
@pytest.mark.parametrize("classes", [2, 10])
def test_logits_have_one_column_a_class(model: str, classes: int) -> None:
    network = build(f"model={model}", image_size=16, classes=classes)
    assert network(torch.rand(3, 3, 16, 16)).shape == (3, classes)


@pytest.mark.parametrize("model", LAYERS)
def test_every_norm_starts_from_the_same_weights(model: str) -> None:
    built = {name: weights(build(f"model={model}", f"norm={name}")) for name in NORMS[model]}
    for one, other in itertools.pairwise(built.values()):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("model", LAYERS)
def test_seeds_give_different_weights(model: str) -> None:
    zero, one, again = (weights(build(f"model={model}", seed=seed)) for seed in (0, 1, 0))
    assert all(torch.equal(zero[key], again[key]) for key in zero)
    assert not any(torch.equal(zero[key], one[key]) for key in zero)


@pytest.mark.parametrize("name", NORMS["simple_cnn"])
def test_building_leaves_the_global_stream_alone_and_does_not_read_it(name: str) -> None:
    def build_after(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found = weights(build("model=simple_cnn", f"norm={name}"))
        assert torch.equal(torch.get_rng_state(), before)
        return found

    one, other = build_after(1), build_after(2)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_weights_are_those_of_plain_torch_layers() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        plain = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(1024, 10)
        )
    expected, found = weights(plain), weights(build("model=simple_cnn", "norm=gn", seed=11))
    for one, other in zip(expected.values(), found.values(), strict=True):
        assert torch.equal(one, other)


@st.composite
def cnns(draw: st.DrawFn) -> ModelConfig:
    channels = draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    places = st.integers(1, len(channels))
    return ModelConfig(
        "any", Architecture.cnn, channels,
        draw(st.lists(places, unique=True)), draw(st.lists(st.integers(1, 8), max_size=2)),
    )  # fmt: skip


mlps = st.builds(
    lambda hidden: ModelConfig("any", Architecture.mlp, hidden=hidden),
    st.lists(st.integers(1, 8), max_size=4),
)


@settings(max_examples=50, deadline=None)
@given(model=cnns() | mlps, image_size=st.integers(16, 19))
def test_the_plan_names_the_norms_that_a_network_has(model: ModelConfig, image_size: int) -> None:
    assert_the_plan_is_right(model, image_size)


@pytest.mark.parametrize("image_size", [7, 8, 33])
@pytest.mark.parametrize(
    ("architecture", "stem"),
    [("resnet20", "cifar"), ("resnet18", "cifar"), ("resnet18", "imagenet")],
)
def test_the_plan_names_the_norms_of_residual_networks(
    architecture: str, stem: str, image_size: int
) -> None:
    model = ModelConfig("any", Architecture(architecture), stem=Stem(stem))
    assert_the_plan_is_right(model, image_size)


def assert_the_plan_is_right(model: ModelConfig, image_size: int) -> None:
    network = build_model(model, NormConfig(name="gn", num_groups=1), image_size, 10, 0)
    seen: list[Site] = []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        shape = inputs[0].shape
        positions = shape[2] * shape[3] if len(shape) == 4 else None
        seen.append(Site(names[layer], shape[1], positions, layer not in unactivated))

    unactivated = [
        layer
        for name, layer in network.named_modules()
        if re.search(r"block\w+\.norm2|layer\w+\.\d\.(bn2|downsample\.1)", name)
    ]
    names = {layer: name for name, layer in network.named_modules()}
    for layer in names:
        if isinstance(layer, nn.GroupNorm):
            layer.register_forward_pre_hook(note)
    assert network(torch.zeros(2, 3, image_size, image_size)).shape == (2, 10)
    assert norm_sites(model, image_size) == seen


def test_a_cnn_with_norms_from_the_second_layer_after_the_relu_and_an_average_at_the_end() -> None:
    config = compose([
        "model.norm_from=2", "model.order=conv_relu_norm", "model.head=average", "norm=gn",
    ])  # fmt: skip
    network = build_model(config.model, config.norm, 32, 10, 0)
    kinds = [type(layer).__name__ for layer in network.children()]
    assert kinds == [
        "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "GroupNorm", "MaxPool2d",
        "AdaptiveAvgPool2d", "Flatten", "Linear",
    ]  # fmt: skip
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert network.classifier.in_features == 16
    (site,) = norm_sites(config.model, 32)
    assert (site.name, site.positions, site.activated) == ("norm2", 256, False)
    with pytest.raises(UserError, match=r"model.norm_from=3: there are 2 convolutions"):
        compose(["model.norm_from=3"])
