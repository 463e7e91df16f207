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
        if _by_squares(x):
            x = x - _near_means(x.detach(), self.num_groups)
        output: Tensor = super().forward(x)
        return output

    def for_seeds(self, seeds: int) -> "GroupNorm":
        """The layer for (N, seeds*C, ...), which normalizes each seed's C channels by themselves;
        its parameters are those of the seeds one after another."""
        return GroupNorm(seeds * self.num_groups, seeds * self.num_channels, self.eps, self.affine)


def _in_short_groups(x: Tensor, size: int) -> bool:
    """Whether copies to and from a contiguous layout cost less than groups of ``size`` channels do
    in channels_last.

    torch's CPU kernel walks there through the channels of each position group by group, slowly
    where a group does not fill its vectors (by measurement below 16 channels in half precision,
    and for single channels in fp32).
    """
    return size < (16 if x.dtype.itemsize == 2 else 2) and _by_squares(x)


def _by_squares(x: Tensor) -> bool:
    """Whether torch's kernel takes the variance as E[x²] - E[x]², as on a CPU in channels_last:
    exact near 0, but by a tenth of a standard deviation off where the mean is 1000 of them."""
    if x.device.type != "cpu" or x.ndim != 4 or x.is_contiguous():
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


def _near_means(x: Tensor, groups: int) -> Tensor:
    """A number near the mean of each group of each image, (N,C,1,1): a group is normalized to the
    same whatever is taken from all of it, and its gradient is the same.

    Of every fourth row and column: as these are a 16th of the values or more, it is at most four
    standard deviations from the mean, whatever the values are, so that no digits are lost. In half
    precision differences are rounded, unless they are small beside the values: 0 where these are
    not far from it.
    """
    count, channels = x.shape[:2]
    some = x[:, :, ::4, ::4]
    if x.dtype.itemsize == 2:
        apart = some.float().unflatten(1, (groups, -1))
        deviation, means = torch.std_mean(apart, (2, 3, 4), correction=0)
        means = (means * (means.abs() > 8 * deviation)).to(x.dtype).unsqueeze(2)
    else:
        means = some.mean((2, 3)).view(count, groups, -1).mean(2, keepdim=True)
    return means.expand(-1, -1, channels // groups).reshape(count, channels, 1, 1)


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
