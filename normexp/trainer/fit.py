"""What a checkpoint has to fit so that a run can go on from it."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from normexp.config.schema import Config
from normexp.data.sources import Dataset
from normexp.data.split import train_and_val
from normexp.models.build import build_model
from normexp.trainer.optimization import build_optimizer
from normexp.trainer.optimizer import Optimizer
from normexp.trainer.steps import total_steps


class Fit:
    """The network, the optimizer and the steps of a run; made when first asked for."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset

    @cached_property
    def trained(self) -> tuple[nn.Module, Optimizer]:
        """As :class:`Trainer` makes them, on the CPU."""
        config = self.config
        network = build_model(
            replace(config.model, pretrained=False, weights=None), config.norm,
            self.dataset.train.images.shape[-1], len(self.dataset.classes), 0,
        )  # fmt: skip
        return network, build_optimizer(network, config.optimizer)

    @cached_property
    def steps(self) -> tuple[int, int]:
        """Steps in an epoch, and in all."""
        train, _ = train_and_val(self.dataset, self.config.data)
        epoch = len(train) // self.config.images_per_step
        return epoch, total_steps(self.config, epoch)

    def demand(self, state: dict[str, Any], epoch: int, step: int) -> None:
        """Take up the contents of last.pt, at a place of training.

        Raises:
            ValueError: they do not fit.
            Exception: whatever torch makes of what does not fit.
        """
        network, optimizer = self.trained
        take_weights(network, state["model"])
        if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
            raise ValueError("its weights are not finite")
        optimizer.load_state_dict(state["optimizer"])
        remembered = [value for own in optimizer.state.values() for value in own.values()]
        if any(bool(value.isnan().any()) for value in remembered):
            raise ValueError("what its optimizer remembers is not a number")
        torch.Generator().set_state(state["rng"].cpu())
        each, total = self.steps
        first = min(epoch * each, total)
        begun = epoch == 0 or (epoch - 1) * each < total
        if not (begun and first <= step <= min(first + each, total)):
            raise ValueError(f"step {step} is none of epoch {epoch + 1}, of {each} steps")
        if step and not optimizer.remembers:
            raise ValueError("its optimizer remembers nothing")
        if optimizer.step_count is not None and optimizer.step_count.item() != step:
            raise ValueError(f"its optimizer has taken {optimizer.step_count.item():g} steps")


def take_weights(network: nn.Module, weights: Any) -> None:
    """Load weights that are of the kind that the network has; torch would round others.

    Raises:
        ValueError: they are of another kind.
        Exception: whatever torch makes of what does not fit.
    """
    network.load_state_dict(weights)
    kinds = {name: value.dtype for name, value in network.state_dict().items()}
    if odd := [name for name, kind in kinds.items() if weights[name].dtype != kind]:
        kind = weights[odd[0]].dtype
        raise ValueError(f"its {odd[0]} is {kind}, and the network has {kinds[odd[0]]}")
