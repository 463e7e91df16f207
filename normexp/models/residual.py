"""Residual networks: torchvision's ResNet-18, and the ResNet-20 for CIFAR of He et al."""

import sys
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from normexp.config.schema import Architecture, ModelConfig, NormConfig, Stem
from normexp.models.plan import BLOCKS, WIDTHS
from normexp.norms.factory import build_norm
from normexp.norms.rules import activation_where_none_follows, at_sites
from normexp.norms.weight_standardization import standardize
from normexp.system.errors import UserError

NormLayer = Callable[[int], nn.Module]


def build_residual(model: ModelConfig, norm: NormConfig, classes: int) -> nn.Module:
    """The residual network that the configuration names, for images (N,3,H,W) of any size.

    Its weights are drawn from torch's global stream; its norms draw nothing.

    Raises:
        UserError: the norm cannot work in it; torchvision's weights cannot be had.
    """
    resnet18 = model.architecture is Architecture.resnet18
    network = _resnet18(model, classes) if resnet18 else _resnet20(classes)
    _put_norms(network, norm)
    if norm.weight_standardization:
        standardize(network)
    if model.pretrained:
        _load_pretrained(network)
    return network


class _Place(nn.Identity):
    """Where a norm is to stand: torchvision wants to know more of norms than all of them have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


def _put_norms(network: nn.Module, norm: NormConfig) -> None:
    places = [
        (name, layer.channels)
        for name, layer in network.named_modules()
        if isinstance(layer, _Place)
    ]
    for (name, channels), own in zip(places, at_sites(norm, len(places)), strict=True):
        layer = build_norm(channels, 4, own)
        if getattr(layer, "contains_activation", False):
            raise activation_where_none_follows(norm)
        network.set_submodule(name, layer)


# --- ResNet-18 -----------------------------------------------------------------------------------


def _resnet18(model: ModelConfig, classes: int) -> nn.Module:
    """torchvision's; the CIFAR stem is a 3x3 convolution of stride 1 without a pool after it."""
    # It takes seconds to import, which other networks need not wait for.
    from torchvision.models import resnet18

    network: nn.Module = resnet18(num_classes=classes, norm_layer=_Place)
    if model.stem is Stem.cifar:
        network.conv1 = _conv(3, 64, 1)
        network.maxpool = nn.Identity()
    return network


def _load_pretrained(network: nn.Module) -> None:
    """Load torchvision's ImageNet weights from its cache or the net, but for the classifier."""
    from torchvision.models import ResNet18_Weights

    weights = ResNet18_Weights.IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except Exception as error:  # the net, the disk and what lies there fail in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"model.pretrained=true: {weights.url} cannot be had ({reason}); put the file into "
            "$TORCH_HOME/hub/checkpoints, or use model.pretrained=false"
        ) from error
    own = {name: value for name, value in state.items() if not name.startswith("fc.")}
    missing, unexpected = network.load_state_dict(own, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}, missing
    assert not unexpected, unexpected


# --- ResNet-20 -----------------------------------------------------------------------------------


def _resnet20(classes: int) -> nn.Module:
    """Section 4.2 of He et al. 2015 (arXiv 1512.03385), with n = 3.

    A 3x3 convolution; three stages of three blocks, of 16, 32 and 64 channels, the latter two
    begun with stride 2; global average pooling; a linear classifier.
    """
    widths, count = WIDTHS[Architecture.resnet20], BLOCKS[Architecture.resnet20]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = _conv(3, widths[0], 1)
    layers["norm1"] = _Place(widths[0])
    layers["relu1"] = nn.ReLU(inplace=True)
    channels = widths[0]
    for stage, width in enumerate(widths, start=1):
        for block in range(1, count + 1):
            layers[f"block{stage}_{block}"] = ResidualBlock(channels, width, _Place)
            channels = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with a norm, and a shortcut without parameters (option A).

    It takes (N,inputs,H,W) and gives (N,width,H,W), or half of H and W, rounded up, where the
    width grows.
    """

    def __init__(self, inputs: int, width: int, norm_layer: NormLayer) -> None:
        super().__init__()
        grows = width > inputs
        self.conv1 = _conv(inputs, width, 2 if grows else 1)
        self.norm1 = norm_layer(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 1)
        self.norm2 = norm_layer(width)
        self.shortcut = PaddedShortcut(width - inputs) if grows else nn.Identity()
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        output: Tensor = self.relu2(y + self.shortcut(x))
        return output


class PaddedShortcut(nn.Module):
    """Every second row and column, and ``extra`` channels of zeros after those there are."""

    def __init__(self, extra: int, seeds: int = 1) -> None:
        super().__init__()
        self.extra, self.seeds = extra, seeds

    def forward(self, x: Tensor) -> Tensor:
        apart = x[:, :, ::2, ::2].unflatten(1, (self.seeds, -1))
        return F.pad(apart, (0, 0, 0, 0, 0, self.extra)).flatten(1, 2)

    def for_seeds(self, seeds: int) -> nn.Module:
        return PaddedShortcut(self.extra, seeds)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """3x3, without a bias, begun as in torchvision's ResNets (He et al. 2015, arXiv 1502.01852)."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
