"""Several networks of one shape as one network of grouped layers.

A step of a small network costs mostly the calls it is made of; grouped layers make as many calls
for S networks as for one. Networks know nothing of it: layers are replaced, the way data takes
through them stays. Between layers the S networks lie side by side in the channels, (N,S*C,H,W) or
(N,S*C), the channels of the first network first.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normexp.norms.weight_standardization import StandardizedConv2d

# Layers without weights that treat each channel, or each run of channels, apart.
WITHOUT_WEIGHTS = (
    *(nn.Identity, nn.ReLU, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)

# Where classes come from whose ``forward`` only passes data on from layer to layer. Another's may
# compute over all channels, which would then be those of all networks.
CONTAINERS_OF = ("torch", "torchvision", "normexp")


class CannotFuse(Exception):
    """A network holds a layer of which several cannot be made one."""


class SideBySideLinear(nn.Module):
    """S linear layers on inputs (N,S*in), giving (N,S*out).

    Their weights lie one below the other: ``weight`` (S*out,in) and ``bias`` (S*out,).
    """

    def __init__(self, networks: int, linear: nn.Linear) -> None:
        super().__init__()
        self.networks = networks
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(torch.empty(networks * self.out_features, self.in_features))
        self.bias: nn.Parameter | None = None
        if linear.bias is not None:
            self.bias = nn.Parameter(torch.empty(networks * self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        # Weights first, (S,out,in) x (S,in,N): their gradient then comes in their own layout. The
        # other way round it has to be transposed, which takes three times as long as all the rest.
        inputs = x.reshape(-1, self.networks, self.in_features).permute(1, 2, 0)
        weights = self.weight.view(self.networks, self.out_features, -1)
        if self.bias is None:
            outputs = torch.bmm(weights, inputs)
        else:
            outputs = torch.baddbmm(self.bias.view(self.networks, -1, 1), weights, inputs)
        return outputs.permute(2, 0, 1).reshape(len(x), -1).contiguous()

    def extra_repr(self) -> str:
        return f"{self.networks} x ({self.in_features} -> {self.out_features})"


def fuse(networks: Sequence[nn.Module]) -> nn.Module:
    """One network that computes what all of these compute, each with its own weights.

    It takes (N,S*C,H,W) and gives (N,S*classes). The weights and buffers of the given networks
    become views into its own, so that training it trains them; each can still be used alone.

    Args:
        networks: S networks of the same layers, on one device.

    Raises:
        CannotFuse: of one of their layers several cannot be made one; the message names it.
    """
    with torch.device("meta"):  # draws no weights, takes no memory
        fused = _fuse_layers(list(networks))
    for name, parameter in fused.named_parameters():
        parts = [network.get_parameter(name) for network in networks]
        whole = nn.Parameter(_join(parts), requires_grad=parameter.requires_grad)
        _replace(fused, name, whole)
    for name, _ in fused.named_buffers():
        _replace(fused, name, _join([network.get_buffer(name) for network in networks]))
    return fused


def _fuse_layers(layers: list[nn.Module]) -> nn.Module:
    first, count = layers[0], len(layers)
    for_seeds: Any = getattr(first, "for_seeds", None)  # the norms of this project have it
    if for_seeds is not None:
        fused: nn.Module = for_seeds(count)
        return fused
    if type(first) in (nn.Conv2d, StandardizedConv2d):
        return _conv(first, count)
    if type(first) is nn.Linear:
        return SideBySideLinear(count, first)
    if type(first) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d):
        return _channel_norm(first, count)
    if type(first) is nn.GroupNorm:
        groups, channels = count * first.num_groups, count * first.num_channels
        return nn.GroupNorm(groups, channels, eps=first.eps, affine=first.affine)
    if type(first) in WITHOUT_WEIGHTS:
        return copy.copy(first)
    parts = dict(first.named_children())
    known = type(first).__module__.partition(".")[0] in CONTAINERS_OF
    if not known or not parts or first._parameters or first._buffers:
        raise CannotFuse(f"several {type(first).__name__} cannot be made one layer")
    # A container: what it does with its layers is the same for one network and for many.
    whole = copy.copy(first)
    whole._modules = {
        name: _fuse_layers([layer.get_submodule(name) for layer in layers]) for name in parts
    }
    return whole


def _conv(conv: Any, count: int) -> nn.Conv2d:
    shape: dict[str, Any] = {
        name: getattr(conv, name)
        for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    fused: nn.Conv2d = type(conv)(
        count * conv.in_channels, count * conv.out_channels, groups=count * conv.groups,
        bias=conv.bias is not None, **shape,
    )  # fmt: skip
    return fused


def _channel_norm(norm: Any, count: int) -> nn.Module:
    """A norm whose statistics are of single channels: more channels are all there is to it."""
    fused: nn.Module = type(norm)(
        count * norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    )  # fmt: skip
    return fused


def _join(parts: Sequence[Tensor]) -> Tensor:
    """The tensors one after the other along the first dimension; they become views into it.

    Counters (of no dimension) are the same in all networks and become one.
    """
    whole = parts[0].detach().clone() if parts[0].ndim == 0 else torch.cat([*parts]).detach()
    for part, own in zip(parts, split_evenly(whole, len(parts)), strict=True):
        part.data = own
    return whole


def split_evenly(whole: Tensor, count: int) -> list[Tensor]:
    """What belongs to each of ``count`` networks, as views; a counter belongs to all of them."""
    return [whole] * count if whole.ndim == 0 else list(whole.chunk(count))


def _replace(network: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    table = module._parameters if isinstance(value, nn.Parameter) else module._buffers
    table[leaf] = value  # type: ignore[assignment]
