"""What a network does with a fixed batch of images, the probe, measured once an epoch.

All is measured on a copy of the network, in fp32 and in training mode: the run stays as it is bit
for bit. Of the output and the weights of each layer that can have any, norms among them:

- ``activation_mean``, ``activation_std``: of its output, the mean over channels of each channel's
  mean and the root mean square of each channel's standard deviation.
- ``mean_drift``, ``std_drift``: how far these vectors of C numbers have moved since the epoch
  before, ‖μ' - μ‖/‖σ‖ and ‖σ' - σ‖/‖σ‖.
- ``cosine_similarity``: of the outputs for two different images, the mean over all pairs.
- ``stable_rank``: ‖A‖_F²/‖A‖_2² of the outputs A, a row an image: 1 if all are multiples of one.
- ``gradient_norm``: of the loss by all of the layer's own weights, ‖∇W‖.
- ``update_ratio``: how far these have moved since the epoch before, ‖W' - W‖/‖W‖.

Of the whole network, as ``landscape`` and ``train_eval_gap`` below say: ``loss``, ``loss_min``,
``loss_max``, ``gradient_change_min``, ``gradient_change_max``, ``effective_beta`` and
``train_eval_gap``. What is not a finite number, such as the drift of a dead layer, is left out.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import get_total_norm

from normexp.norms.base import pooled_axes

PROBE_IMAGES = 64
PER_CHANNEL = "per_channel"
"""1 for layers whose weights are numbers of a channel, as those of norms."""
STEPS = (0.5, 1.0, 2.0, 4.0)
"""Along the gradient, in learning rates: the range of Santurkar et al. (2018)."""

Snapshot = dict[str, dict[str, Tensor]]
"""The ``weights`` of a network, and the ``mean`` and ``std`` of each layer's channels."""


class Measured(NamedTuple):
    layer: str
    """Its name in the network; empty for the whole network."""
    quantity: str
    value: float


class Landscape(NamedTuple):
    """The loss around some weights, along the gradient."""

    loss: float
    gradient: list[Tensor]
    losses: list[float]
    """L(w - ηg) for each step size η."""
    changes: list[float]
    """‖∇L(w) - ∇L(w - ηg)‖ for each: how predictive the gradient is."""
    beta: float
    """Effective smoothness: the largest ‖∇L(w) - ∇L(w - ηg)‖/‖ηg‖."""


class Diagnostics:
    """Measures one network as it is trained."""

    def __init__(
        self, images: Tensor, labels: Tensor, lr: float, before: Snapshot | None = None
    ) -> None:
        """
        Args:
            images: the probe as the network sees it, (N,3,S,S), and its labels (N,).
            lr: the run's learning rate before its schedule: the unit of steps along the gradient.
            before: what the last measuring left, of a run that goes on.
        """
        self.images, self.labels = images, labels
        self.steps = [factor * lr for factor in STEPS]
        self.before = before

    def measure(self, network: nn.Module) -> list[Measured]:
        """Measure, compare with the last time, and remember for the next."""
        copied = copy.deepcopy(network).train()
        device = self.images.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            found, now = self._layers(copied)
            weights = {name: p for name, p in copied.named_parameters() if p.requires_grad}

            def loss(moved: Sequence[Tensor]) -> Tensor:
                own = dict(zip(weights, moved, strict=True))
                return F.cross_entropy(self._forward(copied, own), self.labels)

            around = landscape(loss, [*weights.values()], self.steps)
            copied.eval()
            with torch.no_grad():
                gap = around.loss - loss([*weights.values()]).item()
        gradient = dict(zip(weights, around.gradient, strict=True))
        for name, own in _weights_by_layer(copied, gradient).items():
            found.append(Measured(name, "gradient_norm", get_total_norm(own).item()))
        found += self._moved(copied, now)
        self.before = now
        whole = {
            "loss": around.loss, "loss_min": min(around.losses), "loss_max": max(around.losses),
            "gradient_change_min": min(around.changes), "gradient_change_max": max(around.changes),
            "effective_beta": around.beta, "train_eval_gap": gap,
        }  # fmt: skip
        found += [Measured("", quantity, value) for quantity, value in whole.items()]
        return [one for one in found if math.isfinite(one.value)]

    def _forward(self, network: nn.Module, weights: dict[str, Tensor]) -> Tensor:
        """Logits (N,classes); running averages stay, each pass sees them as the run left them."""
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        logits: Tensor = functional_call(network, {**weights, **buffers}, (self.images,))
        return logits

    @torch.no_grad()
    def _layers(self, network: nn.Module) -> tuple[list[Measured], Snapshot]:
        """What the layers' outputs are like."""
        weights = {name: p.detach().clone() for name, p in network.named_parameters()}
        found: list[Measured] = []
        now: Snapshot = {"weights": weights, "mean": {}, "std": {}}

        def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
            def see(layer: nn.Module, inputs: object, output: Tensor) -> None:
                # At once: the activation after it may work in place.
                std, mean = torch.std_mean(output, pooled_axes(output), correction=0)
                now["mean"][name], now["std"][name] = mean, std
                cosine, rank = geometry(output)
                for quantity, value in {
                    "activation_mean": mean.mean().item(),
                    "activation_std": std.square().mean().sqrt().item(),
                    "cosine_similarity": cosine,
                    "stable_rank": rank,
                }.items():
                    found.append(Measured(name, quantity, value))
                if all(own.ndim < 2 for own in layer.parameters(recurse=False)):
                    found.append(Measured(name, PER_CHANNEL, 1.0))

            return see

        watched = [
            layer.register_forward_hook(watch(name))
            for name, layer in network.named_modules()
            if name and (layer._parameters or layer._buffers)
        ]
        self._forward(network, {})
        for handle in watched:
            handle.remove()
        return found, now

    def _moved(self, network: nn.Module, now: Snapshot) -> list[Measured]:
        """What has changed since the last time; nothing the first time."""
        before = self.before
        if before is None:
            return []
        found = []
        for name, std in before["std"].items():
            for part in ("mean", "std"):
                moved = now[part][name] - before[part][name]
                value = (moved.norm() / std.norm()).item()
                found.append(Measured(name, f"{part}_drift", value))
        old = _weights_by_layer(network, before["weights"])
        for name, own in _weights_by_layer(network, now["weights"]).items():
            moved = get_total_norm([new - was for new, was in zip(own, old[name], strict=True)])
            value = (moved / get_total_norm(old[name])).item()
            found.append(Measured(name, "update_ratio", value))
        return found


def _weights_by_layer(network: nn.Module, values: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Of values by the names of weights, those that belong to each layer itself."""
    found = {}
    for layer_name, layer in network.named_modules():
        names = [f"{layer_name}.{name}" for name, _ in layer.named_parameters(recurse=False)]
        own = [values[name] for name in names if name in values]
        if own:
            found[layer_name] = own
    return found


def geometry(activations: Tensor) -> tuple[float, float]:
    """Mean cosine similarity of the rows of A, of all pairs of two, and its stable rank
    ‖A‖_F²/‖A‖_2², for A (N,...) with a row an image; both NaN where A·Aᵀ overflows, as it does
    shortly before a run diverges."""
    rows = activations.detach().flatten(1)
    products = (rows @ rows.T).cpu().double()  # small, and not every device has eigenvalues
    if not products.isfinite().all():
        return math.nan, math.nan
    lengths = products.diagonal().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    cosines = products / lengths.outer(lengths)
    pairs = len(rows) * (len(rows) - 1)
    cosine = (cosines.sum() - cosines.trace()) / pairs if pairs else torch.tensor(math.nan)
    return cosine.item(), (products.trace() / torch.linalg.eigvalsh(products)[-1]).item()


def landscape(
    loss: Callable[[Sequence[Tensor]], Tensor], weights: Sequence[Tensor], steps: Sequence[float]
) -> Landscape:
    """The loss along its gradient g, at w - ηg for each step size η (Santurkar et al. 2018, "How
    Does Batch Normalization Help Optimization?", arXiv 1805.11604, section 3.1).

    Args:
        loss: of some weights.
        weights: w.
        steps: η; the paper takes half to four times the learning rate.
    """
    value, gradient = _gradient(loss, weights)
    losses, changes, betas = [], [], []
    length = get_total_norm(gradient)
    for step in steps:
        moved = [weight - step * g for weight, g in zip(weights, gradient, strict=True)]
        there, other = _gradient(loss, moved)
        change = get_total_norm([g - o for g, o in zip(gradient, other, strict=True)])
        losses.append(there)
        changes.append(change.item())
        betas.append((change / (step * length)).item())
    return Landscape(value, gradient, losses, changes, max(betas))


def _gradient(
    loss: Callable[[Sequence[Tensor]], Tensor], weights: Sequence[Tensor]
) -> tuple[float, list[Tensor]]:
    leaves = [weight.detach().clone().requires_grad_() for weight in weights]
    value = loss(leaves)
    gradient = torch.autograd.grad(value, leaves, materialize_grads=True)
    return value.item(), list(gradient)
