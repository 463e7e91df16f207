"""What the norms written here share: full precision, a scale and a shift, blocks of channels."""

import torch
from torch import Tensor, nn

from normexp.config.schema import NormConfig


class Norm(nn.Module):
    """A norm with one scale and one shift a channel, for inputs (N,C,H,W), (N,C) or (N,L,C).

    It computes in fp32, or in fp64 if its input is that, and answers in the input's dtype.

    Several networks can be trained as one of S·C channels, a block of C for each network: every
    block is then normalized as by its own layer. A layer's parameters and buffers are those of the
    separate layers one after another, so none may be 0-dimensional unless shared by all.
    """

    contains_activation = False
    """Whether it stands in the place of the activation that follows a norm; its facts say so."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        """
        Args:
            channels: of all networks together.
            dims: of the input; 3 are (N,L,C).
            norm: what a subclass needs of it, it keeps itself.
            seeds: how many networks these are.
        """
        super().__init__()
        self.channels, self.dims, self.norm, self.seeds = channels, dims, norm, seeds
        made = norm.affine
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if made else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if made else None)

    def forward(self, x: Tensor) -> Tensor:
        full = x.float() if x.dtype.itemsize < 4 else x
        if self.dims == 3:
            return self.normalize(full.movedim(2, 1)).movedim(1, 2).to(x.dtype)
        return self.normalize(full).to(x.dtype)

    def normalize(self, x: Tensor) -> Tensor:
        """The norm of an input in fp32 or fp64, its channels second."""
        raise NotImplementedError

    def for_seeds(self, seeds: int) -> nn.Module:
        """A layer of the same settings for that many networks as one."""
        return type(self)(seeds * self.channels, self.dims, self.norm, seeds)

    def by_whole_batch(self, whole: bool) -> None:
        """Let training mode take the statistics of all images of a batch, as BatchNorm does, or
        what it takes otherwise. Buffers that this changes are put back by the caller."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the variance (C,) of a batch that its running averages are of."""
        return moments(x)

    def scale_and_shift(self, x: Tensor, factor: Tensor | None = None) -> Tensor:
        """γ·factor·x + β, without γ and β where the norm has none.

        Args:
            factor: (N,C,1,1), (1,C,1,1) or the like: smaller than x, so that it joins γ first.
        """
        if self.weight is not None:
            weight = per_channel(self.weight, x)
            factor = weight if factor is None else factor * weight
        if factor is None:
            return x
        return x * factor if self.bias is None else per_channel(self.bias, x).addcmul(x, factor)


class Averaging(Norm):
    """A norm with running averages of a mean and a variance, which evaluation uses."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, dims: int, norm: NormConfig, seeds: int = 1) -> None:
        super().__init__(channels, dims, norm, seeds)
        self.eps, self.momentum = norm.eps, norm.momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (C) or (N,C) shaped to be combined with an input (N,C) or (N,C,H,W)."""
    return values.reshape(*values.shape, *[1] * (x.dim() - 2))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of a batch."""
    variance, mean = torch.var_mean(x, pooled_axes(x), correction=0)
    return mean, variance


def pooled_axes(x: Tensor) -> tuple[int, ...]:
    """The axes of a batch's statistics: N,H,W of (N,C,H,W), N of (N,C)."""
    return (0, *range(2, x.dim()))


def update_average(average: Tensor, new: Tensor, momentum: float) -> None:
    """Move a running average in place; the new value has the weight ``momentum``."""
    average.lerp_(new.detach().to(average.dtype), momentum)
