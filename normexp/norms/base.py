"""What the norms written here share: full precision, a scale and a shift, blocks of channels."""

import torch
from torch import Tensor, nn


class Norm(nn.Module):
    """A norm with one scale and one shift a channel, for inputs (N,C) or (N,C,H,W).

    It computes in fp32, or in fp64 if its input is that, and answers in the input's dtype.

    Several networks can be trained as one of S·C channels, a block of C for each network. A
    subclass that has ``for_seeds(seeds)`` returns a layer of the same settings for such an input,
    in which every block is normalized as by its own layer. Its parameters and buffers are those
    of the separate layers one after another, so none may be 0-dimensional unless shared by all.
    """

    contains_activation = False
    """Whether it stands in the place of the activation that follows a norm."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.channels = channels
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        full = x.float() if x.dtype.itemsize < 4 else x
        return self.normalize(full).to(x.dtype)

    def normalize(self, x: Tensor) -> Tensor:
        """The norm of an input in fp32 or fp64."""
        raise NotImplementedError

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


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (C) or (N,C) shaped to be combined with an input (N,C) or (N,C,H,W)."""
    return values.reshape(*values.shape, *[1] * (x.dim() - 2))


def pooled_axes(x: Tensor) -> tuple[int, ...]:
    """The axes of a batch's statistics: N,H,W of (N,C,H,W), N of (N,C)."""
    return (0, *range(2, x.dim()))


def update_average(average: Tensor, new: Tensor, momentum: float) -> None:
    """Move a running average in place; the new value has the weight ``momentum``."""
    average.lerp_(new.detach().to(average.dtype), momentum)
