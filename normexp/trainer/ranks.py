"""The processes that train one run together: one, or as many as torchrun started.

The batch of a step is shared evenly between them and gradients are averaged, so that a step is the
step one process would take, up to rounding; only norms with batch statistics see their share.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from normexp.system import torchrun

Value = TypeVar("Value")


class Ranks:
    """How many processes there are and which of them this is; does nothing where there is one."""

    def __init__(self) -> None:
        self.world = torchrun.world_size()
        self.rank = torchrun.rank()

    @property
    def main(self) -> bool:
        """Whether this is the one process that prints and writes."""
        return self.rank == 0

    @contextlib.contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Meet the other processes; they part when the run ends."""
        if self.world == 1:
            yield
            return
        if device.type == "cuda":
            # NCCL sends objects by way of the current GPU, which is else the first for all.
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield
        finally:
            dist.destroy_process_group()

    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give every process what rank 0 has, in place."""
        if self.world > 1 and tensors:
            with _one_message(tensors) as message:
                dist.broadcast(message, src=0)

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace the gradient of each by its mean over all processes."""
        if self.world > 1:
            gradients = [one.grad for one in parameters if one.grad is not None]
            with _one_message(gradients) as message:
                dist.all_reduce(message)
                message /= self.world

    def share(self, values: Tensor, batch_size: int) -> Tensor:
        """This rank's share of each batch of an epoch: of n rows, steps*batch_size/world."""
        if self.world == 1:
            return values
        size = batch_size // self.world
        batches = values[: len(values) // batch_size * batch_size].unflatten(0, (-1, batch_size))
        mine: Tensor = batches[:, self.rank * size : (self.rank + 1) * size].flatten(0, 1)
        return mine

    def mean(self, values: Tensor) -> Tensor:
        return self.sum(values) / self.world

    def sum(self, values: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, wish: bool, device: torch.device) -> bool:
        """Whether any process wishes it, so that all do the same at the same step."""
        if self.world == 1:
            return wish
        return bool(self.sum(torch.tensor(int(wish), device=device)))

    def from_main(self, value: Value) -> Value:
        """What rank 0 says."""
        if self.world == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        said: Value = box[0]
        return said


@contextlib.contextmanager
def _one_message(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Tensors of one dtype end to end, since each message has a price; then what became of them.

    torch's DistributedDataParallel does the same for gradients, but holds the process group for
    ever (torch 2.15): gloo's threads outlive the interpreter, and now and then one of them aborts a
    process that was done (pytorch/pytorch#179291).
    """
    message = torch.cat([tensor.detach().flatten() for tensor in tensors])
    yield message
    parts = message.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.detach().copy_(part.view(tensor.shape))
