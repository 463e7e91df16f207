"""A norm alone: its input, what is timed of it, and the memory it keeps."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from normexp.bench.timing import Loop, timed
from normexp.config import Config, Precision

Context = AbstractContextManager[None]


def make_input(shape: tuple[int, ...], config: Config, device: torch.device) -> Tensor:
    """Random numbers (N,C,H,W) or (N,C) in the layout and precision that layers give a norm."""
    dtype = torch.bfloat16 if config.precision is Precision.bf16 else torch.float32
    x = torch.randn(shape, device=device, dtype=dtype)
    if len(shape) == 4 and config.channels_last:
        x = x.to(memory_format=torch.channels_last)
    return x.requires_grad_()


def copy(x: Tensor) -> Loop:
    """The least that reading the input and writing as much can cost."""
    source, out = x.detach(), torch.empty_like(x.detach())
    return timed(_repeat(lambda: out.copy_(source)), x.device)


def forward(layer: nn.Module, x: Tensor, precision: Context) -> Loop:
    """A forward pass in training mode that prepares for backward."""
    repeat = _repeat(lambda: layer(x))

    def take(count: int) -> None:
        with precision:
            repeat(count)

    return timed(take, x.device)


def backward(layer: nn.Module, x: Tensor, precision: Context) -> Loop:
    """Gradients of the input and the parameters, many times through one forward pass.

    What that keeps is let go between the turns, so that many norms fit into memory.
    """
    inputs = [x, *(p for p in layer.parameters() if p.requires_grad)]

    def loop(count: int) -> float:
        with precision:
            y = layer(x)
        gradient = torch.randn_like(y)
        again = _repeat(lambda: torch.autograd.grad(y, inputs, gradient, retain_graph=True))
        return timed(again, x.device)(count)

    return loop


def kept_for_backward(layer: nn.Module, x: Tensor, precision: Context) -> int:
    """Bytes of the memory that a forward pass keeps alive for backward.

    Each piece of memory counts once and whole. Parameters and buffers, which are there anyway, do
    not count; what a norm keeps past torch's saved tensors is not seen.
    """
    own = {p.untyped_storage().data_ptr() for p in (*layer.parameters(), *layer.buffers())}
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), precision:
        layer(x)
    memory = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in saved)}
    return sum(size for place, size in memory.items() if place not in own)


def _repeat(do: Callable[[], object]) -> Callable[[int], None]:
    def take(count: int) -> None:
        for _ in range(count):
            do()

    return take
