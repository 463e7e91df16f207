"""The one place that turns a norm's name into a layer.

A norm of your own is a function or a class that is called as those of this room are, in a file on
the path, and one line of YAML, ``name: module:function``. A layer whose attribute
``contains_activation`` is true stands in the place of the ReLU after it as well.
"""

import inspect
from collections.abc import Callable

import torch
from torch import nn

from normexp.config.own_code import is_own, load
from normexp.config.schema import NormConfig
from normexp.norms.catalogue import BUILDERS
from normexp.norms.rules import KEY, Site, check_input, unknown_norm
from normexp.system.errors import UserError

NormBuilder = Callable[[int, int, NormConfig], nn.Module]

TAKES = "it must be a function (channels, dims, norm) that gives a torch.nn.Module"


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
    builder = norm_builder(name, norm)
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
    return norm_builder(name, NormConfig(name=name))


def norm_builder(name: str, norm: NormConfig) -> NormBuilder:
    """What `module:function` names, imported.

    Raises:
        UserError: there is none, or it takes other arguments.
    """
    try:
        found = load(KEY, name)
    except UserError as error:
        raise UserError(f"{error}; known are {' '.join(BUILDERS)}") from error
    if not callable(found):
        raise UserError(f"norm={name}: is {type(found).__name__}; {TAKES}")
    try:
        inspect.signature(found).bind(1, 4, norm)
    except TypeError as error:
        takes = " ".join(str(inspect.signature(found)).split())
        function = name.rpartition(":")[2]
        raise UserError(f"norm={name}: {function}{takes} does not fit; {TAKES}") from error
    except ValueError:
        pass  # of a function in C nothing is known
    builder: NormBuilder = found
    return builder
