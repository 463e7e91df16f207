"""Norms put in the place of those of a network that is there."""

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from normexp.config.schema import NormConfig
from normexp.norms import rules
from normexp.norms.catalogue import BUILT_IN
from normexp.norms.factory import build_norm
from normexp.norms.rules import KEEP, Site
from normexp.system.errors import UserError

BY_CHANNEL = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
)
PROBE_IMAGES = 2


def channels_of(layer: nn.Module) -> int | None:
    """How many channels a layer normalizes; None for what is no norm that can be swapped."""
    if isinstance(layer, BY_CHANNEL):
        return int(layer.num_features)
    if isinstance(layer, nn.GroupNorm):
        return int(layer.num_channels)
    if isinstance(layer, nn.LayerNorm):
        return int(layer.normalized_shape[0]) if len(layer.normalized_shape) == 1 else None
    return None


def sites(network: nn.Module, images: Tensor) -> list[Site]:
    """Where the norms of a network stand, by looking at what one pass of images gives them.

    Args:
        images: a small batch as the network takes them, such as (2,3,32,32); it is looked at in
            evaluation mode and left as it was.

    Returns:
        Of each norm that can be swapped, in the order of the network's layers: its name, its
        channels, and whether it sees maps, vectors or tokens. Norms that no image reaches are left
        out.

    Raises:
        UserError: the network cannot take such images.
    """
    seen: dict[str, Tensor] = {}
    hooks, training = [], [(module, module.training) for module in network.modules()]
    for name, layer in network.named_modules(remove_duplicate=False):
        if channels_of(layer) is not None:
            hooks.append(layer.register_forward_pre_hook(_noting(seen, name)))
    try:
        network.eval()
        with torch.no_grad():
            network(images)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        size = "x".join(map(str, images.shape[-2:]))
        raise UserError(
            f"the network does not take images of {size} ({why}); use another data.image_size, or "
            "model.args that tell it the size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training:
            module.training = was
    return [_site(network, name, x) for name, x in seen.items()]


def _noting(seen: dict[str, Tensor], name: str) -> Any:
    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Of a layer that is passed several times the smallest input asks most of a norm.
        if name not in seen or inputs[0].numel() < seen[name].numel():
            seen[name] = inputs[0]

    return note


def _site(network: nn.Module, name: str, x: Tensor) -> Site:
    layer = network.get_submodule(name)
    channels = channels_of(layer)
    assert channels is not None
    last = isinstance(layer, nn.LayerNorm) and _takes_last_axis(layer, channels, x)
    if x.ndim == 2:
        return Site(name, channels, None, activated=False)
    if last:
        return Site(name, channels, x[0].numel() // channels, activated=False, tokens=True)
    return Site(name, channels, x[0].numel() // channels, activated=False)


def _takes_last_axis(layer: nn.LayerNorm, channels: int, x: Tensor) -> bool:
    """Whether a LayerNorm normalizes the last axis, or is one of those for maps (N,C,H,W), which
    are of the same class in timm and torchvision. The input's shape cannot tell where H or L is C
    too, so the layer is asked, with axes that are all of other lengths."""
    if type(layer) is nn.LayerNorm:
        return True
    try:
        with torch.no_grad():
            layer(x.new_zeros(1, channels + 1, channels + 2, channels))
    except (RuntimeError, ValueError, IndexError):
        return False
    return True


def try_training(network: nn.Module, images: Tensor, what: str) -> None:
    """Pass images through a network in training mode; it is left in it, its averages moved.

    Args:
        what: the settings that it is of, for the message.

    Raises:
        UserError: it cannot be trained with batches of so many such images.
    """
    try:
        with torch.no_grad():
            network.train()(images)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what}: cannot be trained so ({why}); use another of them") from error


class OnTokens(nn.Module):
    """A norm of tokens (N,L,C) on (N,...,C), whatever lies between."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.norm(x.flatten(1, -2))
        return normalized.view_as(x)


def swap(network: nn.Module, norm: NormConfig, where: list[Site]) -> str:
    """Put a norm in the place of each of a network's own, with as many channels; γ, β and running
    statistics are kept where they have the same shape.

    Args:
        where: of :func:`sites`.

    Returns:
        What was swapped, in words.

    Raises:
        UserError: the norm cannot work at one of the places, which it names.
    """
    if norm.name == KEEP:
        return ""
    if not where:
        raise UserError("the network has no norms that could be swapped; use norm=keep")
    left = _left(network, where)
    rules.check(norm, where, norm.ghost_batch_size)  # a batch that no norm refuses for its size
    done: Counter[tuple[str, str]] = Counter()
    groups: dict[tuple[str, str], set[int]] = {}
    shared: dict[nn.Module, nn.Module] = {}
    for own, site in zip(rules.at_sites(norm, len(where)), where, strict=True):
        old = network.get_submodule(site.name)
        if old in shared:  # one norm in several places stays one
            network.set_submodule(site.name, shared[old])
            continue
        new = _at_site(own, site)
        _take_over(old, new)
        made = new.norm if isinstance(new, OnTokens) else new
        shared[old] = _with_activation(old, new).train(old.training)
        network.set_submodule(site.name, shared[old])
        kind = (
            type(old).__name__,
            "nothing" if isinstance(made, nn.Identity) else type(made).__name__,
        )
        done[kind] += 1
        if own.name == "gn":
            groups.setdefault(kind, set()).add(rules.groups_of(own, site.channels))
    for layer in network.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            # In evaluation mode torch computes these as a whole, with LayerNorm whatever norm1 is.
            layer.activation_relu_or_gelu = 0
    parts = []
    for (before, after), count in done.items():
        found = sorted(groups.get((before, after), ()))
        each = (
            f" ({found[0]}{f' to {found[-1]}' if len(found) > 1 else ''} groups)" if found else ""
        )
        parts.append(f"{count} {before} -> {after}{each}")
    if left:
        parts.append("left as they are: " + ", ".join(f"{n} {kind}" for kind, n in left.items()))
    return ", ".join(parts)


def _left(network: nn.Module, where: list[Site]) -> Counter[str]:
    """Kinds of layers that are called norms and are not swapped: none knows them, or no image of
    an evaluation reaches them."""
    swapped = {site.name for site in where}
    return Counter(
        type(layer).__name__
        for name, layer in network.named_modules()
        if "norm" in type(layer).__name__.lower()
        and not [*layer.children()]
        and name not in swapped
    )


def _at_site(norm: NormConfig, site: Site) -> nn.Module:
    layer = build_norm(site.channels, site.dims, norm)
    if getattr(layer, "contains_activation", False):
        raise rules.activation_where_none_follows(norm, site.name)
    return OnTokens(layer) if site.tokens else layer


def _take_over(old: nn.Module, new: nn.Module) -> None:
    """Give a norm what the one before it has learned, as far as it has the like, and its place,
    precision and whether it is trained."""
    parameters = [*old.parameters()]
    if parameters:
        new.to(device=parameters[0].device, dtype=parameters[0].dtype)
        if not any(one.requires_grad for one in parameters):
            new.requires_grad_(False)
    own = (new.norm if isinstance(new, OnTokens) else new).state_dict()
    before = old.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            if name in before and before[name].shape == value.shape:
                value.copy_(before[name])


def _with_activation(old: nn.Module, new: nn.Module) -> nn.Module:
    """timm's norms bring the dropout and the activation that follow them."""
    after = [getattr(old, name, None) for name in ("drop", "act")]
    found = [one for one in after if isinstance(one, nn.Module) and type(one) is not nn.Identity]
    return nn.Sequential(new, *found) if found else new


def norm(name: str, channels: int, dims: int = 4, **settings: Any) -> nn.Module:
    """See :func:`normexp.norm`."""
    return build_norm(channels, dims, config(name, settings))


def config(name: str, settings: dict[str, Any]) -> NormConfig:
    """The settings of a norm, as norm.* has them.

    Raises:
        UserError: there is no such norm or setting.
    """
    if name != KEEP and name not in BUILT_IN and ":" not in name:
        raise rules.unknown_norm(name)
    try:
        made = replace(NormConfig(name=name), **settings)
    except TypeError as error:
        known = ", ".join(each for each in vars(NormConfig(name=name)) if each != "name")
        raise UserError(f"norm={name}: {error}; known are {known}") from error
    rules.settle(made)
    return made
