"""The optimizer and the learning rate as a function of the fraction of training done."""

import math
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from normexp.config.schema import LrRule, OptimizerConfig, SchedulerConfig, SchedulerName
from normexp.models.side_by_side import SideBySideLinear
from normexp.trainer.optimizer import Group, Optimizer


def build_optimizer(
    network: nn.Module, config: OptimizerConfig, head: Collection[str] = ()
) -> Optimizer:
    """The optimizer that the configuration names; norms and biases are not decayed by default.

    Args:
        head: names of the parameters whose rate is ``head_lr_factor`` times that of the others.
    """
    own = dict(network.named_parameters())
    fast = {id(own[name]) for name in head}
    layers = (nn.Conv2d, nn.Linear, SideBySideLinear)
    found = [layer.weight for layer in network.modules() if isinstance(layer, layers)]
    decayed = [weight for weight in found if isinstance(weight, nn.Parameter)]
    known = {id(weight) for weight in decayed}
    exempt = [p for p in network.parameters() if id(p) not in known]
    exempt_decay = config.weight_decay if config.decay_norms else 0.0
    groups = []
    for parameters, decay in ((decayed, config.weight_decay), (exempt, exempt_decay)):
        groups += [
            Group([p for p in parameters if id(p) not in fast], decay),
            Group([p for p in parameters if id(p) in fast], decay, config.head_lr_factor),
        ]
    return Optimizer(groups, config)


def effective_rate(config: OptimizerConfig, images: int) -> float:
    """The learning rate for steps of so many images: ``none`` as given, ``linear`` by B/reference
    (Goyal et al. 2017, arXiv 1706.02677), ``sqrt`` by its root (Hoffer et al. 2017,
    arXiv 1705.08741)."""
    ratio = images / config.reference_batch
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


def gradient_norms(parameters: Iterable[nn.Parameter], networks: int) -> Tensor:
    """Norm of the gradient of each fused network, (networks,)."""
    squares = []
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad.unflatten(0, (networks, -1))
            squares.append(gradient.square().sum(tuple(range(1, gradient.ndim))))
    return torch.stack(squares).sum(0).sqrt()


def clip_gradients(parameters: Sequence[nn.Parameter], networks: int, limit: float) -> Tensor:
    """Scale down the gradient of each fused network whose norm is above the limit, as torch's
    ``clip_grad_norm_`` does for one; returns the norms before, (networks,)."""
    norms = gradient_norms(parameters, networks)
    factors = (limit / (norms + 1e-6)).clamp(max=1)
    for parameter in parameters:
        if parameter.grad is not None:
            gradient = parameter.grad.unflatten(0, (networks, -1))
            gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))
    return norms
