"""Norms that contain the activation: Filter Response Normalization, EvoNorm."""

import torch
from torch import Tensor, nn

from normexp.config.schema import NormConfig
from normexp.norms.base import Norm, per_channel, pooled_axes, update_average
from normexp.norms.catalogue import Facts
from normexp.norms.rules import groups_of


@Facts(
    name="frn",
    title="Filter Response Normalization with TLU",
    paper="Singh & Krishnan 2019, arXiv 1911.09737",
    when="CNNs with batches down to one image",
    formula="y = max(γ x / √(mean x² + ε) + β, τ),  τ one a channel",
    axes=("H,W",),
    parameters="3C",
    reads="eps affine",
    contains_activation=True,
)
class FilterResponseNorm(Norm):
    """τ begins at 0, where the thresholded linear unit is a ReLU."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.eps = norm.eps
        self.tau = nn.Parameter(torch.zeros(channels))

    def normalize(self, x: Tensor) -> Tensor:
        mean_square = x.square().mean((2, 3), keepdim=True)
        y = self.scale_and_shift(x, (mean_square + self.eps).rsqrt())
        return torch.maximum(y, per_channel(self.tau, x))


@Facts(
    name="evonorm_s0",
    title="EvoNorm-S0",
    paper="Liu et al. 2020, arXiv 2004.02967",
    when="small batches; norm and activation in one",
    formula="y = γ x sigmoid(v x) / √(σ² + ε) + β,  v one a channel",
    axes=("C/G,H,W",),
    parameters="3C",
    reads="eps affine num_groups channels_per_group",
    contains_activation=True,
)
class EvoNormS0(Norm):
    """σ² is the biased variance; v begins at 1."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.eps, self.groups = norm.eps, seeds * groups_of(norm, channels // seeds)
        self.v = nn.Parameter(torch.ones(channels))

    def normalize(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))
        axes = tuple(range(2, grouped.dim()))
        factor = (grouped.var(axes, correction=0) + self.eps).rsqrt()
        factor = per_channel(factor.repeat_interleave(grouped.shape[2], 1), x)
        return self.scale_and_shift(x * (x * per_channel(self.v, x)).sigmoid(), factor)


@Facts(
    name="evonorm_b0",
    title="EvoNorm-B0",
    paper="Liu et al. 2020, arXiv 2004.02967",
    when="large batches; norm and activation in one",
    formula="y = γ x / max(√(σ²(N,H,W) + ε), v x + √(σ²(H,W) + ε)) + β,  v one a channel;  in "
    "evaluation σ²(N,H,W) is a running average",
    axes=("N,H,W", "H,W"),
    parameters="3C",
    reads="eps affine momentum",
    contains_activation=True,
)
class EvoNormB0(Norm):
    """Its variances are biased; v begins at 1. The running average is unbiased, as in BatchNorm,
    and each batch adds to it with weight ``momentum``."""

    running_var: Tensor

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.eps, self.momentum = norm.eps, norm.momentum
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
