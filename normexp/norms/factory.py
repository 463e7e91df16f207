"""The one place that turns a norm's name into a layer.

A norm of your own is a function or a class that is called as those of this room are, in a file on
the path, and one line of YAML, ``name: module:function``. A layer whose attribute
``contains_activation`` is true stands in the place of the ReLU after it as well.
"""

from collections.abc import Callable

import torch
from torch import nn

from normexp.config.own_code import is_own, load
from normexp.config.schema import NormConfig
from normexp.norms.catalogue import BUILDERS
from normexp.norms.rules import KEY, Site, check_input, unknown_norm
from normexp.system.errors import UserError

NormBuilder = Callable[[int, int, NormConfig], nn.Module]


def build_norm(channels: int, dims: int, norm: NormConfig) -> nn.Module:
    """Build the norm that the configuration names.

    Args:
        channels: C of the input.
        dims: 4 for inputs (N,C,H,W), 2 for (N,C), 3 for (N,L,C).
        norm: name and settings.

    Raises:
        UserError: the name is unknown or the norm cannot work on such inputs.
    """
    name = BUILDERS.get(norm.name, norm.name)
    if not is_own(name):
        raise unknown_norm(norm.name)
    if norm.name in BUILDERS:
        check_input(norm, Site("", channels, None if dims == 2 else 1, tokens=dims == 3))
    try:
        builder: NormBuilder = load(KEY, name)
    except UserError as error:
        raise UserError(f"{error}; known are {' '.join(BUILDERS)}") from error
    # A norm draws nothing from the stream of initial weights, whatever its author does: the
    # layers after it start the same for every norm.
    with torch.random.fork_rng(devices=[]):
        return builder(channels, dims, norm)
