"""The processes that train one run together: one, or as many as torchrun started.

The batch of a step is shared evenly between them and gradients are averaged, so that a step is the
step one process would take, up to rounding; only norms with batch statistics see their share.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from normexp import torchrun

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

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """What averages the gradients of all processes; buffers are those of rank 0."""
        if self.world == 1:
            return network
        return DistributedDataParallel(network, [device] if device.type == "cuda" else None)

    def exchanging(self, network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
        """Within, a backward pass through what :meth:`wrap` gave averages gradients or not."""
        if self.world == 1 or wanted:
            return contextlib.nullcontext()
        waiting: AbstractContextManager[None] = network.no_sync()  # type: ignore[operator]
        return waiting

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
