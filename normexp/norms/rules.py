"""What each norm reads from the configuration and where it cannot work, told without torch."""

import difflib
import hashlib
import importlib.util
import math
import os
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from site import getsitepackages, getusersitepackages

from normexp.config.schema import NormConfig
from normexp.norms.catalogue import CATALOGUE
from normexp.system.errors import UserError
from normexp.system.foreign_files import RECORD, read_bytes

BUILT_IN = tuple(CATALOGUE)
DEFAULT_GROUPS = 4

# One's own norms may read any setting.
READ_BY_ALL = ("name", "weight_standardization")


@dataclass(frozen=True)
class Site:
    """A place in a network where a norm stands.

    channels: how many channels pass.
    positions: H*W of the maps, or None after a linear layer, whose output has no positions.
    activated: whether a ReLU follows, in whose place a norm may stand that contains an activation.
    """

    channels: int
    positions: int | None
    activated: bool = True


def settle(norm: NormConfig) -> list[str]:
    """Make implied settings explicit and reset those that this norm does not read.

    Returns:
        One sentence for each setting that was given and is ignored.
    """
    notes = []
    if norm.name in BUILT_IN:
        for item in fields(norm):
            given = getattr(norm, item.name)
            read = item.name in (*READ_BY_ALL, *CATALOGUE[norm.name].settings)
            if not read and given != item.default:
                notes.append(f"norm.{item.name}={given} is ignored: {norm.name} does not read it")
                setattr(norm, item.name, item.default)
    if _has_groups(norm) and norm.num_groups is None and norm.channels_per_group is None:
        norm.num_groups = DEFAULT_GROUPS
    return notes


def _has_groups(norm: NormConfig) -> bool:
    return norm.name in BUILT_IN and "num_groups" in CATALOGUE[norm.name].settings


def groups_of(norm: NormConfig, channels: int) -> int:
    """The number of groups that a norm with groups has on this many channels.

    Raises:
        UserError: the channels cannot be split so.
    """
    if norm.num_groups is not None and norm.channels_per_group is not None:
        raise UserError(
            f"norm.num_groups={norm.num_groups} and norm.channels_per_group="
            f"{norm.channels_per_group}: give one of them, not both"
        )
    if isinstance(norm.num_groups, list):
        raise UserError(
            f"norm.num_groups={norm.num_groups}: a list is for the norms of a network, one number "
            "for each; here give one number"
        )
    if norm.channels_per_group is not None:
        size = norm.channels_per_group
        if channels % size:
            raise UserError(
                f"norm.channels_per_group={size}: {channels} channels cannot be split into groups "
                f"of {size}; use one of {_divisors(channels)}"
            )
        return channels // size
    groups = DEFAULT_GROUPS if norm.num_groups is None else norm.num_groups
    if channels % groups:
        raise UserError(
            f"norm.num_groups={groups}: {channels} channels cannot be split into {groups} groups; "
            f"use norm.num_groups= one of {_divisors(channels)}, or norm.channels_per_group=..."
        )
    return groups


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return sorted({*small, *(number // each for each in small)})


def at_sites(norm: NormConfig, count: int) -> list[NormConfig]:
    """The settings of each of the ``count`` norms of a network, in order.

    Raises:
        UserError: a list of groups has another length.
    """
    groups = norm.num_groups
    if not isinstance(groups, list):
        return [norm] * count
    if len(groups) != count:
        raise UserError(
            f"norm.num_groups={groups}: the network has {count} norms; give as many numbers, or "
            "one for all"
        )
    return [replace(norm, num_groups=number) for number in groups]


def check(norm: NormConfig, sites: Sequence[Site], batch_size: int, ranks: int = 1) -> None:
    """Refuse a norm that cannot work at one of these places with this batch.

    Args:
        ranks: how many processes share the batch.

    Raises:
        UserError: one line that names the norm, the reason and the fix.
    """
    if norm.weight_standardization:
        _check_weight_standardization(norm, sites)
    if norm.name not in BUILT_IN:
        own_module(norm)
        return
    for own, site in zip(at_sites(norm, len(sites)), sites, strict=True):
        _check_activation(own, site)
        _check_positions(own, site)
        _check_group(own, site)
        _check_batch(own, site, batch_size, ranks if normalizes_share(norm) else 1)


def _check_weight_standardization(norm: NormConfig, sites: Sequence[Site]) -> None:
    given = "norm.weight_standardization=true"
    if any(site.positions is None for site in sites):
        raise UserError(
            f"{given}: an MLP has no convolutions; leave it out, or use a convolutional model"
        )
    if norm.name == "none":
        raise UserError(
            f"{given}: with norm=none nothing sets the scale of what such weights give; leave it "
            "out, or use norm=gn"
        )


def _check_activation(norm: NormConfig, site: Site) -> None:
    """Refuse norms with a built-in activation where none follows a norm.

    What they are without it is not agreed on: of EvoNorm a scale and a shift are left in some code
    (timm's), in other code a norm too.
    """
    if CATALOGUE[norm.name].contains_activation and not site.activated:
        raise activation_where_none_follows(norm)


def activation_where_none_follows(norm: NormConfig) -> UserError:
    """The refusal of a norm with a built-in activation in a residual network."""
    return UserError(
        f"norm={norm.name}: contains the activation, but after the last norm of a residual block "
        "comes an addition; use norm=gn, ln or bn, or a network without shortcuts (simple_cnn)"
    )


def _check_positions(norm: NormConfig, site: Site) -> None:
    """Refuse norms over H,W where there is one position or none."""
    entry = CATALOGUE[norm.name]
    if entry.vectors is not None:
        return
    if site.positions is None:
        raise UserError(
            f"norm={norm.name}: an MLP has no positions to average over; use norm=ln or norm=gn, "
            "or a convolutional model"
        )
    if site.positions == 1:
        raise UserError(
            f"norm={norm.name}: maps of 1x1 ({site.channels} channels) leave one value to average "
            "over; use larger images, fewer pools (model.pool_after), model.stem=cifar, or norm=gn"
        )


def _check_group(norm: NormConfig, site: Site) -> None:
    """Refuse norms over channels where one image leaves one value."""
    positions = site.positions or 1
    if _has_groups(norm) and site.channels // groups_of(norm, site.channels) * positions == 1:
        raise UserError(
            f"norm={norm.name}: groups of one value ({site.channels} channels in {site.channels} "
            "groups, no positions) always give 0; use fewer groups, such as norm.num_groups=1"
        )
    if norm.name == "ln" and site.channels * positions == 1:
        raise UserError(
            "norm=ln: one value an image (1 channel, no positions) always gives 0; use more "
            "channels, or norm=bn"
        )
    if norm.name in ("ln2d", "rms") and site.channels == 1:
        raise UserError(
            f"norm={norm.name}: one value a position (1 channel) leaves at most its sign; use more "
            "channels, or norm=bn"
        )


def _check_batch(norm: NormConfig, site: Site, batch_size: int, ranks: int) -> None:
    """Refuse norms over the batch, or its share of each process, where a channel has one value."""
    share = batch_size // ranks
    each = f"each of {ranks} processes has " if ranks > 1 else ""
    if norm.name == "ghost_bn" and share > norm.ghost_batch_size:
        if share % norm.ghost_batch_size:
            raise UserError(
                f"norm.ghost_batch_size={norm.ghost_batch_size}: {each}{share} images, which "
                f"cannot be split into such ghost batches; use one of {_divisors(share)}"
            )
        if norm.ghost_batch_size * (site.positions or 1) == 1:
            raise UserError(
                f"norm.ghost_batch_size=1: one value a channel ({site.channels} channels, no "
                "positions) has no variance; use norm.ghost_batch_size=2 or more"
            )
    if CATALOGUE[norm.name].uses_batch and max(share, 1) * (site.positions or 1) == 1:
        raise UserError(
            f"norm={norm.name} batch_size={batch_size}: {each}one value a channel ({site.channels} "
            f"channels, no positions), which has no variance; use batch_size={2 * ranks} or more, "
            "or norm=ln or norm=gn"
        )


def normalizes_share(norm: NormConfig) -> bool:
    """Whether the result depends on how many processes share a batch: statistics over a batch do,
    unless they are those of all processes, and nobody knows of a norm of one's own."""
    return norm.name not in BUILT_IN or (CATALOGUE[norm.name].uses_batch and norm.name != "syncbn")


def source_digest(norm: NormConfig) -> str:
    """A hash of the file of a norm of one's own, so that a change of it is another run.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if norm.name in BUILT_IN:
        return ""
    file = own_module(norm)
    try:
        return hashlib.sha256(read_bytes(file, RECORD)).hexdigest()
    except OSError as error:
        raise UserError(
            f"norm={norm.name}: cannot read {file}: {error.strerror}; make it readable"
        ) from error


def installed(file: Path) -> bool:
    """Whether a module is of Python or of a package that was installed, and no file of a person."""
    known = sysconfig.get_paths()
    places = [known[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places += [*getsitepackages(), getusersitepackages(), str(Path(__file__).parents[1])]
    real = Path(os.path.realpath(file))
    return (
        any(real.is_relative_to(os.path.realpath(place)) for place in places)
        or not {"site-packages", "dist-packages"}.isdisjoint(real.parts)
    )  # fmt: skip


def own_module(norm: NormConfig) -> Path:
    """The file of a norm named `module:function`; nothing is imported.

    Raises:
        UserError: there is none on the path.
    """
    module, colon, function = norm.name.partition(":")
    if not colon or not function:
        raise unknown_norm(norm.name)
    spec = _spec(module)
    if spec is not None and (spec.origin is None or not Path(spec.origin).is_file()):
        raise UserError(
            f"norm={norm.name}: {module} is a package or a part of Python and no file; name "
            "the file of your own, MODULE:FUNCTION for MODULE.py"
        )
    if spec is None or spec.origin is None:
        raise UserError(
            f"norm={norm.name}: no module {module} on the path; run from its folder "
            "or put that folder into PYTHONPATH"
        )
    return Path(spec.origin)


def _spec(module: str) -> ModuleSpec | None:
    """What Python would import by a name; importlib would run the packages before its last dot."""
    parts = module.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
        for count in range(2, len(parts) + 1):
            inside = None if spec is None else spec.submodule_search_locations
            if inside is None:
                return None
            spec = PathFinder.find_spec(".".join(parts[:count]), inside)
    except (ImportError, ValueError):
        return None
    return spec


def unknown_norm(name: str) -> UserError:
    """What to say of a name that is no norm's."""
    near = difflib.get_close_matches(name, BUILT_IN, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return UserError(
        f"norm={name}: no such norm; {hint}known are {' '.join(BUILT_IN)}, "
        "and module:function for one of your own"
    )
