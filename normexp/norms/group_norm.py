"""GroupNorm, and with it LayerNorm over C,H,W and InstanceNorm, at speeds near BatchNorm's."""

import torch
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """GroupNorm (Wu & He 2018, arXiv 1803.08494) of (N,C,H,W) or (N,C), layouts kept.

    With one group it is LayerNorm over C,H,W, with C groups InstanceNorm. The same as
    ``nn.GroupNorm`` to rounding; statistics are in fp32 whatever the precision.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _in_short_groups(x, x.shape[1] // self.num_groups):
            normalized: Tensor = super().forward(x.contiguous())
            return normalized.contiguous(memory_format=torch.channels_last)
        return super().forward(x)

    def for_seeds(self, seeds: int) -> "GroupNorm":
        """The layer for (N, seeds*C, ...), which normalizes each seed's C channels by themselves;
        its parameters are those of the seeds one after another."""
        return GroupNorm(seeds * self.num_groups, seeds * self.num_channels, self.eps, self.affine)


def _in_short_groups(x: Tensor, size: int) -> bool:
    """Whether copies to and from a contiguous layout cost less than groups of ``size`` channels do
    in channels_last.

    torch's CPU kernel walks there through the channels of each position group by group, slowly
    where a group does not fill its vectors (by measurement below 16 channels in half precision,
    and for single channels in fp32). It also takes the variance as E[x^2] - E[x]^2, which loses
    digits in channels far from 0; that matters most where each channel is normalized by itself.
    """
    if x.device.type != "cpu" or x.ndim != 4 or x.is_contiguous():
        return False
    shortest = 16 if x.dtype.itemsize == 2 else 2
    return size < shortest and x.is_contiguous(memory_format=torch.channels_last)
