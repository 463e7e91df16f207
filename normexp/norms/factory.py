"""The norm factory: the one place that turns a norm's name into a layer.

A norm of your own is a function with the signature of those below, in a file on the path, and one
line of YAML, ``name: module:function``. A layer whose attribute ``contains_activation`` is true
stands in the place of the ReLU after it as well.
"""

import importlib
import inspect
from collections.abc import Callable

import torch
from torch import nn

from normexp.config.schema import NormConfig
from normexp.norms.batch_statistics import BatchRenorm, GhostBatchNorm
from normexp.norms.group_norm import GroupNorm
from normexp.norms.mixtures import BatchInstanceNorm, SwitchableNorm
from normexp.norms.pointwise import DynamicErf, DynamicTanh
from normexp.norms.position_statistics import LayerNorm2d, RMSNorm2d
from normexp.norms.rules import groups_of
from normexp.norms.with_activation import EvoNormB0, EvoNormS0, FilterResponseNorm
from normexp.system.errors import UserError

NormBuilder = Callable[[int, int, NormConfig], nn.Module]

TAKES = "it must be a function (channels, dims, norm) that gives a torch.nn.Module"


def no_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """The control: passes its input on."""
    return nn.Identity()


def batch_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """BatchNorm (Ioffe & Szegedy 2015, arXiv 1502.03167): over N,H,W of (N,C,H,W), N of (N,C).

    In training the batch's mean and biased variance; in evaluation running averages, whose
    variance is unbiased and to which each batch adds with weight ``norm.momentum``.
    """
    layer = nn.BatchNorm2d if dims == 4 else nn.BatchNorm1d
    return layer(channels, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)


def sync_batch_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """BatchNorm over the batches of all processes that train together; torch has it on CUDA only.

    See :func:`batch_norm`; with one process the two are the same.
    """
    return nn.SyncBatchNorm(channels, eps=norm.eps, momentum=norm.momentum, affine=norm.affine)


def layer_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016, arXiv 1607.06450): over C,H,W of (N,C,H,W), C of (N,C).

    One scale and one shift a channel, as in the GroupNorm paper, so that all norms have the same
    parameters. ``nn.LayerNorm([C, H, W])`` has C*H*W of each and is another model.
    """
    return GroupNorm(1, channels, eps=norm.eps, affine=norm.affine)


def instance_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """InstanceNorm (Ulyanov et al. 2016, arXiv 1607.08022): over H,W of (N,C,H,W).

    Raises:
        UserError: (N,C) has no positions to average over.
    """
    if dims == 2:
        raise UserError("norm=in: there are no positions to average over; use norm=ln or norm=gn")
    return GroupNorm(channels, channels, eps=norm.eps, affine=norm.affine)


def group_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """GroupNorm (Wu & He 2018, arXiv 1803.08494): over (C/G),H,W of each group, or C/G of (N,C).

    Raises:
        UserError: the channels cannot be split into such groups.
    """
    return GroupNorm(groups_of(norm, channels), channels, eps=norm.eps, affine=norm.affine)


def ghost_batch_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """BatchNorm of parts of a batch: :class:`GhostBatchNorm`."""
    return GhostBatchNorm(channels, norm.ghost_batch_size, norm.eps, norm.momentum, norm.affine)


def batch_renorm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """BatchNorm corrected by its running averages: :class:`BatchRenorm`."""
    return BatchRenorm(
        channels, norm.eps, norm.momentum, norm.affine, norm.rmax, norm.dmax,
        norm.renorm_from, norm.rmax_at, norm.dmax_at,
    )  # fmt: skip


def layer_norm_2d(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """LayerNorm at each position: :class:`LayerNorm2d`."""
    return LayerNorm2d(channels, norm.eps, norm.affine)


def rms_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """RMSNorm at each position: :class:`RMSNorm2d`."""
    return RMSNorm2d(channels, norm.eps, norm.affine)


def filter_response_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """Filter Response Normalization with its activation: :class:`FilterResponseNorm`."""
    _demand_positions(dims, norm)
    return FilterResponseNorm(channels, norm.eps, norm.affine)


def evonorm_s0(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """EvoNorm over groups of channels: :class:`EvoNormS0`."""
    return EvoNormS0(channels, groups_of(norm, channels), norm.eps, norm.affine)


def evonorm_b0(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """EvoNorm over the batch: :class:`EvoNormB0`."""
    _demand_positions(dims, norm)
    return EvoNormB0(channels, norm.eps, norm.momentum, norm.affine)


def dynamic_tanh(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """No statistics, a tanh: :class:`DynamicTanh`."""
    return DynamicTanh(channels, norm.alpha_init, norm.affine)


def dynamic_erf(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """No statistics, an erf: :class:`DynamicErf`."""
    return DynamicErf(channels, norm.alpha_init, norm.affine)


def switchable_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """A learned mixture of IN, LN and BN: :class:`SwitchableNorm`."""
    _demand_positions(dims, norm)
    return SwitchableNorm(channels, norm.eps, norm.momentum, norm.affine)


def batch_instance_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """A learned mixture of BN and IN, by channel: :class:`BatchInstanceNorm`."""
    _demand_positions(dims, norm)
    return BatchInstanceNorm(channels, norm.eps, norm.momentum, norm.affine)


def _demand_positions(dims: int, norm: NormConfig) -> None:
    if dims == 2:
        raise UserError(
            f"norm={norm.name}: there are no positions to average over; use norm=ln or norm=gn"
        )


NORMS: dict[str, NormBuilder] = {
    "none": no_norm,
    "bn": batch_norm,
    "syncbn": sync_batch_norm,
    "ln": layer_norm,
    "in": instance_norm,
    "gn": group_norm,
    "ghost_bn": ghost_batch_norm,
    "batch_renorm": batch_renorm,
    "ln2d": layer_norm_2d,
    "rms": rms_norm,
    "frn": filter_response_norm,
    "evonorm_s0": evonorm_s0,
    "evonorm_b0": evonorm_b0,
    "dyt": dynamic_tanh,
    "derf": dynamic_erf,
    "switchable": switchable_norm,
    "batch_instance": batch_instance_norm,
}


def build_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """Build the norm that the configuration names.

    Args:
        channels: C of the input.
        dims: 4 for inputs (N,C,H,W), 2 for (N,C).
        norm: name and settings.

    Raises:
        UserError: the name is unknown or the norm cannot work on such inputs.
    """
    builder = NORMS.get(norm.name) or own_norm(norm.name)
    # A norm draws nothing from the stream of initial weights, whatever its author does: the
    # layers after it start the same for every norm.
    with torch.random.fork_rng(devices=[]):
        built = builder(channels, dims, norm)
    if not isinstance(built, nn.Module):
        raise UserError(f"norm={norm.name}: gives {type(built).__name__}; {TAKES}")
    return built


def own_norm(name: str) -> NormBuilder:
    """The function of a norm of one's own, imported.

    Raises:
        UserError: there is none, or it takes other arguments.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(
            f"norm={name}: {error}; known are {' '.join(NORMS)}, "
            "and module:function for one of your own"
        ) from error
    if not callable(found):
        raise UserError(f"norm={name}: is {type(found).__name__}; {TAKES}")
    try:
        inspect.signature(found).bind(1, 4, NormConfig(name=name))
    except TypeError as error:
        raise UserError(f"norm={name}: {function}{_takes(found)} does not fit; {TAKES}") from error
    except ValueError:
        pass  # of a function in C nothing is known
    builder: NormBuilder = found
    return builder


def _takes(function: Callable[..., object]) -> str:
    """Its arguments as they are written, in one line."""
    return " ".join(str(inspect.signature(function)).split())
