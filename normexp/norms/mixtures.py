"""Norms that learn how much of which to take: Switchable and Batch-Instance Normalization."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normexp.norms.base import Norm, per_channel, update_average


class SwitchableNorm(Norm):
    """Switchable Normalization (Luo et al. 2018, arXiv 1806.10779), for (N,C,H,W).

    y = γ(x - Σwμ)/√(Σw'σ² + ε) + β over the statistics of InstanceNorm (H,W), LayerNorm (C,H,W)
    and BatchNorm (N,H,W), in this order, where w and w' are the softmax of three learned numbers
    each, which begin equal. As in the authors' code, IN's variance is the unbiased one and the
    other two are made from it: the mean of IN's variances plus the biased variance of IN's means,
    over C or over N.

    In evaluation BN's statistics are running averages of what training used, to which each batch
    adds with weight ``momentum``.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, channels: int, eps: float, momentum: float, affine: bool, seeds: int = 1
    ) -> None:
        super().__init__(channels, affine)
        self.eps, self.momentum, self.affine, self.seeds = eps, momentum, affine, seeds
        self.mean_weight = nn.Parameter(torch.ones(seeds * 3))
        self.var_weight = nn.Parameter(torch.ones(seeds * 3))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

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

    def _mix(self, weight: Tensor, instance: Tensor, layer: Tensor, batch: Tensor) -> Tensor:
        """The weighted sum (N,C) of statistics (N,S,C/S), (N,S,1) and (C)."""
        shares = weight.view(self.seeds, 3).softmax(1).unsqueeze(2).unbind(1)
        batch = batch.view(self.seeds, -1)
        return (shares[0] * instance + shares[1] * layer + shares[2] * batch).flatten(1)

    def for_seeds(self, seeds: int) -> nn.Module:
        return SwitchableNorm(seeds * self.channels, self.eps, self.momentum, self.affine, seeds)


class BatchInstanceNorm(Norm):
    """Batch-Instance Normalization (Nam & Kim 2018, arXiv 1805.07925), for (N,C,H,W):
    y = γ(ρ·BN(x) + (1 - ρ)·IN(x)) + β, where ρ, one a channel, begins at 1.

    The paper clips ρ to 0..1 after each step; here a forward pass in training does so first. In
    evaluation BN's statistics are running averages, as in BatchNorm.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float, momentum: float, affine: bool) -> None:
        super().__init__(channels, affine)
        self.eps, self.momentum, self.affine = eps, momentum, affine
        self.rho = nn.Parameter(torch.ones(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

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

    def for_seeds(self, seeds: int) -> nn.Module:
        return BatchInstanceNorm(seeds * self.channels, self.eps, self.momentum, self.affine)
