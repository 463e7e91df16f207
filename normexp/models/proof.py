"""Whether several networks fused compute what each of them computes: tried, since only a network's
``forward`` knows what it does with channels."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normexp.models.fuse import CannotFuse, fuse, split_evenly
from normexp.models.streams import Stream

CPU = torch.device("cpu")

# Of the largest value, for what may be rounding: the root of what fp64 rounds to, halfway between
# that and a difference as large as the values. Over many layers rounding grows, but not so far.
ROUNDING = torch.finfo(torch.float64).eps ** 0.5
# A gradient may be nothing but rounding, as that of a bias before a norm: it is compared with the
# largest of the network too.
FAINT = 1e-4

IMAGES = 4
"""Enough for the statistics of a batch, and not as many as there are networks."""


def prove(
    networks: Sequence[nn.Module], image_size: int, channels_last: bool, images: int = IMAGES
) -> None:
    """Try whether :func:`fuse` makes of these a network that does what they do alone.

    Copies are tried, on the CPU, in fp64, with random images and with weights shaken so that
    none that are zero or equal hide anything: logits and gradients, buffers after a step of
    training, random numbers drawn, and logits in evaluation mode. The networks and torch's global
    stream are left as they are.

    Args:
        networks: two are enough, for images (N,3,S,S).
        image_size: S.
        channels_last: the layout of the images.
        images: N.

    Raises:
        CannotFuse: it does not, or cannot be tried; the message says where it first differs.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (images, 3 * len(networks), image_size, image_size)
    batch = torch.randn(shape, generator=generator, dtype=torch.float64)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shaken = [_shaken(network, generator) for network in networks]
    with torch.random.fork_rng(devices=[]):
        trial = _Trial(shaken, batch, layout)
        trial.in_training(generator)
        trial.in_evaluation()


def memory_mb(network: nn.Module) -> float:
    """About how much memory trying two of these takes, in MiB: each with weights and gradients."""
    values = sum(parameter.numel() for parameter in network.parameters())
    return 8 * values * 8 / 2**20


def _shaken(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with other weights, about as far from its own as initial weights are from zero."""
    own = copy.deepcopy(network).to(device=CPU, dtype=torch.float64)
    with torch.no_grad():
        for parameter in own.parameters():
            inputs = max(parameter.numel() // max(len(parameter), 1) if parameter.ndim else 1, 1)
            reach = 0.5 / inputs**0.5
            noise = torch.empty_like(parameter).uniform_(-reach, reach, generator=generator)
            parameter.add_(noise)
        for name, buffer in own.named_buffers():
            if name.endswith(("running_mean", "running_var", "running_std")):
                noise = torch.empty_like(buffer).uniform_(0.5, 1.5, generator=generator)
                buffer.add_(noise - 1 if name.endswith("mean") else noise)  # no variance below 0
    return own


class _Trial:
    """Networks alone, and fused, with the same images, random numbers and buffers."""

    def __init__(
        self, networks: list[nn.Module], batch: Tensor, layout: torch.memory_format
    ) -> None:
        self.alone, self.kind = networks, type(networks[0]).__name__
        self.batch = batch.contiguous(memory_format=layout)
        parts = batch.chunk(len(networks), 1)
        self.parts = [part.contiguous(memory_format=layout) for part in parts]
        self.begun = [Stream.begun(place, CPU) for place in range(len(networks))]
        self.streams = list(self.begun)
        self.fused = fuse(networks, self.streams)  # of the same weights and buffers
        self.buffers = dict(self.fused.named_buffers())
        self.before = {name: buffer.clone() for name, buffer in self.buffers.items()}

    def in_training(self, generator: torch.Generator) -> None:
        for network in (*self.alone, self.fused):
            network.train()
        names = [name for name, one in self.fused.named_parameters() if one.requires_grad]
        towards, logits, gradients, ends = None, [], [], []
        for place, network in enumerate(self.alone):
            output = self._alone(place)
            ends.append(Stream.now(CPU))
            if towards is None:
                shape = (len(self.alone), *output.shape)
                towards = torch.randn(shape, generator=generator, dtype=torch.float64)
            gradients.append(_gradients(output, network, names, towards[place]))
            logits.append(output.detach())
        assert towards is not None
        expected = {name: buffer.clone() for name, buffer in self.buffers.items()}
        self._restore()
        output = self._together(logits)
        self._demand("logits in training", output, torch.stack(logits, 1))
        for own, end in zip(self.streams, ends, strict=True):
            if not torch.equal(own.cpu, end.cpu):
                raise self._cannot("it draws random numbers for all at once")
        for name, buffer in self.buffers.items():
            if buffer.is_floating_point():
                self._demand(f"{name} after a step", buffer, expected[name])
        found = _gradients(output, self.fused, names, towards.transpose(0, 1))
        sizes = [[_size(one) for one in own] for own in gradients]
        least = FAINT * max((size for own in sizes for size in own), default=0.0)
        for place, name in enumerate(names):
            parts = split_evenly(found[place], len(gradients))
            for values, part in zip(gradients, parts, strict=True):
                self._demand(f"gradient of {name}", part, values[place], least)

    def in_evaluation(self) -> None:
        for network in (*self.alone, self.fused):
            network.eval()
        with torch.no_grad():
            logits = [self._alone(place) for place in range(len(self.alone))]
            found = self._together(logits)
            self._demand("logits in evaluation", found, torch.stack(logits, 1))

    def _alone(self, place: int) -> Tensor:
        """The logits (N,classes) of one network."""
        self.begun[place].use(CPU)
        try:
            output = self.alone[place](self.parts[place])
        except Exception as error:  # an author's code may raise anything
            raise CannotFuse(f"{self.kind} cannot be tried in fp64: {_line(error)}") from error
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise CannotFuse(f"{self.kind} gives no logits (N,classes) in training")
        return output

    def _together(self, logits: list[Tensor]) -> Tensor:
        """The logits (N,S,classes) of the fused network."""
        self.streams[:] = self.begun
        try:
            whole: Tensor = self.fused(self.batch)
            if whole.shape[1] == len(logits) * logits[0].shape[1]:
                return whole.view(len(self.batch), len(logits), -1)  # as training views them
        except Exception as error:
            raise self._cannot(f"it raises {_line(error)}") from error
        raise self._cannot(f"its logits are of shape {tuple(whole.shape)}")

    def _restore(self) -> None:
        with torch.no_grad():
            for name, buffer in self.buffers.items():
                buffer.copy_(self.before[name])

    def _demand(self, what: str, found: Tensor, expected: Tensor, least: float = 0.0) -> None:
        """That values are equal up to rounding.

        Args:
            least: what a difference is compared with, if the values are smaller.
        """
        size, off = max(_size(expected), least), _size(found - expected)
        if not off <= ROUNDING * size:  # NaN is no answer either
            raise self._cannot(f"its {what} are off by {off:.2g}, of {size:.2g}")

    def _cannot(self, why: str) -> CannotFuse:
        return CannotFuse(f"several {self.kind} cannot be made one: {why}{self._where()}")

    def _where(self) -> str:
        """Words for the layer after which the fused network is not what the networks are alone."""
        alone = []
        for network, images, stream in zip(self.alone, self.parts, self.begun, strict=True):
            self._restore()
            stream.use(CPU)
            alone.append(_passed(network, images))
        self._restore()
        self.streams[:] = self.begun
        together = _passed(self.fused, self.batch)
        for (name, _, output), *parts in zip(together, *alone, strict=False):
            own = [part[2] for part in parts]
            if name and not any(_equal(output, torch.cat(own, axis)) for axis in (1, -1)):
                return f", first seen after {name} ({type(parts[0][1]).__name__})"
        return f", in the forward of {self.kind}"


Passed = list[tuple[str, nn.Module, Tensor]]


def _passed(network: nn.Module, images: Tensor) -> Passed:
    """What each layer gave, in the order they were called, up to where it fails."""
    passed: Passed = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim > 1:
                passed.append((name, layer, output.detach().clone()))

        return hook

    hooks = [layer.register_forward_hook(watch(name)) for name, layer in network.named_modules()]
    try:
        with torch.no_grad():
            network(images)
    except Exception:
        return passed  # the caller knows
    finally:
        for handle in hooks:
            handle.remove()
    return passed


def _equal(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and _size(found - expected) <= ROUNDING * _size(expected)


def _size(values: Tensor) -> float:
    return torch.linalg.vector_norm(values, float("inf")).item() if values.numel() else 0.0


def _gradients(
    logits: Tensor, network: nn.Module, names: list[str], towards: Tensor
) -> list[Tensor]:
    """Of these parameters; zero where the logits do not depend on one."""
    own = [network.get_parameter(name) for name in names]
    if not own:
        return []
    found = torch.autograd.grad(logits, own, towards, allow_unused=True, materialize_grads=True)
    return list(found)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: " + " ".join(str(error).split())[:120]
