"""The statistics of norms with running averages in evaluation: the averages, or others.

``running`` are the averages that training left. ``precise`` are those of the population, measured
anew with the weights as they are (Precise-BN; Wu & Johnson 2021, "Rethinking Batch in BatchNorm",
arXiv 2105.07576): over batches of training images μ = E[μB] and σ² = E[σB²] + Var[μB], the law of
total variance. ``batch`` are those of whatever batch is evaluated.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normexp.norms.base import Norm, moments
from normexp.system.errors import UserError

AVERAGES = ("running_mean", "running_var", "running_std")


@contextlib.contextmanager
def evaluating(
    network: nn.Module, bn_stats: str, samples: Callable[[], Iterable[Tensor]],
    precision: AbstractContextManager[None],
) -> Iterator[None]:  # fmt: skip
    """Put a network into evaluation with such statistics, and back into training as it was.

    Args:
        bn_stats: ``running``, ``precise`` or ``batch``.
        samples: batches of images (N,3,S,S), of one size, that precise statistics are of.
        precision: what a forward pass runs under.

    Raises:
        UserError: the network holds a layer whose averages cannot be measured anew.
    """
    network.eval()
    if bn_stats == "running":
        try:
            yield
        finally:
            network.train()
        return
    layers = _with_averages(network)
    # Forward passes in training mode move averages and counters, and BatchInstanceNorm its ρ.
    # In place: they may be views into a network that is trained for several seeds.
    state = [value for layer in layers for value in (*layer.parameters(), *layer.buffers())]
    before = [value.detach().clone() for value in state]
    try:
        with _normalizing_by_batch(layers):
            if bn_stats == "batch":
                yield
                return
            found = _population(network, layers, samples(), precision)
        for layer, (mean, variance) in zip(layers, found, strict=True):
            _set_averages(layer, mean, variance)
        yield
    finally:
        with torch.no_grad():
            for value, saved in zip(state, before, strict=True):
                value.copy_(saved)
        network.train()


def refuse_unknown(network: nn.Module) -> None:
    """Raise a UserError for a layer of one's own whose averages cannot be measured anew."""
    for layer in _with_averages(network):
        if not isinstance(layer, (_BatchNorm, Norm)):
            raise UserError(
                f"evaluate.bn_stats=precise: {type(layer).__name__} is not of normexp and no "
                "BatchNorm of torch, so what its running averages are of is unknown; use "
                "evaluate.bn_stats=running or batch"
            )


def _with_averages(network: nn.Module) -> list[nn.Module]:
    return [
        layer
        for layer in network.modules()
        if any(getattr(layer, name, None) is not None for name in AVERAGES)
    ]


@contextlib.contextmanager
def _normalizing_by_batch(layers: list[nn.Module]) -> Iterator[None]:
    """Let each layer take the statistics of the whole batch, as BatchNorm does in training."""
    try:
        for layer in layers:
            layer.train()
            if isinstance(layer, Norm):
                layer.by_whole_batch(True)
        yield
    finally:
        for layer in layers:
            layer.eval()
            if isinstance(layer, Norm):
                layer.by_whole_batch(False)


def _population(
    network: nn.Module, layers: list[nn.Module], batches: Iterable[Tensor],
    precision: AbstractContextManager[None],
) -> list[tuple[Tensor, Tensor]]:  # fmt: skip
    """The mean and the variance (C,) of each layer's input over all batches, in fp64."""
    refuse_unknown(network)
    means: list[list[Tensor]] = [[] for _ in layers]
    variances: list[list[Tensor]] = [[] for _ in layers]

    def watch(place: int) -> Callable[[nn.Module, Any], None]:
        def hook(layer: nn.Module, inputs: Any) -> None:
            x = inputs[0].float()
            mean, variance = layer.moments(x) if isinstance(layer, Norm) else moments(x)
            means[place].append(mean)
            variances[place].append(variance)

        return hook

    hooks = [layer.register_forward_pre_hook(watch(place)) for place, layer in enumerate(layers)]
    try:
        for images in batches:
            with precision:
                network(images)
    finally:
        for handle in hooks:
            handle.remove()
    found = []
    for each_mean, each_variance in zip(means, variances, strict=True):
        mean, variance = (
            torch.stack(values).cpu().double() for values in (each_mean, each_variance)
        )
        found.append((mean.mean(0), variance.mean(0) + mean.var(0, correction=0)))
    return found


def _set_averages(layer: Any, mean: Tensor, variance: Tensor) -> None:
    found = {
        "running_mean": mean,
        "running_var": variance,
        "running_std": (variance + layer.eps).sqrt(),
    }
    for name, value in found.items():
        average = getattr(layer, name, None)
        if average is not None:
            average.copy_(value.to(average.dtype))  # on the CPU: mps has no fp64
