"""GroupNorm, and with it LayerNorm over C,H,W and InstanceNorm, at speeds near BatchNorm's."""

import torch
from torch import Tensor, nn

from normexp.config.schema import NormConfig
from normexp.norms.catalogue import Facts
from normexp.norms.position_statistics import LayerNorm2d
from normexp.norms.rules import groups_of


class GroupNorm(nn.GroupNorm):
    """GroupNorm of (N,C,H,W) or (N,C), layouts kept.

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


@Facts(
    name="ln",
    title="LayerNorm",
    paper="Ba et al. 2016, arXiv 1607.06450",
    when="recurrent networks, MLPs; any batch size",
    formula="y = γ (x - μ) / √(σ² + ε) + β",
    axes=("C,H,W",),
    parameters="2C",
    reads="eps affine",
    tokens=True,
)
def layer_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """One scale and one shift a channel, as in the GroupNorm paper, so that all norms have the same
    parameters. ``nn.LayerNorm([C, H, W])`` has C*H*W of each and is another model."""
    if dims == 3:
        return LayerNorm2d(channels, dims, norm)
    return GroupNorm(1, channels, eps=norm.eps, affine=norm.affine)


@Facts(
    name="in",
    title="InstanceNorm",
    paper="Ulyanov et al. 2016, arXiv 1607.08022",
    when="style transfer, image generation",
    formula="y = γ (x - μ) / √(σ² + ε) + β",
    axes=("H,W",),
    parameters="2C",
    reads="eps affine",
)
def instance_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """Without running averages, as most use it."""
    return GroupNorm(channels, channels, eps=norm.eps, affine=norm.affine)


@Facts(
    name="gn",
    title="GroupNorm",
    paper="Wu & He 2018, arXiv 1803.08494",
    when="CNNs with small batches, as in detection",
    formula="y = γ (x - μ) / √(σ² + ε) + β",
    axes=("C/G,H,W",),
    parameters="2C",
    reads="eps affine num_groups channels_per_group",
)
def group_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """Raises a UserError where the channels cannot be split into such groups."""
    return GroupNorm(groups_of(norm, channels), channels, eps=norm.eps, affine=norm.affine)
