"""Several networks of one shape as one network of grouped layers.

A step of a small network costs mostly the calls it is made of; grouped layers make as many calls
for S networks as for one. Networks know nothing of it: layers are replaced, the way data takes
through them stays. Between layers the S networks lie side by side in the channels, (N,S*C,H,W),
(N,S*C) or (N,H,W,S*C), the channels of the first network first.

An author's ``forward`` may do anything with channels, concatenate or shuffle them, so that layers
that can be grouped do not make a network that can: :mod:`normexp.models.proof` tells.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from normexp.models.side_by_side import DrawnApart, SideBySideLayerNorm, SideBySideLinear
from normexp.models.streams import Stream

# Layers that are the same layer for several networks, but for these counts.
COUNTS: dict[type[nn.Module], tuple[str, ...]] = {
    _ConvNd: ("in_channels", "out_channels", "groups"),
    _NormBase: ("num_features",),
    nn.GroupNorm: ("num_groups", "num_channels"),
}

# Layers beside torch's Dropouts that draw: of torchvision and of timm.
DRAWING = ("StochasticDepth", "DropPath")


class CannotFuse(Exception):
    """Several networks cannot be made one; why, in one line."""


def fuse(networks: Sequence[nn.Module], streams: list[Stream] | None = None) -> nn.Module:
    """One network of grouped layers, each network with its own weights.

    It takes (N,S*C,H,W) and gives (N,S*classes). The weights and buffers of the given networks
    become views into its own, so that training it trains them; each can still be used alone.
    Whether it computes what they compute, :func:`normexp.models.proof.prove` tells.

    Args:
        networks: S networks of the same layers, on one device.
        streams: of each network, for layers that draw; they are moved on there.

    Raises:
        CannotFuse: of one of their layers several cannot be made one; the message names it.
    """
    with torch.device("meta"):  # draws no weights, takes no memory
        fused = _together(networks[0], len(networks), streams, {})
    for name, _ in list(fused.named_parameters(remove_duplicate=False)):
        parts = [network.get_parameter(name) for network in networks]
        _replace(fused, name, nn.Parameter(_join(parts), requires_grad=parts[0].requires_grad))
    for name, _ in list(fused.named_buffers(remove_duplicate=False)):
        _replace(fused, name, _join([network.get_buffer(name) for network in networks]))
    return fused


def _together(
    layer: nn.Module, count: int, streams: list[Stream] | None, done: dict[int, nn.Module]
) -> nn.Module:
    """The layer that so many of this one make, its parameters and buffers yet to be set.

    Args:
        done: by identity, since a layer may stand in several places.
    """
    if id(layer) not in done:
        done[id(layer)] = _layer(layer, count, streams, done)
    return done[id(layer)]


def _layer(
    layer: nn.Module, count: int, streams: list[Stream] | None, done: dict[int, nn.Module]
) -> nn.Module:
    for_seeds: Any = getattr(layer, "for_seeds", None)  # the norms of this project have it
    if for_seeds is not None:
        made: nn.Module = for_seeds(count)
        return made
    if isinstance(layer, nn.Linear):
        return SideBySideLinear(count, layer)
    if isinstance(layer, nn.LayerNorm):
        return SideBySideLayerNorm(count, layer, "2d" in type(layer).__name__)
    if _draws(layer):
        if streams is None:
            raise CannotFuse(f"{type(layer).__name__} draws, and no random streams are given")
        return DrawnApart(layer, streams)
    # What else holds layers, or values of its channels, does the same for one network and for many.
    whole = copy.copy(layer)
    for kind, names in COUNTS.items():
        if isinstance(layer, kind):
            for name in names:
                setattr(whole, name, count * getattr(layer, name))
    if any(own is not None and own.ndim == 0 for own in layer._parameters.values()):
        kind_name = type(layer).__name__
        raise CannotFuse(f"several {kind_name}, which learn a single number, cannot be made one")
    whole._parameters, whole._buffers = dict(layer._parameters), dict(layer._buffers)
    whole._modules = {
        name: None if part is None else _together(part, count, streams, done)
        for name, part in layer._modules.items()
    }
    return whole


def _draws(layer: nn.Module) -> bool:
    """Whether it draws in training; with a probability of 0 none does."""
    if not isinstance(layer, _DropoutNd) and type(layer).__name__ not in DRAWING:
        return False
    return bool(getattr(layer, "p", None) or getattr(layer, "drop_prob", None))


def _join(parts: Sequence[Tensor]) -> Tensor:
    """The tensors one after the other along the first dimension; they become views into it.

    Counters (of no dimension) are the same in all networks and become one.
    """
    whole = parts[0].detach().clone() if parts[0].ndim == 0 else torch.cat([*parts]).detach()
    for part, own in zip(parts, split_evenly(whole, len(parts)), strict=True):
        part.data = own
    return whole


def split_evenly(whole: Tensor, count: int) -> list[Tensor]:
    """What belongs to each of ``count`` networks, as views; a counter belongs to all of them."""
    return [whole] * count if whole.ndim == 0 else list(whole.chunk(count))


def _replace(network: nn.Module, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    table = module._parameters if isinstance(value, nn.Parameter) else module._buffers
    table[leaf] = value  # type: ignore[assignment]
