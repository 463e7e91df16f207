"""Loss and accuracy of a network on images that are neither augmented nor dropped."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normexp.data.batches import Pictures, evaluation_batches


class Stopped(Exception):
    """A person asked the run to stop."""


class Score(NamedTuple):
    loss: float
    """Mean cross-entropy, without label smoothing."""
    accuracy: float
    """Fraction of images classified rightly, 0..1."""


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    pictures: Pictures,
    indices: Tensor,
    batch_size: int,
    precision: AbstractContextManager[None],
    stop: Callable[[], bool] = lambda: False,
) -> Score:
    """Score a network on the images at ``indices``; leaves it in training mode.

    Raises:
        Stopped: ``stop()`` was true, which is asked before each batch.
    """
    network.eval()
    device = pictures.pixels.device
    # float64 exists on CPU and CUDA; where it does not (mps), fp32 has to do.
    exact = torch.float32 if device.type == "mps" else torch.float64
    loss = torch.zeros((), dtype=exact, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in evaluation_batches(pictures, indices, batch_size):
        if stop():
            raise Stopped("while it was evaluated")
        with precision:
            logits = network(images)
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        loss += losses.to(exact).sum()
        correct += (logits.argmax(1) == labels).sum()
    network.train()
    return Score(loss.item() / len(indices), correct.item() / len(indices))
