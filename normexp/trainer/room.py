"""Whether a network fits memory, told before one is made."""

from dataclasses import replace

import torch

from normexp.config.schema import Architecture, Config, ModelConfig, NormConfig, OptimizerName
from normexp.models.build import build_model, count_parameters
from normexp.system.errors import UserError
from normexp.system.memory import MIB
from normexp.trainer import process

FP32 = 4
"""Bytes of a parameter, and of what goes with it."""

CLASSES = 10
"""How many are not known before there are images; of any other number these are a part."""

GIB = 1024 * MIB


def parameters_of(model: ModelConfig, image_size: int) -> int:
    """How many parameters a built-in network has, without those of its norms: norms of one's own
    may compute while they are made, which nothing on the meta device can; those of any kind have a
    thousandth of the parameters."""
    with torch.device("meta"):
        plain = replace(model, pretrained=False)
        return count_parameters(build_model(plain, NormConfig(name="none"), image_size, CLASSES, 0))


def refuse_too_large(config: Config, count: int, device: torch.device) -> None:
    """Refuse a network whose parameters, gradients and optimizer state alone take more memory than
    is free; what passes through it comes on top and depends on much.

    Args:
        count: of its parameters.

    Raises:
        UserError: names the numbers.
    """
    free = process.free_memory(device)
    if free is None:
        return
    optimizer = config.optimizer
    states = bool(optimizer.momentum) if optimizer.name is OptimizerName.sgd else 2
    need = count * FP32 * (2 + states)
    if need > free * MIB:
        widths = {
            Architecture.mlp: "model.hidden", Architecture.cnn: "model.channels, model.hidden",
        }  # fmt: skip
        raise UserError(
            f"model={config.model.name}: {count:,} parameters, their gradients and what "
            f"{optimizer.name.value} remembers take {need / GIB:,.1f} GiB, and "
            f"{free * MIB / GIB:,.1f} GiB are free ({device.type}); use a smaller "
            f"{widths.get(config.model.architecture, 'model')}"
        )
