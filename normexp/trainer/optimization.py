"""The optimizer and the learning rate as a function of the fraction of training done."""

import math

import torch
from torch import nn

from normexp.config import LrRule, OptimizerConfig, OptimizerName, SchedulerConfig, SchedulerName


def build_optimizer(
    network: nn.Module, config: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD, fused where torch has it; norms and biases are not decayed."""
    layers = (nn.Conv2d, nn.Linear)
    decayed = [layer.weight for layer in network.modules() if isinstance(layer, layers)]
    known = {id(weight) for weight in decayed}
    exempt = [p for p in network.parameters() if id(p) not in known]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = device.type in ("cpu", "cuda", "mps")
    betas = (config.betas[0], config.betas[1])
    if config.name is OptimizerName.sgd:
        return torch.optim.SGD(
            groups, config.lr, config.momentum, nesterov=config.nesterov, fused=fused
        )
    kind = torch.optim.Adam if config.name is OptimizerName.adam else torch.optim.AdamW
    return kind(groups, config.lr, betas, config.eps, fused=fused)


def effective_rate(config: OptimizerConfig, batch_size: int) -> float:
    """The learning rate at this batch size: ``none`` as given, ``linear`` by B/reference
    (Goyal et al. 2017, arXiv 1706.02677), ``sqrt`` by its root (Hoffer et al. 2017,
    arXiv 1705.08741)."""
    ratio = batch_size / config.reference_batch
    factor = {LrRule.none: 1.0, LrRule.linear: ratio, LrRule.sqrt: math.sqrt(ratio)}
    return config.lr * factor[config.lr_rule]


def rate_factor(config: SchedulerConfig, fraction: float) -> float:
    """The factor of the learning rate when ``fraction`` (0..1) of training is done.

    A rise from ``warmup_start`` to 1 over the first ``warmup``: linear, or for one_cycle a cosine.
    Then ``constant``; ``step``, multiplied by gamma at each milestone passed; ``cosine`` and
    ``one_cycle``, half a cosine from 1 to ``final`` at the end.
    """
    one_cycle = config.name is SchedulerName.one_cycle
    if fraction < config.warmup:
        done = fraction / config.warmup
        rise = (1 - math.cos(math.pi * done)) / 2 if one_cycle else done
        return config.warmup_start + (1 - config.warmup_start) * rise
    if config.name is SchedulerName.step:
        return config.gamma ** sum(fraction >= stone for stone in config.milestones)
    if config.name is SchedulerName.constant:
        return 1.0
    left = (1 + math.cos(math.pi * (fraction - config.warmup) / (1 - config.warmup))) / 2
    return config.final + (1 - config.final) * left
