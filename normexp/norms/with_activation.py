"""Norms that contain the activation: Filter Response Normalization, EvoNorm."""

import torch
from torch import Tensor, nn

from normexp.norms.base import Norm, per_channel, pooled_axes, update_average


class FilterResponseNorm(Norm):
    """Filter Response Normalization with the thresholded linear unit (Singh & Krishnan 2019,
    arXiv 1911.09737), for (N,C,H,W): y = max(γx/√(mean x² + ε) + β, τ), the mean over H,W of each
    channel of each image. τ, one a channel, begins at 0, where the unit is a ReLU."""

    contains_activation = True

    def __init__(self, channels: int, eps: float, affine: bool) -> None:
        super().__init__(channels, affine)
        self.eps, self.affine = eps, affine
        self.tau = nn.Parameter(torch.zeros(channels))

    def normalize(self, x: Tensor) -> Tensor:
        mean_square = x.square().mean((2, 3), keepdim=True)
        y = self.scale_and_shift(x, (mean_square + self.eps).rsqrt())
        return torch.maximum(y, per_channel(self.tau, x))

    def for_seeds(self, seeds: int) -> nn.Module:
        return FilterResponseNorm(seeds * self.channels, self.eps, self.affine)


class EvoNormS0(Norm):
    """EvoNorm-S0 (Liu et al. 2020, arXiv 2004.02967): y = γ x·sigmoid(vx)/√(σ² + ε) + β, with the
    biased variance σ² of each of ``groups`` groups of channels, over (C/G),H,W of (N,C,H,W) or
    C/G of (N,C). v, one a channel, begins at 1."""

    contains_activation = True

    def __init__(self, channels: int, groups: int, eps: float, affine: bool) -> None:
        super().__init__(channels, affine)
        self.groups, self.eps, self.affine = groups, eps, affine
        self.v = nn.Parameter(torch.ones(channels))

    def normalize(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))
        axes = tuple(range(2, grouped.dim()))
        factor = (grouped.var(axes, correction=0) + self.eps).rsqrt()
        factor = per_channel(factor.repeat_interleave(grouped.shape[2], 1), x)
        return self.scale_and_shift(x * (x * per_channel(self.v, x)).sigmoid(), factor)

    def for_seeds(self, seeds: int) -> nn.Module:
        return EvoNormS0(seeds * self.channels, seeds * self.groups, self.eps, self.affine)


class EvoNormB0(Norm):
    """EvoNorm-B0 (Liu et al. 2020, arXiv 2004.02967), for (N,C,H,W):
    y = γx/max(√(σ²(N,H,W) + ε), vx + √(σ²(H,W) + ε)) + β, with biased variances of each channel
    over the batch and over the positions of each image. v, one a channel, begins at 1.

    In evaluation the batch's variance is a running average; as in BatchNorm, it is unbiased and
    each batch adds to it with weight ``momentum``.
    """

    contains_activation = True
    running_var: Tensor

    def __init__(self, channels: int, eps: float, momentum: float, affine: bool) -> None:
        super().__init__(channels, affine)
        self.eps, self.momentum, self.affine = eps, momentum, affine
        self.v = nn.Parameter(torch.ones(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def normalize(self, x: Tensor) -> Tensor:
        batch_variance = self.running_var
        if self.training:
            batch_variance = x.var(pooled_axes(x), correction=0)
            values = x.numel() // x.shape[1]
            unbiased = batch_variance.detach() * (values / (values - 1))
            update_average(self.running_var, unbiased, self.momentum)
        left = per_channel((batch_variance + self.eps).sqrt(), x)
        within = (x.var((2, 3), correction=0, keepdim=True) + self.eps).sqrt()
        right = torch.addcmul(within, x, per_channel(self.v, x))
        return self.scale_and_shift(x / torch.maximum(left, right))

    def for_seeds(self, seeds: int) -> nn.Module:
        return EvoNormB0(seeds * self.channels, self.eps, self.momentum, self.affine)
