"""The control, and the norms that are torch's own layers: BatchNorm, SyncBatchNorm."""

from torch import nn

from normexp.config.schema import NormConfig
from normexp.norms.catalogue import Facts


@Facts(
    name="none",
    title="no normalization",
    paper="the control",
    when="to see what a norm is worth",
    formula="y = x",
    axes=(),
    parameters="0",
    reads="",
    tokens=True,
)
def no_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """Passes its input on."""
    return nn.Identity()


@Facts(
    name="bn",
    title="BatchNorm",
    paper="Ioffe & Szegedy 2015, arXiv 1502.03167",
    when="CNNs with batches of 16 and more",
    formula="y = γ (x - μ) / √(σ² + ε) + β;  in evaluation μ and σ² are running averages",
    axes=("N,H,W",),
    parameters="2C",
    reads="eps affine momentum",
)
def batch_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """In training by the batch's mean and biased variance, in evaluation by running averages, whose
    variance is unbiased and to which each batch adds with weight ``norm.momentum``."""
    layer = nn.BatchNorm2d if dims == 4 else nn.BatchNorm1d
    return layer(channels, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)


@Facts(
    name="syncbn",
    title="BatchNorm over all processes",
    paper="Peng et al. 2018, arXiv 1711.07240",
    when="CNNs with few images on each of many GPUs",
    formula="as bn, over the images of all processes that train together",
    axes=("N,H,W",),
    parameters="2C",
    reads="eps affine momentum",
    all_processes=True,
    refused="CPUs",
)
def sync_batch_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """torch has it on CUDA only; with one process it is :func:`batch_norm`."""
    return nn.SyncBatchNorm(channels, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)
