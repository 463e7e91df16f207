"""The random streams of networks that draw: of each what torch's global stream is to it alone."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stream:
    """How far the random numbers of one network are: the states of torch's global generators."""

    cpu: Tensor
    device: Tensor | None = None
    """That of the accelerator the network is on; None where it is on the CPU."""

    @classmethod
    def begun(cls, seed: int, device: torch.device, cpu: Tensor | None = None) -> "Stream":
        """What ``torch.manual_seed`` sets; on the CPU another state where it is given."""
        states = [torch.Generator(each).manual_seed(seed).get_state() for each in _on(device)]
        return cls(*states if cpu is None else (cpu, *states[1:]))

    @classmethod
    def now(cls, device: torch.device) -> "Stream":
        return cls(*(_module(each).get_rng_state() for each in _on(device)))

    def use(self, device: torch.device) -> None:
        """Let torch draw from it from now on."""
        for each, state in zip(_on(device), (self.cpu, self.device), strict=False):
            _module(each).set_rng_state(state)


def _on(device: torch.device) -> list[torch.device]:
    cpu = torch.device("cpu")
    return [cpu] if device.type == "cpu" else [cpu, device]


def _module(device: torch.device) -> Any:
    return torch if device.type == "cpu" else torch.get_device_module(device)
