"""The head of a network: the layers that take their size from the number of classes."""

from collections.abc import Collection
from dataclasses import replace

from torch import nn

from normexp.config.schema import Architecture, Freeze, ModelConfig, NormConfig
from normexp.models.build import build_model
from normexp.norms.rules import KEEP
from normexp.system.errors import UserError


def head(network: nn.Module, model: ModelConfig, image_size: int, classes: int) -> frozenset[str]:
    """Names of the parameters that another number of classes would give another shape, found by
    making such a network.

    Args:
        network: that ``model`` describes, for ``classes``.

    Raises:
        UserError: there are none.
    """
    named = model.architecture is Architecture.named
    other = build_model(
        replace(model, pretrained=False, weights=None), NormConfig(name=KEEP if named else "none"),
        image_size, classes + 1, 0,
    )  # fmt: skip
    own = dict(network.named_parameters())
    found = frozenset(
        name
        for name, parameter in other.named_parameters()
        if name in own and own[name].shape != parameter.shape
    )
    if not found:
        raise UserError(
            f"model.freeze, optimizer.head_lr_factor: no layer of model={model.name} takes its "
            "size from the number of classes; leave them out"
        )
    return found


def freeze(network: nn.Module, model: ModelConfig, head: Collection[str]) -> None:
    """Leave as they are the parameters that ``model.freeze`` names."""
    if model.freeze is Freeze.backbone:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in head)
