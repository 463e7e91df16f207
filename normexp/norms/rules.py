"""What each norm reads from the configuration and where it cannot work, told without torch."""

import difflib
import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from normexp.config import NormConfig
from normexp.errors import UserError

BUILT_IN = ("none", "bn", "syncbn", "ln", "in", "gn")
DEFAULT_GROUPS = 4

# Settings that not every norm reads; one's own norms may read any.
READ_BY = {
    "num_groups": ("gn",),
    "channels_per_group": ("gn",),
    "momentum": ("bn", "syncbn"),
    "eps": ("bn", "syncbn", "ln", "in", "gn"),
    "affine": ("bn", "syncbn", "ln", "in", "gn"),
}


@dataclass(frozen=True)
class Site:
    """A place in a network where a norm stands.

    channels: how many channels pass.
    positions: H*W of the maps, or None after a linear layer, whose output has no positions.
    """

    channels: int
    positions: int | None


def settle(norm: NormConfig) -> list[str]:
    """Make implied settings explicit and reset those that this norm does not read.

    Returns:
        One sentence for each setting that was given and is ignored.
    """
    notes = []
    if norm.name in BUILT_IN:
        for item in fields(norm):
            given = getattr(norm, item.name)
            if norm.name not in READ_BY.get(item.name, BUILT_IN) and given != item.default:
                notes.append(f"norm.{item.name}={given} is ignored: {norm.name} does not read it")
                setattr(norm, item.name, item.default)
    if norm.name == "gn" and norm.num_groups is None and norm.channels_per_group is None:
        norm.num_groups = DEFAULT_GROUPS
    return notes


def groups_of(norm: NormConfig, channels: int) -> int:
    """The number of groups GroupNorm uses on this many channels.

    Raises:
        UserError: the channels cannot be split so.
    """
    if norm.num_groups is not None and norm.channels_per_group is not None:
        raise UserError(
            f"norm.num_groups={norm.num_groups} and norm.channels_per_group="
            f"{norm.channels_per_group}: give one of them, not both"
        )
    divisors = [d for d in range(1, channels + 1) if channels % d == 0]
    if norm.channels_per_group is not None:
        size = norm.channels_per_group
        if channels % size:
            raise UserError(
                f"norm.channels_per_group={size}: {channels} channels cannot be split into groups "
                f"of {size}; use one of {divisors}"
            )
        return channels // size
    groups = DEFAULT_GROUPS if norm.num_groups is None else norm.num_groups
    if channels % groups:
        raise UserError(
            f"norm.num_groups={groups}: {channels} channels cannot be split into {groups} groups; "
            f"use norm.num_groups= one of {divisors}, or norm.channels_per_group=..."
        )
    return groups


def check(norm: NormConfig, sites: Sequence[Site], batch_size: int) -> None:
    """Refuse a norm that cannot work at one of these places with this batch.

    Raises:
        UserError: one line that names the norm, the reason and the fix.
    """
    if norm.name not in BUILT_IN:
        _own_module(norm)
        return
    for site in sites:
        where = f"{site.channels} channels"
        if norm.name == "gn":
            values = site.channels // groups_of(norm, site.channels) * (site.positions or 1)
            if values == 1:
                raise UserError(
                    f"norm=gn: groups of one value ({where} in {site.channels} groups, no "
                    "positions) always give 0; use fewer groups, such as norm.num_groups=1"
                )
        if norm.name == "ln" and site.channels * (site.positions or 1) == 1:
            raise UserError(
                "norm=ln: one value an image (1 channel, no positions) always gives 0; use more "
                "channels, or norm=bn"
            )
        if norm.name == "in" and site.positions is None:
            raise UserError(
                "norm=in: an MLP has no positions to average over; use norm=ln or norm=gn, "
                "or a convolutional model"
            )
        if norm.name == "in" and site.positions == 1:
            raise UserError(
                f"norm=in: maps of 1x1 ({where}) leave one value to average over; use fewer pools "
                "(model.pool_after) or norm=gn"
            )
        if norm.name in ("bn", "syncbn") and batch_size * (site.positions or 1) == 1:
            raise UserError(
                f"norm={norm.name} batch_size={batch_size}: one value a channel ({where}, no "
                "positions) has no variance; use batch_size=2 or more, or norm=ln or norm=gn"
            )


def normalizes_share(norm: NormConfig) -> bool:
    """Whether the result depends on how many processes share a batch: BN's statistics do, and
    nobody knows of a norm of one's own."""
    return norm.name == "bn" or norm.name not in BUILT_IN


def source_digest(norm: NormConfig) -> str:
    """A hash of the file of a norm of one's own, so that a change of it is another run."""
    if norm.name in BUILT_IN:
        return ""
    return hashlib.sha256(_own_module(norm).read_bytes()).hexdigest()


def _own_module(norm: NormConfig) -> Path:
    """The file of a norm named `module:function`."""
    module, colon, function = norm.name.partition(":")
    if not colon or not function:
        near = difflib.get_close_matches(norm.name, BUILT_IN, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"norm.name={norm.name}: no such norm; {hint}known are {' '.join(BUILT_IN)}, "
            "and module:function for one of your own"
        )
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise UserError(
            f"norm.name={norm.name}: no module {module} on the path; run from its folder "
            "or put that folder into PYTHONPATH"
        )
    return Path(spec.origin)
