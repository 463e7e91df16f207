"""Networks by name: their norms are found by looking, and swapped in their place."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL
from torch import Tensor, nn

import normexp
from normexp.config.schema import Architecture, ModelConfig, NormConfig
from normexp.models import named, swap
from normexp.models.build import build_model
from normexp.models.weights import load_matching, read
from normexp.norms import rules
from normexp.norms.catalogue import BUILT_IN
from normexp.runs import one_run, training
from normexp.runs.composing import compose
from normexp.system.errors import UserError

OWN = """\
from torch import nn


def build(classes, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )
"""


class Tokens(nn.Module):
    """Maps, then tokens, then a vector, each with a norm; one norm no image reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.maps = nn.BatchNorm2d(8)
        self.tokens = nn.LayerNorm(8)
        self.vector = nn.BatchNorm1d(8)
        self.unused = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(self.maps(self.patches(x)).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(self.vector(x.mean(1)))
        return logits


def test_where_norms_stand_is_found_by_looking() -> None:
    network = Tokens().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = normexp.sites(network, torch.randn(2, 3, 16, 16))
    assert [(one.name, one.channels, one.positions, one.tokens) for one in found] == [
        ("maps", 8, 16, False), ("tokens", 8, 16, True), ("vector", 8, None, False)
    ]  # fmt: skip
    assert network.training
    assert network.maps.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_norm_that_cannot_stand_somewhere_is_refused_with_the_layer() -> None:
    with pytest.raises(UserError, match=r"norm=gn at tokens: cannot normalize tokens"):
        normexp.swap(Tokens(), "gn", torch.randn(2, 3, 16, 16))
    with pytest.raises(UserError, match=r"at maps: 8 channels cannot be split into 3 groups"):
        normexp.swap(Tokens(), "gn", torch.randn(2, 3, 16, 16), num_groups=3)


def test_swapped_norms_compute_what_they_are() -> None:
    """RMS over the channels of each place, by hand; γ of the LayerNorm is kept."""
    network = Tokens()
    with torch.no_grad():
        network.tokens.weight.uniform_(0.5, 2)
    gamma = network.tokens.weight.detach().clone()
    swapped: Any = normexp.swap(network, "rms", torch.randn(2, 3, 16, 16), eps=1e-6)
    x = torch.randn(2, 5, 8)
    expected = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * gamma
    torch.testing.assert_close(swapped.tokens(x), expected)
    assert swapped(torch.randn(2, 3, 16, 16)).shape == (2, 3)


def test_norms_with_an_activation_keep_it() -> None:
    timm_layers = pytest.importorskip("timm.layers")
    network = nn.Sequential(nn.Conv2d(3, 8, 3), timm_layers.BatchNormAct2d(8), nn.Flatten())
    normexp.swap(network, "none", torch.randn(2, 3, 8, 8))
    assert (network(torch.randn(2, 3, 8, 8)) >= 0).all()  # the ReLU is still there


@pytest.mark.parametrize("shape", [(2, 8, 8, 8), (2, 8, 8)])
def test_which_axis_a_layer_norm_takes_is_known_where_another_is_as_long(shape: Any) -> None:
    """timm's ConvNeXt of 96 channels sees 96x96 maps (N,H,W,C) at 384 pixels."""
    timm_layers = pytest.importorskip("timm.layers")
    network = nn.Sequential(timm_layers.LayerNorm(8))
    assert [one.tokens for one in normexp.sites(network, torch.randn(shape))] == [True]
    normexp.swap(network, "rms", torch.randn(shape), eps=1e-6)
    x = torch.randn(shape)
    expected = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    torch.testing.assert_close(network(x), expected)
    maps = nn.Sequential(timm_layers.LayerNorm2d(8))
    assert [one.tokens for one in normexp.sites(maps, torch.randn(2, 8, 8, 8))] == [False]


def test_torchs_transformer_computes_the_norm_in_evaluation_mode_too() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    normexp.swap(layer, "rms", x)
    trained = layer.train()(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), trained)


def test_a_network_in_evaluation_mode_stays_in_it() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)).eval()
    normexp.swap(network, "bn", torch.zeros(2, 3, 8, 8))
    assert not any(module.training for module in network.modules())


def test_what_is_left_is_said_and_a_frozen_norm_stays_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.RMSNorm(6)).double()
    network[1].requires_grad_(False)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    words = swap.swap(network, NormConfig(name="gn", num_groups=2), swap.sites(network, images))
    assert words == "1 BatchNorm2d -> GroupNorm (2 groups), left as they are: 1 RMSNorm"
    assert network(images).dtype == torch.float64
    assert not any(one.requires_grad for one in network[1].parameters())


class Shared(nn.Module):
    """One norm in two places, of which the second sees fewer positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).mean((2, 3), keepdim=True))
        return y.flatten(1)


def test_a_norm_in_two_places_stays_one_and_its_smallest_input_counts() -> None:
    network, images = Shared(), torch.randn(2, 3, 8, 8)
    found = normexp.sites(network, images)
    assert [one.positions for one in found] == [1, 1]
    with pytest.raises(UserError, match="norm=in"):
        normexp.swap(network, "in", images)
    normexp.swap(network, "gn", images, num_groups=1)
    assert network.first is network.second
    assert isinstance(network.first, nn.GroupNorm)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("mobilenet_v3_small norm=keep batch_size=1", "batch_size=1: cannot be trained so"),
        ("resnet18 norm=keep model.weights={weights}", "nothing in them fits"),
        ("squeezenet1_0 norm=gn", "no norms that could be swapped"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_images_are_read(
    settings: str, message: str, tmp_path: Path
) -> None:
    torch.save({"other": torch.zeros(3)}, tmp_path / "weights.pt")
    overrides = f"model=torchvision:{settings}".format(weights=tmp_path / "weights.pt").split()
    config = compose([*SMALL, f"output={tmp_path}", *overrides, "data.image_size=32"])
    with pytest.raises(UserError, match=message):
        training.run(one_run.jobs_of(config), [])
    assert not (tmp_path / "default").exists()  # nothing was begun


def of(name: str, **keys: Any) -> ModelConfig:
    return ModelConfig(name=name, architecture=Architecture.named, **keys)


def test_with_the_same_seed_all_norms_start_from_the_same_weights() -> None:
    networks = [
        build_model(of("torchvision:resnet18"), NormConfig(name=name, num_groups=8), 32, 10, 3)
        for name in ("keep", "gn", "none")
    ]
    states = [
        {key: value for key, value in one.state_dict().items() if "conv" in key or "fc" in key}
        for one in networks
    ]
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        assert all(torch.equal(other[key], value) for key, value in states[0].items())


def asked(settings: list[str]) -> nn.Module:
    config = compose(settings)
    return build_model(config.model, config.norm, 32, 10, 0)


FAMILIES = (
    "inception_v3", "maxvit_t", "swin_t", "swin_v2_t", "vit_b_16",
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s",
    "googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "vgg11_bn", "wide_resnet50_2",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_each_norm_works_in_a_family_or_is_refused_with_the_layer(family: str) -> None:
    """Shapes alone, on the meta device where its author's code allows that: a pass of the network
    with each norm in its place."""
    size = {"inception_v3": 96, "maxvit_t": 224}.get(family, 64)
    args = {"vit_b_16": f'{{"image_size": {size}}}'}.get(family)
    with torch.device("cpu" if family.startswith("regnet") else "meta"):
        images = torch.zeros(2, 3, size, size)
        network = named.build(of(f"torchvision:{family}", args=args), size, 10)
        where = swap.sites(network, images)
        assert len(where) == sum(swap.channels_of(one) is not None for one in network.modules())
        for name in [one for one in BUILT_IN if one != "syncbn"] if where else []:
            settings = {"frozen_bn": {"freeze_at": 0.5}, "gn": {"num_groups": "auto"}}
            norm = swap.config(name, settings.get(name, {}))
            network = named.build(of(f"torchvision:{family}", args=args), size, 10)
            refused = ""
            try:
                rules.check(norm, where, 2)
                swap.swap(network, norm, where)
            except UserError as error:
                refused = str(error)
            if refused:
                assert any(f"at {site.name}" in refused for site in where), refused
            else:
                assert network.eval()(images).shape == (2, 10)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("torchvision:resnet81", "did you mean resnet18"),
        ("timm:vit_tiny_patch_16_224", "did you mean vit_tiny_patch16_224"),
        ("nowhere:build", "no module nowhere"),
    ],
)
def test_names_that_are_none_are_refused(model: str, message: str) -> None:
    if model.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(UserError, match=message):
        asked([f"model={model}", "norm=gn"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.name=torchvision:resnet18"], "write model=torchvision:resnet18"),
        (["norm=keep"], "norm=keep model=simple_cnn"),
        (["model=torchvision:resnet18", "norm.weight_standardization=true"], "leave it out"),
        (["model=torchvision:resnet18", "model.args={weights: x}"], "model.pretrained=true"),
        (["model=torchvision:resnet18", "model.args=3"], "write a table"),
    ],
)
def test_settings_that_contradict_a_name_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(settings)


def test_weights_that_fit_are_kept_and_the_rest_is_said(tmp_path: Path) -> None:
    trained = build_model(of("torchvision:resnet18"), NormConfig(name="keep"), 32, 7, 1)
    with torch.no_grad():
        trained.get_parameter("layer1.0.bn1.weight").fill_(1.5)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    config = compose([
        "model=torchvision:resnet18", "norm=gn", f"model.weights={tmp_path / 'weights.pt'}",
    ])  # fmt: skip
    network = build_model(config.model, config.norm, 32, 10, 2)
    conv = "layer2.0.conv1.weight"
    assert torch.equal(network.get_parameter(conv), trained.get_parameter(conv))
    assert (network.get_parameter("layer1.0.bn1.weight") == 1.5).all()  # γ of the norm before
    fresh = named.build(config.model, 32, 10)
    words = load_matching(fresh, read(tmp_path / "weights.pt"))
    assert "fc.weight" in words
    assert "122 tensors" in words
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UserError, match="no weights that can be read"):
        read(tmp_path / "text.pt")


def test_a_network_of_ones_own_from_training_to_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_net_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = compose([
        *SMALL, f"output={tmp_path}", "model=a_net_of_mine:build", "model.args={width: 6}",
        "norm=gn", "norm.num_groups=2", "max_steps=3", "seeds=2", "fuse=2",
    ])  # fmt: skip
    jobs = one_run.jobs_of(config)
    results = training.run(jobs, [])
    assert [one["status"] for one in results] == ["completed"] * 2
    folder = jobs[0][1].path
    assert folder.name.startswith("a_net_of_mine_build-gn-bs10-seed0-")
    log = (folder / "train.log").read_text()
    assert "1 BatchNorm2d -> GroupNorm (2 groups)" in log
    assert json.loads((folder / "result.json").read_text())["model_source"]
    network = normexp.load_run(folder)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 10)
    # Its file is part of the run's name, and is looked at before it is used.
    (tmp_path / "a_net_of_mine.py").write_text(OWN + "# edited\n")
    assert one_run.jobs_of(config)[0][1].run_id != jobs[0][1].run_id
    with pytest.raises(UserError, match="not what it was trained with"):
        normexp.load_run(folder)


def test_a_norm_as_a_layer() -> None:
    layer = normexp.norm("gn", channels=64, num_groups=32)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == 32
    with pytest.raises(UserError, match="did you mean gn"):
        normexp.norm("gnn", channels=64)
    with pytest.raises(UserError, match="known are"):
        normexp.norm("gn", channels=64, groups=32)
