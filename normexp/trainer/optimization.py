"""The optimizer and the learning rate as a function of the fraction of training done."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from normexp.config import LrRule, OptimizerConfig, OptimizerName, SchedulerConfig, SchedulerName
from normexp.models.fuse import SideBySideLinear, split_evenly


def build_optimizer(network: nn.Module, config: OptimizerConfig, device: torch.device) -> Optimizer:
    """Adam, AdamW or SGD, fused where torch has it; norms and biases are not decayed."""
    layers = (nn.Conv2d, nn.Linear, SideBySideLinear)
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


def join_state(whole: Optimizer, parts: Sequence[Optimizer]) -> None:
    """Give the optimizer of fused networks what the optimizers of the single networks remember.

    Raises:
        AssertionError: the networks are not at the same step.
    """
    for parameter, *own in zip(*map(_parameters, (whole, *parts)), strict=True):
        states = [part.state[p] for part, p in zip(parts, own, strict=True)]
        assert len({frozenset(state) for state in states}) == 1
        for name, first in states[0].items():
            values = [state[name] for state in states]
            whole.state[parameter][name] = first.clone() if first.ndim == 0 else torch.cat(values)


def split_state(whole: Optimizer, parts: Sequence[Optimizer]) -> None:
    """Give each single optimizer its part, as views, of what the optimizer of all remembers."""
    for part in parts:
        for group, own_group in zip(whole.param_groups, part.param_groups, strict=True):
            own_group.update({name: group[name] for name in group if name != "params"})
    for parameter, *own in zip(*map(_parameters, (whole, *parts)), strict=True):
        for name, value in whole.state[parameter].items():
            pieces = split_evenly(value, len(parts))
            for part, p, piece in zip(parts, own, pieces, strict=True):
                part.state[p][name] = piece


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


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
