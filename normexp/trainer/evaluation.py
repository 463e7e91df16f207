"""Loss and accuracy of a network on images that are neither augmented nor dropped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from normexp.config.schema import Config
from normexp.data.batches import Pictures, TrainingBatches, evaluation_batches
from normexp.norms.population import evaluating


class Stopped(Exception):
    """A person asked the run to stop."""


class Score(NamedTuple):
    loss: float
    """Mean cross-entropy, without label smoothing."""
    accuracy: float
    """Fraction of images classified rightly, 0..1."""


def never() -> bool:
    return False


def ignore(count: int) -> None:
    return None


@torch.inference_mode()
def evaluate(
    network: nn.Module, pictures: Pictures, indices: Tensor, batch_size: int,
    precision: AbstractContextManager[None], stop: Callable[[], bool] = never,
    bn_stats: str = "running", samples: Callable[[], Iterable[Tensor]] = list,
    advanced: Callable[[int], object] = ignore,
) -> Score:  # fmt: skip
    """Score a network on the images at ``indices``; leaves it as it was, in training mode.

    Args:
        bn_stats: statistics of norms with running averages: see normexp.norms.population.
        samples: training images that ``precise`` statistics are of, such as :func:`as_trained`.
        advanced: told how many images have passed since it was last called, samples too.

    Raises:
        Stopped: ``stop()`` was true, which is asked before each batch.
    """
    device = pictures.pixels.device
    # float64 exists on CPU and CUDA; where it does not (mps), fp32 has to do.
    exact = torch.float32 if device.type == "mps" else torch.float64
    loss = torch.zeros((), dtype=exact, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for logits, labels in answers(
        network, pictures, indices, batch_size, precision, stop, bn_stats, samples, advanced
    ):
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        loss += losses.to(exact).sum()
        correct += (logits.argmax(1) == labels).sum()
    return Score(loss.item() / len(indices), correct.item() / len(indices))


def answers(
    network: nn.Module, pictures: Pictures, indices: Tensor, batch_size: int,
    precision: AbstractContextManager[None], stop: Callable[[], bool] = never,
    bn_stats: str = "running", samples: Callable[[], Iterable[Tensor]] = list,
    advanced: Callable[[int], object] = ignore,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """What a network says of each image: logits (n,classes) and labels (n,), a batch at a time.

    Arguments and errors are those of :func:`evaluate`; to be used under inference mode.
    """

    def until_stopped(batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for images in batches:
            if stop():
                raise Stopped("while it was evaluated")
            yield images
            advanced(len(images))

    with evaluating(network, bn_stats, lambda: until_stopped(samples()), precision):
        for part in parts(indices, batch_size, bn_stats):
            for images, labels in evaluation_batches(pictures, part, len(part)):
                if stop():
                    raise Stopped("while it was evaluated")
                with precision:
                    logits = network(images)
                yield logits, labels
                advanced(len(labels))


def parts(indices: Tensor, batch_size: int, bn_stats: str) -> Sequence[Tensor]:
    """The images of each evaluation batch.

    Where batches give the statistics, they are drawn at random, once and for all: image folders
    lie sorted by class, and a batch of one class has other statistics than a mixed one. They are as
    equal as can be and none is smaller than asked for, so that no image is alone or left out.
    """
    if bn_stats != "batch":
        return torch.split(indices, batch_size)
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))
    return torch.tensor_split(indices[order], max(1, len(indices) // batch_size))


def as_trained(pictures: Pictures, indices: Tensor, config: Config, seed: int) -> Iterator[Tensor]:
    """Training images (n,3,S,S) that precise statistics are of: the first of the first epoch, with
    its mirrors and crops, in whole batches of ``evaluate.batch_size``.

    Augmented, so that what differs from running averages is the estimator and nothing else. In
    batches of one size, small or large, whatever the size in training: the smaller they are, the
    further the layers after the first are from what they see in evaluation.
    """
    size, count = sample_batches(config, len(indices))
    batches = TrainingBatches(pictures, indices, config.data, size, [seed])
    for images, _ in batches.chunks(batches.plan(0), 0, count):
        yield from images.split(size)


def sample_batches(config: Config, images: int) -> tuple[int, int]:
    """How large the batches are that precise statistics are of, and how many; of so many images."""
    wanted = min(config.evaluate.precise_samples, images)
    size = min(config.evaluate.batch_size, wanted)
    return size, wanted // size
