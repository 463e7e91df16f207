"""What each norm reads from the configuration and where it cannot work, told without torch.

What is refused follows from the facts of the catalogue: above all, statistics that would be of a
single value, of which a norm makes 0, or leaves nothing but its sign.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from normexp.config.own_code import digest, is_own, own_file
from normexp.config.schema import ModelConfig, NormConfig
from normexp.norms.catalogue import BUILT_IN, CATALOGUE, Facts
from normexp.system.errors import UserError

KEY = "norm"
KEEP = "keep"
"""The norms that the author of a network by name gave it; no norm of the catalogue."""
DEFAULT_GROUPS = 4
MOST_GROUPS = 32
"""Of ``num_groups=auto``."""

ONE_CHANNEL = "one value leaves at most its sign; use more channels, or norm=bn"
ONE_VALUE = {
    "N,H,W": (
        "one value a channel (an MLP at batch_size=1)",
        "with batch_size={batch} {each} one value a channel, which has no variance; use "
        "batch_size={enough} or more, or norm=ln or norm=gn",
    ),
    "g,H,W": (
        "batch_size no multiple of g; one value a channel (an MLP at batch_size=1)",
        "norm.ghost_batch_size=1 leaves one value a channel, which has no variance; use "
        "norm.ghost_batch_size=2 or more",
    ),
    "H,W": (
        "an MLP; maps of 1x1",
        "maps of 1x1 leave one value to average over; use larger images, fewer pools "
        "(model.pool_after), model.stem=cifar, or norm=gn",
    ),
    "C/G,H,W": (
        "groups that do not divide C, or hold one value",
        "groups of one value always give 0; use fewer groups, such as norm.num_groups=1",
    ),
    "C,H,W": ("one value an image", ONE_CHANNEL),
    "C": ("1 channel", ONE_CHANNEL),
}
"""Where statistics over these axes are of one value or none, and what to say to that."""

# One's own norms may read any setting.
READ_BY_ALL = ("name", "weight_standardization")


@dataclass(frozen=True)
class Site:
    """A place in a network where a norm stands.

    name: of the layer.
    channels: how many channels pass.
    positions: H*W of the maps, or L of tokens, or None for vectors, which have no positions.
    activated: whether a ReLU follows, in whose place a norm may stand that contains an activation.
    tokens: whether the input is (N,L,C).
    """

    name: str
    channels: int
    positions: int | None
    activated: bool = True
    tokens: bool = False

    @property
    def dims(self) -> int:
        """Of the input: 4 of maps, 2 of vectors, 3 of tokens."""
        return 3 if self.tokens else 2 if self.positions is None else 4


def facts_of(norm: NormConfig) -> Facts | None:
    """Of a norm as it is set, None for one's own: one that freezes begins as BatchNorm."""
    return CATALOGUE.get(norm.name if norm.freeze_at is None else "bn")


def settle(norm: NormConfig) -> list[str]:
    """Make implied settings explicit and reset those that this norm does not read.

    Returns:
        One sentence for each setting that was given and is ignored.
    """
    if norm.name not in BUILT_IN and norm.name != KEEP:
        return []
    notes = []
    read = {"name"}
    if norm.name != KEEP:
        read = {*READ_BY_ALL, *CATALOGUE[norm.name].settings}
    if "freeze_at" in read and norm.freeze_at is None:
        read.remove("momentum")  # its averages never move
    for item in fields(norm):
        given = getattr(norm, item.name)
        if item.name not in read and given != item.default:
            notes.append(f"norm.{item.name}={given} is ignored: {norm.name} does not read it")
            setattr(norm, item.name, item.default)
    if "num_groups" in read and norm.num_groups is None and norm.channels_per_group is None:
        norm.num_groups = DEFAULT_GROUPS
    return notes


def groups_of(norm: NormConfig, channels: int, at: str = "") -> int:
    """The number of groups that a norm with groups has on this many channels.

    Args:
        at: where, for the error.

    Raises:
        UserError: the channels cannot be split so.
    """
    groups, size = norm.num_groups, norm.channels_per_group
    if groups is not None and size is not None:
        raise UserError(
            f"norm.num_groups={groups} and norm.channels_per_group={size}: give one of them, not "
            "both"
        )
    if isinstance(groups, list):
        raise UserError(
            f"norm.num_groups={groups}: a list is for the norms of a network, one number for each; "
            "here give one number"
        )
    if groups == "auto":
        return max(each for each in _divisors(channels) if each <= MOST_GROUPS)
    if size is not None:
        if channels % size:
            raise UserError(
                f"norm.channels_per_group={size}{at}: {channels} channels cannot be split into "
                f"groups of {size}; use one of {_divisors(channels)}, or norm.num_groups=auto"
            )
        return channels // size
    groups = DEFAULT_GROUPS if groups is None else groups
    if channels % groups:
        raise UserError(
            f"norm.num_groups={groups}{at}: {channels} channels cannot be split into {groups} "
            f"groups; use norm.num_groups= one of {_divisors(channels)}, norm.num_groups=auto, or "
            "norm.channels_per_group=..."
        )
    return int(groups)


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
        UserError: one line that names the norm, the layer, the reason and the fix.
    """
    if norm.weight_standardization:
        _check_weight_standardization(norm, sites)
    if norm.name == KEEP:
        return
    if norm.name not in BUILT_IN:
        if not is_own(norm.name):
            raise unknown_norm(norm.name)
        own_file(KEY, norm.name)
        return
    for own, site in zip(at_sites(norm, len(sites)), sites, strict=True):
        if CATALOGUE[norm.name].contains_activation and not site.activated:
            raise activation_where_none_follows(norm, site.name)
        check_input(own, site)
        _check_values(own, site, batch_size, ranks)


def check_statistics(norm: NormConfig, model: ModelConfig) -> None:
    """Refuse statistics that stand still from the beginning where nothing has made them.

    Raises:
        UserError: they would be 0 and 1 for ever.
    """
    facts = CATALOGUE.get(norm.name)
    pretrained = getattr(model, "pretrained", False) or getattr(model, "weights", None)
    if facts and "freeze_at" in facts.settings and norm.freeze_at is None and not pretrained:
        raise UserError(
            f"norm={norm.name}: there are no pretrained statistics to freeze; use "
            "norm.freeze_at=0.5 to freeze those of the first half of training, or "
            "model.pretrained=true"
        )


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


def activation_where_none_follows(norm: NormConfig, layer: str = "") -> UserError:
    """The refusal of a norm with a built-in activation where none follows a norm.

    What they are without it is not agreed on: of EvoNorm a scale and a shift are left in some code
    (timm's), in other code a norm too.
    """
    return UserError(
        f"norm={norm.name}{_at(layer)}: contains the activation, but none that it could be follows "
        "there: after the last norm of a residual block, for one, comes an addition; use norm=gn, "
        "ln or bn, or a network without shortcuts (simple_cnn)"
    )


def _at(layer: str) -> str:
    return f" at {layer}" if layer else ""


def check_input(norm: NormConfig, site: Site) -> None:
    """Refuse a norm of the catalogue that is undefined for such inputs.

    Raises:
        UserError: one line that names the norm, the layer and what works there.
    """
    facts, at = CATALOGUE[norm.name], _at(site.name)
    if site.tokens and not facts.tokens:
        able = [name for name, each in CATALOGUE.items() if each.tokens]
        raise UserError(
            f"norm={norm.name}{at}: cannot normalize tokens (N,L,C); use norm="
            f"{', '.join(able[:-1])} or {able[-1]}"
        )
    if site.positions is None and facts.vectors is None:
        raise UserError(
            f"norm={norm.name}{at}: vectors, as in an MLP, have no positions to average over; use "
            "norm=ln or norm=gn, or a convolutional model"
        )


def _check_values(norm: NormConfig, site: Site, batch_size: int, ranks: int) -> None:
    """Refuse statistics of one value, and groups and ghost batches that cannot be here."""
    facts = facts_of(norm)
    assert facts is not None
    if not normalizes_share(norm):
        ranks = 1
    share, ghosts, groups = max(batch_size // ranks, 1), norm.ghost_batch_size, 1
    each = f"each of {ranks} processes has" if ranks > 1 else "there is"
    if "num_groups" in facts.settings:
        groups = groups_of(norm, site.channels, _at(site.name))
    if "ghost_batch_size" in facts.settings and share > ghosts and share % ghosts:
        has = f"{each} {share} images" if ranks > 1 else f"{share} images"
        raise UserError(
            f"norm.ghost_batch_size={ghosts}: {has}, which cannot be split into such ghost "
            f"batches; use one of {_divisors(share)}"
        )
    positions = 1 if site.tokens else site.positions or 1
    sizes = {
        "N": share, "g": min(share, ghosts), "C": site.channels, "C/G": site.channels // groups,
        "H": positions, "W": 1,
    }  # fmt: skip
    # The fewest axes first: what helps there helps the others too.
    for axes in sorted(facts.axes, key=len):
        if math.prod(sizes[axis] for axis in axes.split(",")) == 1:
            kind = "N,H,W" if axes == "g,H,W" and share == 1 else axes
            why = ONE_VALUE[kind][1].format(batch=batch_size, each=each, enough=2 * ranks)
            channels = "1 channel" if site.channels == 1 else f"{site.channels} channels"
            raise UserError(f"norm={norm.name}{_at(site.name)} ({channels}): {why}")


def normalizes_share(norm: NormConfig) -> bool:
    """Whether the result depends on how many processes share a batch: statistics over a batch do,
    unless they are those of all processes, and nobody knows of a norm of one's own."""
    facts = facts_of(norm)
    return facts is None or (facts.uses_batch and not facts.all_processes)


def source_digest(norm: NormConfig) -> str:
    """A hash of the file of a norm of one's own, so that a change of it is another run.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    return "" if norm.name in (*BUILT_IN, KEEP) else digest(KEY, norm.name)


def unknown_norm(name: str) -> UserError:
    """What to say of a name that is no norm's."""
    near = difflib.get_close_matches(name, BUILT_IN, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return UserError(
        f"norm={name}: no such norm; {hint}known are {' '.join(BUILT_IN)}, "
        "and module:function for one of your own"
    )
