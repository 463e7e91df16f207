"""Layers of which several have to be made one by hand: linear ones, LayerNorm, those that draw."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normexp.models.streams import Stream


class SideBySideLinear(nn.Module):
    """S linear layers on inputs (...,S*in), giving (...,S*out).

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
        return outputs.permute(2, 0, 1).reshape(*x.shape[:-1], -1).contiguous()

    def extra_repr(self) -> str:
        return f"{self.networks} x ({self.in_features} -> {self.out_features})"


class SideBySideLayerNorm(nn.Module):
    """S LayerNorms over the last axes of an input, the first of which holds S networks' share.

    Args:
        networks: S.
        norm: one of them.
        channels_first: over the channels of each position of (N,S*C,H,W), as the LayerNorm2d of
            torchvision and timm are; else over the last axes, such as those of (N,H,W,S*C).
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, networks: int, norm: nn.LayerNorm, channels_first: bool) -> None:
        super().__init__()
        self.networks, self.eps, self.channels_first = networks, norm.eps, channels_first
        self.normalized_shape = norm.normalized_shape
        first, *others = norm.normalized_shape
        shape = (networks * first, *others)
        for name, own in (("weight", norm.weight), ("bias", norm.bias)):
            value = None if own is None else nn.Parameter(torch.empty(shape))
            self.register_parameter(name, value)

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1) if self.channels_first else x
        axis = last.ndim - len(self.normalized_shape)
        apart = last.unflatten(axis, (self.networks, -1))
        y = F.layer_norm(apart, self.normalized_shape, eps=self.eps).flatten(axis, axis + 1)
        if self.weight is not None:
            y = y * self.weight if self.bias is None else self.bias.addcmul(y, self.weight)
        return y.movedim(-1, 1) if self.channels_first else y


class DrawnApart(nn.Module):
    """A layer that draws and else passes on what it is given, such as Dropout: for each network
    from its own stream.

    Args:
        layer: one of them, without weights.
        streams: of each network; each call moves them on.
    """

    def __init__(self, layer: nn.Module, streams: list[Stream]) -> None:
        super().__init__()
        self.draw = copy.copy(layer).train().forward
        self.streams, self.shown = streams, f"{len(streams)} x {layer}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        outside = Stream.now(x.device)
        outputs = []
        for place, own in enumerate(x.unflatten(1, (len(self.streams), -1)).unbind(1)):
            self.streams[place].use(x.device)
            # Copied, it lies in memory as it does alone, and numbers are drawn in the order there.
            outputs.append(self.draw(own.clone()))
            self.streams[place] = Stream.now(x.device)
        outside.use(x.device)
        return torch.cat(outputs, 1)

    def extra_repr(self) -> str:
        return self.shown
