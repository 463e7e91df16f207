"""Relatives of BatchNorm: Ghost BatchNorm and Batch Renormalization."""

import torch
from torch import Tensor
from torch.nn import functional as F

from normexp.config.schema import NormConfig
from normexp.norms.base import Averaging, Norm, moments, per_channel, update_average
from normexp.norms.catalogue import Facts

WHOLE = 2**31  # more images than a batch has


@Facts(
    name="ghost_bn",
    title="Ghost BatchNorm",
    paper="Hoffer et al. 2017, arXiv 1705.08741",
    when="large batches that lose accuracy with bn",
    formula="as bn, over each g = norm.ghost_batch_size images of the batch in turn",
    axes=("g,H,W",),
    parameters="2C",
    reads="eps affine momentum ghost_batch_size",
)
class GhostBatchNorm(Averaging):
    """A step moves the running averages once, towards the mean of the ghost batches' statistics, by
    ``momentum``: as far as BatchNorm does, however many ghost batches there are. (The paper lets
    each ghost batch move them in turn.) In evaluation, and for a batch of no more images than a
    ghost batch, it is BatchNorm."""

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.ghost_batch_size = norm.ghost_batch_size

    def by_whole_batch(self, whole: bool) -> None:
        self.ghost_batch_size = WHOLE if whole else self.norm.ghost_batch_size

    def normalize(self, x: Tensor) -> Tensor:
        if not self.training:
            return self._batch_norm(x, self.running_mean, self.running_var)
        ghosts = x.split(self.ghost_batch_size)
        means = self.running_mean.repeat(len(ghosts), 1)
        variances = self.running_var.repeat(len(ghosts), 1)
        outputs = [self._batch_norm(*each) for each in zip(ghosts, means, variances, strict=True)]
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        return torch.cat(outputs)

    def _batch_norm(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(
            x, mean, variance, self.weight, self.bias, self.training, self.momentum, self.eps
        )


@Facts(
    name="batch_renorm",
    title="Batch Renormalization",
    paper="Ioffe 2017, arXiv 1702.03275",
    when="as bn, for small or non-i.i.d. batches",
    formula="y = γ ((x - μB) / σB · r + d) + β,  r = σB/σ within 1/rmax..rmax, d = (μB - μ)/σ "
    "within ±dmax, both held constant in the gradient;  μB and σB are the batch's, σB² with ε "
    "added, μ and σ their running averages;  in evaluation y = γ (x - μ) / σ + β",
    axes=("N,H,W",),
    parameters="2C",
    reads="eps affine momentum rmax dmax renorm_from rmax_at dmax_at",
)
class BatchRenorm(Norm):
    """To the running averages each batch adds with weight ``momentum`` (the paper's α, 0.01 there)
    after it was normalized.

    Until the fraction ``renorm_from`` of training it is BatchNorm (rmax 1, dmax 0); from there
    the bounds grow linearly, to be whole at ``rmax_at`` and ``dmax_at``. (The paper: 5,000,
    40,000 and 25,000 steps of about 130,000.) The trainer tells the fraction with
    :meth:`at_fraction`; a layer that is never told has its whole bounds.
    """

    running_mean: Tensor
    running_std: Tensor
    r_bound: Tensor
    d_bound: Tensor

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.eps, self.momentum = norm.eps, norm.momentum
        self.rmax, self.dmax = norm.rmax, norm.dmax
        self.renorm_from, self.rmax_at, self.dmax_at = norm.renorm_from, norm.rmax_at, norm.dmax_at
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_std", torch.ones(channels))
        # On the device, so that a step recorded as a CUDA graph sees them change; not saved,
        # because they follow from the fraction of training.
        self.register_buffer("r_bound", torch.tensor(float(self.rmax)), persistent=False)
        self.register_buffer("d_bound", torch.tensor(float(self.dmax)), persistent=False)
        self._bounds: tuple[float, float] | None = None

    def at_fraction(self, fraction: float) -> None:
        """Set the bounds for when this fraction (0..1) of training is done."""

        def risen(whole_at: float) -> float:
            if fraction >= whole_at:
                return 1.0
            if fraction <= self.renorm_from:
                return 0.0
            return (fraction - self.renorm_from) / (whole_at - self.renorm_from)

        bounds = (1 + (self.rmax - 1) * risen(self.rmax_at), self.dmax * risen(self.dmax_at))
        if bounds != self._bounds:
            self._bounds = bounds
            self.r_bound.fill_(bounds[0])
            self.d_bound.fill_(bounds[1])

    def by_whole_batch(self, whole: bool) -> None:
        if whole:
            self.r_bound.fill_(1.0)
            self.d_bound.fill_(0.0)

    def normalize(self, x: Tensor) -> Tensor:
        if not self.training:
            centred = x - per_channel(self.running_mean, x)
            return self.scale_and_shift(centred, per_channel(1 / self.running_std, x))
        with torch.no_grad():
            mean, variance = moments(x)
            std = (variance + self.eps).sqrt()
            r = (std / self.running_std).clamp(1 / self.r_bound, self.r_bound)
            d = ((mean - self.running_mean) / self.running_std).clamp(-self.d_bound, self.d_bound)
            update_average(self.running_mean, mean, self.momentum)
            update_average(self.running_std, std, self.momentum)
        # γ(x̂r + d) + β is BatchNorm with the scale γr and the shift γd + β.
        if self.weight is not None and self.bias is not None:
            r, d = self.weight * r, self.weight * d + self.bias
        return F.batch_norm(x, None, None, r.to(x.dtype), d.to(x.dtype), True, 0.0, self.eps)
