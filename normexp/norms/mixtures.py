"""Norms that learn how much of which to take: Switchable and Batch-Instance Normalization."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normexp.config.schema import NormConfig
from normexp.norms.base import Averaging, per_channel, update_average
from normexp.norms.catalogue import Facts


@Facts(
    name="switchable",
    title="Switchable Normalization",
    paper="Luo et al. 2018, arXiv 1806.10779",
    when="CNNs that learn to mix in, ln and bn",
    formula="y = γ (x - Σ w μ) / √(Σ w' σ² + ε) + β,  over the statistics of in, ln and bn, with "
    "w and w' each the softmax of three weights;  in evaluation bn's are running averages",
    axes=("H,W", "C,H,W", "N,H,W"),
    parameters="2C + 6",
    reads="eps affine momentum",
)
class SwitchableNorm(Averaging):
    """The three weights begin equal, and are in the order of the axes. As in the authors' code,
    IN's variance is the unbiased one and the other two are made from it: the mean of IN's variances
    plus the biased variance of IN's means, over C or over N. Running averages are of what training
    used; each batch adds to them with weight ``momentum``."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.mean_weight = nn.Parameter(torch.ones(seeds * 3))
        self.var_weight = nn.Parameter(torch.ones(seeds * 3))

    def normalize(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3))
        batch_mean, batch_variance = self.running_mean, self.running_var
        if self.training:
            batch_mean = mean.mean(0)
            batch_variance = variance.mean(0) + mean.var(0, correction=0)
            update_average(self.running_mean, batch_mean, self.momentum)
            update_average(self.running_var, batch_variance, self.momentum)
        # (N, S, C/S): LayerNorm's statistics are those of one network's channels.
        means, variances = (value.unflatten(1, (self.seeds, -1)) for value in (mean, variance))
        layer_mean = means.mean(2, keepdim=True)
        layer_variance = variances.mean(2, keepdim=True) + means.var(2, correction=0, keepdim=True)
        mixed_mean = self._mix(self.mean_weight, means, layer_mean, batch_mean)
        mixed_variance = self._mix(self.var_weight, variances, layer_variance, batch_variance)
        centred = x - per_channel(mixed_mean, x)
        return self.scale_and_shift(centred, per_channel((mixed_variance + self.eps).rsqrt(), x))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        within, means = torch.var_mean(x, (2, 3))  # its variances within an image are unbiased
        return means.mean(0), within.mean(0) + means.var(0, correction=0)

    def _mix(self, weight: Tensor, instance: Tensor, layer: Tensor, batch: Tensor) -> Tensor:
        """The weighted sum (N,C) of statistics (N,S,C/S), (N,S,1) and (C)."""
        shares = weight.view(self.seeds, 3).softmax(1).unsqueeze(2).unbind(1)
        batch = batch.view(self.seeds, -1)
        return (shares[0] * instance + shares[1] * layer + shares[2] * batch).flatten(1)


@Facts(
    name="batch_instance",
    title="Batch-Instance Normalization",
    paper="Nam & Kim 2018, arXiv 1805.07925",
    when="classifying images of varying style",
    formula="y = γ (ρ bn(x) + (1 - ρ) in(x)) + β,  ρ one a channel, within 0..1",
    axes=("N,H,W", "H,W"),
    parameters="3C",
    reads="eps affine momentum",
)
class BatchInstanceNorm(Averaging):
    """ρ begins at 1. The paper clips it to 0..1 after each step; here a forward pass in training
    does so first. In evaluation BN's statistics are running averages, as in BatchNorm."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.rho = nn.Parameter(torch.ones(channels))

    def normalize(self, x: Tensor) -> Tensor:
        if self.training:
            # Not seen by autograd: clamp has no gradient at its ends, where ρ begins, and a second
            # forward pass before the backward pass is to change nothing.
            self.rho.data.clamp_(0, 1)
        # The step that training ended with may have left ρ outside.
        batch_share = self.rho if self.training else self.rho.clamp(0, 1)
        instance_share = 1 - batch_share
        if self.weight is not None:
            batch_share, instance_share = self.weight * batch_share, self.weight * instance_share
        of_batch = F.batch_norm(
            x, self.running_mean, self.running_var, batch_share, self.bias, self.training,
            self.momentum, self.eps,
        )  # fmt: skip
        return of_batch + F.instance_norm(x, weight=instance_share, eps=self.eps)
