"""Which networks can be trained several as one is found by trying."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from fused_runs import CPU
from small_runs import same_tensors
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import densenet, efficientnet, mobilenetv3, regnet, vgg
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from normexp.models.fuse import CannotFuse, fuse
from normexp.models.proof import prove
from normexp.models.streams import Stream

Make = Callable[[], nn.Module]


def two(make: Make) -> list[nn.Module]:
    return [make().double() for _ in range(2)]


def assert_fused_is_alone(networks: list[nn.Module], size: int) -> None:
    """A step of training in which the layers that draw do, each network from a seed of its own:
    logits, gradients, buffers and the place in the random stream."""
    single = copy.deepcopy(networks)
    streams = [Stream.begun(seed, CPU) for seed in range(len(networks))]
    whole = fuse(networks, streams)
    images = torch.randn(3, 3 * len(networks), size, size).double()
    outside = torch.get_rng_state()
    outputs = whole(images).view(3, len(networks), -1)
    assert torch.equal(torch.get_rng_state(), outside)
    outputs.square().sum().backward()
    for place, network in enumerate(single):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(place)
            expected = network(images[:, 3 * place : 3 * place + 3])
            assert torch.equal(streams[place].cpu, torch.get_rng_state())
        torch.testing.assert_close(outputs[:, place], expected, rtol=1e-7, atol=1e-7)
        expected.square().sum().backward()
        for name, parameter in network.named_parameters():
            gradient: Any = whole.get_parameter(name).grad
            own = gradient.chunk(len(networks))[place]
            torch.testing.assert_close(own, parameter.grad, rtol=1e-6, atol=1e-7)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(networks[place].state_dict()[name], value)


def small_vgg() -> nn.Module:
    """VGG's layers and forward, with fewer channels; its Dropouts draw."""
    features = vgg.make_layers([4, "M", 8, "M"], batch_norm=True)
    with torch.device("meta"):  # a classifier of 120 million weights
        network = vgg.VGG(features, init_weights=False)
    network.avgpool = nn.AdaptiveAvgPool2d(2)
    network.classifier = nn.Sequential(
        nn.Linear(32, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5)
    )
    return network


def small_mobilenet() -> nn.Module:
    block = mobilenetv3.InvertedResidualConfig
    blocks = [
        block(8, 3, 16, 8, True, "RE", 2, 1, 1.0),
        block(8, 5, 24, 8, True, "HS", 1, 1, 1.0),
    ]
    return mobilenetv3.MobileNetV3(blocks, 16, num_classes=5)


def small_efficientnet() -> nn.Module:
    block = efficientnet.MBConvConfig
    blocks = [block(1, 3, 1, 8, 8, 1), block(4, 3, 1, 8, 8, 2)]
    return efficientnet.EfficientNet(
        blocks, dropout=0.3, stochastic_depth_prob=0.6, num_classes=5, last_channel=16
    )


def small_regnet() -> nn.Module:
    sizes = regnet.BlockParams([1, 2], [8, 16], [4, 8], [1.0, 1.0], [2, 2], 0.25)
    return regnet.RegNet(sizes, num_classes=5, stem_width=8)


def small_convnext() -> nn.Module:
    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.5, num_classes=5)


class Plain(nn.Module):
    """A network of one's own, with layers and parameters of one's own in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.scale = nn.Parameter(torch.full((6, 1, 1), 1e-6))
        self.norm = nn.LayerNorm([6, 8, 8])
        self.act = nn.ReLU6()
        self.last = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        x = x + self.scale * F.silu(x)
        logits: Tensor = self.last(F.max_pool2d(x, 2).mean((2, 3)))
        return logits


ALIKE: list[Make] = [
    *(small_vgg, small_mobilenet, small_efficientnet, small_regnet),
    *(small_convnext, Plain),
]


@pytest.mark.parametrize("make", ALIKE, ids=lambda make: make.__name__)
def test_a_network_that_can_be_fused_is_found_and_computes_what_it_does_alone(make: Make) -> None:
    networks = two(make)
    size = 8 if make is Plain else 32
    prove(networks, size, channels_last=True)
    assert_fused_is_alone(networks, size)


class Own(Plain):
    """What an author's forward may do between layers."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.act(self.norm(self.conv(x))))
        logits: Tensor = self.last(x.mean((2, 3)))
        return logits


MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "concatenates": lambda x: torch.cat([x[:, 2:], x[:, :2]], 1),
    "shuffles": lambda x: F.channel_shuffle(x, 3),
    "gates": lambda x: torch.cat([x.chunk(2, 1)[0] * x.chunk(2, 1)[1]] * 2, 1),
    "reduces": lambda x: x - x.mean(1, keepdim=True),
    "weighs": lambda x: x * x.softmax(1),
    "over the batch": lambda x: x - x.mean(),
    "draws": lambda x: F.dropout(x, 0.2),
    "fails": lambda x: x.view(len(x), 6, -1, 8),
}


@pytest.mark.parametrize("what", MIXING)
def test_a_forward_that_mixes_channels_is_refused(what: str) -> None:
    networks = two(lambda: Own(MIXING[what]))
    with pytest.raises(CannotFuse, match=r"several Own .*, first seen after last \(Linear\)"):
        prove(networks, 8, channels_last=False)


def test_what_is_hidden_by_initial_weights_is_found() -> None:
    """A branch that is multiplied by zero when training begins."""

    class Begun(Plain):
        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.norm(self.conv(x)))
            x = x + self.scale * x.mean(1, keepdim=True)
            logits: Tensor = self.last(x.mean((2, 3)))
            return logits

    def make() -> nn.Module:
        network = Begun()
        nn.init.zeros_(network.scale)
        return network

    with pytest.raises(CannotFuse, match="logits in training"):
        prove(two(make), 8, channels_last=False)


def test_what_differs_in_evaluation_alone_is_found() -> None:
    class Sharpened(Plain):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = super().forward(x)
            return logits if self.training else logits.softmax(1)

    with pytest.raises(CannotFuse, match="logits in evaluation"):
        prove(two(Sharpened), 8, channels_last=False)


class Single(nn.Module):
    """A norm of one's own with a single number to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return (self.alpha * x).tanh()


class Tied(Plain):
    """One weight in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.more = nn.Conv2d(6, 6, 3, padding=1)
        self.more.weight = self.again.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.more(self.again(self.conv(x))).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.Sequential(Single(), Plain()), "several Single, which learn a single number"),
        (Tied, "gradient of again.weight"),
        (lambda: densenet.DenseNet(8, (2, 2), 8, num_classes=5), "denselayer2.norm1"),
        (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5), "first seen after stage2"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, 5)), "cannot be tried in fp64: Runtime"),
        (lambda: nn.Conv2d(3, 5, 3), "gives no logits"),
    ],
    ids=["number", "tied", "densenet", "shufflenet", "fails", "maps"],
)
def test_networks_that_cannot_be_one_are_refused_and_it_is_said_why(make: Make, why: str) -> None:
    with pytest.raises(CannotFuse, match=why):
        prove(two(make), 8 if make is Tied else 32, channels_last=True)


def test_a_layer_that_stands_in_two_places_is_one_layer() -> None:
    def make() -> nn.Module:
        same = nn.Conv2d(3, 3, 3, padding=1)
        return nn.Sequential(same, nn.ReLU(), same, nn.Flatten(), nn.Linear(192, 5))

    networks = two(make)
    prove(networks, 8, channels_last=True)
    assert_fused_is_alone(networks, 8)


def test_trying_leaves_the_networks_and_the_random_stream_as_they_are() -> None:
    networks = [small_vgg(), small_vgg().eval()]
    before = copy.deepcopy([network.state_dict() for network in networks])
    stream = torch.get_rng_state()
    prove(networks, 32, channels_last=True)
    assert torch.equal(torch.get_rng_state(), stream)
    for network, saved in zip(networks, before, strict=True):
        assert same_tensors(dict(network.state_dict()), dict(saved))
        assert all(parameter.grad is None for parameter in network.parameters())
    assert [network.training for network in networks] == [True, False]


def test_frozen_weights_stay_frozen() -> None:
    networks = two(small_vgg)
    for network in networks:
        network.get_submodule("features").requires_grad_(False)
        network.get_submodule("classifier.0").requires_grad_(False)
    prove(networks, 32, channels_last=True)
    learned = [name for name, one in fuse(networks, []).named_parameters() if one.requires_grad]
    assert learned == ["classifier.3.weight", "classifier.3.bias"]
