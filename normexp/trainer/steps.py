"""The network on its device, and how it takes steps: one seed's, or several fused."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, get_total_norm

from normexp.config.schema import Config, Freeze
from normexp.data.batches import EpochPlan, Pictures, TrainingBatches, evaluation_batches
from normexp.data.enough_images import refuse_too_few
from normexp.data.sources import Dataset
from normexp.data.split import train_and_val
from normexp.models.build import build_model
from normexp.models.fuse import fuse
from normexp.models.head import freeze, head
from normexp.models.streams import Stream
from normexp.system.seeds import stream_seed
from normexp.trainer import process
from normexp.trainer.diagnostics import PROBE_IMAGES
from normexp.trainer.evaluation import Score, as_trained, evaluate, sample_batches
from normexp.trainer.optimization import (
    build_optimizer,
    clip_gradients,
    effective_rate,
    gradient_norms,
    rate_factor,
)
from normexp.trainer.optimizer import Optimizer
from normexp.trainer.ranks import Ranks


@dataclass(eq=False)
class Member:
    """The network of one seed, which stays usable alone while it is trained fused with others."""

    seed: int
    network: nn.Module
    rate: float
    """The learning rate before its schedule."""
    optimizer: Optimizer
    """Remembers what :meth:`Trainer.split` gave it, where several are trained together."""
    stream: Stream | None = None
    """Where its random numbers are, for layers that draw; None: where torch's global stream is, as
    of one that is trained alone, or if it is trained with others at the seed."""


@dataclass(frozen=True)
class Interval:
    """What some steps in a row came to, read from the device at once."""

    losses: list[list[float]]
    """Of each seed, a step after the other."""
    correct: list[int]
    """Images that each seed's network classified rightly, in all these steps."""
    grad_norms: list[float] | None
    """Norm of each seed's gradient at the last step, before clipping; None if not asked for."""
    taken: int
    """How many steps."""


class Trainer:
    """The networks of some seeds, their data and their optimizer, and how to take steps."""

    def __init__(
        self, config: Config, seeds: Sequence[int], dataset: Dataset, device: torch.device,
        ranks: Ranks | None = None, rates: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            config: what all members have in common.
            seeds: of each member; several are trained as one network of grouped layers.
            rates: of each member, what takes the place of ``config.optimizer.lr``.

        Raises:
            UserError: there are too few images.
            CannotFuse: the network holds a layer that cannot be fused.
        """
        self.config = config
        self.device = device
        self.ranks = ranks or Ranks()
        self.autocast = process.autocast(config.precision, device)
        self.channels_last = config.layout_last
        data = config.data
        train, val = train_and_val(dataset, data)
        refuse_too_few(len(train), len(dataset.train.labels), config)
        self.pictures = Pictures(dataset.train, dataset, data, device, self.channels_last)
        self.val_pictures = self.pictures
        if dataset.val is not None:
            self.val_pictures = Pictures(dataset.val, dataset, data, device, self.channels_last)
        self.test_pictures = Pictures(dataset.test, dataset, data, device, self.channels_last)
        self.train_indices, self.val_indices = torch.from_numpy(train), torch.from_numpy(val)
        self.head: frozenset[str] = frozenset()
        given = rates or [config.optimizer.lr] * len(seeds)
        self.members = [
            self._member(seed, rate, dataset) for seed, rate in zip(seeds, given, strict=True)
        ]
        self.join(self.members)
        self.total_steps = total_steps(config, self.batches.steps)
        self.total_epochs = -(-self.total_steps // self.batches.steps)

    def _member(self, seed: int, lr: float, dataset: Dataset) -> Member:
        config = self.config
        network = build_model(
            config.model, config.norm, dataset.train.images.shape[-1], len(dataset.classes),
            stream_seed(seed, "weights"),
        )  # fmt: skip
        layout = torch.channels_last if self.channels_last else torch.preserve_format
        network = network.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
        model, settings = config.model, replace(config.optimizer, lr=lr)
        rate = effective_rate(settings, config.images_per_step)
        if not self.head and (model.freeze is not Freeze.none or settings.head_lr_factor != 1):
            self.head = head(network, model, dataset.train.images.shape[-1], len(dataset.classes))
        freeze(network, model, self.head)
        return Member(seed, network, rate, build_optimizer(network, settings, self.head))

    def join(self, members: list[Member]) -> None:
        """From now on train these together, each from where it is; all are at the same step."""
        self.members = members
        if len(members) == 1:
            self.network, self.optimizer = members[0].network, members[0].optimizer
            if members[0].stream is not None:
                members[0].stream.use(self.device)
                members[0].stream = None
        else:
            self.streams = [
                member.stream or Stream.begun(member.seed, self.device) for member in members
            ]
            self.network = fuse([member.network for member in members], self.streams)
            self.optimizer = build_optimizer(self.network, self.config.optimizer, self.head)
            self.optimizer.join([member.optimizer for member in members])
        self.parameters = list(self.network.parameters())
        self.statistics = [one for one in self.network.buffers() if one.is_floating_point()]
        self.ranks.align([*self.parameters, *self.statistics])
        layers: list[Any] = list(self.network.modules())
        self.warming = [layer for layer in layers if hasattr(layer, "at_fraction")]
        self.forward = self.network
        if self.config.compile:
            self.forward = process.compiled(self.network)
            self._compile_now()
        self.batches = TrainingBatches(
            self.pictures, self.train_indices, self.config.data, self.config.images_per_step,
            [member.seed for member in members],
            # Not of self: in a cycle the images would stay on the device when the trainer goes.
            partial(self.ranks.share, batch_size=self.config.batch_size), self.ranks.world,
        )  # fmt: skip

    def _compile_now(self) -> None:
        """Take a step that leaves no trace: compiling takes place before any clock runs."""
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        size = self.pictures.pixels.shape[-1]
        shape = (self.config.batch_size // self.ranks.world, 3 * len(self.members), size, size)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        images = torch.zeros(shape, device=self.device).to(memory_format=layout)
        with torch.random.fork_rng(devices=[]):
            with self.autocast:
                logits = self.forward(images)
            logits.float().sum().backward()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(before)

    def split(self) -> None:
        """Bring each member's optimizer and stream up to date; the weights always are."""
        if len(self.members) > 1:
            self.optimizer.split([member.optimizer for member in self.members])
            for member, stream in zip(self.members, self.streams, strict=True):
                member.stream = stream

    def epoch_steps(self, epoch: int) -> int:
        """Steps in an epoch, counted from 0; the last is short where max_steps ends within it."""
        return min(self.batches.steps, self.total_steps - epoch * self.batches.steps)

    def rates(self, step: int) -> list[float]:
        """The learning rate of each member at a step, counted from 0."""
        factor = rate_factor(self.config.scheduler, step / self.total_steps)
        return [member.rate * factor for member in self.members]

    def interval(
        self, plan: EpochPlan, first: int, last: int, done: int, measure_gradient: bool,
        stop: Callable[[], bool], advanced: Callable[[int], object],
    ) -> Interval:  # fmt: skip
        """Take steps ``first`` to ``last`` (exclusive) of an epoch, fewer if ``stop()``.

        Nothing is read back from the device until the end.

        Args:
            done: steps taken in all before these, which the learning rate goes by.
            measure_gradient: whether the last step tells the norm of its gradient.
            advanced: told how many steps were taken since it was last called.
        """
        size, seeds = self.batches.step_size, len(self.members)
        losses: list[Tensor] = []
        correct: list[Tensor] = []
        grad_norms = None
        for images, labels in self.batches.chunks(plan, first, last):
            before = len(losses)
            outputs: list[Tensor] = []
            targets = labels.split(size * seeds)
            for batch, target in zip(images.split(size), targets, strict=True):
                if stop():
                    break
                measure = measure_gradient and first + len(losses) + 1 == last
                self._set_schedules(done + len(losses))
                loss, logits, grad_norms = self.step(batch, target, measure)
                losses.append(loss)
                outputs.append(logits)
            if outputs:
                guesses = torch.cat(outputs).view(len(outputs) * size * seeds, -1).argmax(1)
                correct.append((guesses == labels[: len(guesses)]).view(-1, seeds).sum(0))
            advanced(len(losses) - before)
            if stop():
                break
        if not losses:
            return Interval([[] for _ in self.members], [0 for _ in self.members], None, 0)
        each = self.ranks.mean(torch.stack(losses).view(-1, seeds))
        return Interval(
            each.T.tolist(),
            self.ranks.sum(torch.stack(correct).sum(0)).tolist(),
            None if grad_norms is None else grad_norms.view(-1).tolist(),
            len(losses),
        )

    def step(
        self, images: Tensor, labels: Tensor, measure_gradient: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One step: of each seed the mean loss and the logits of its batch, and the norm of the
        gradient."""
        self.optimizer.zero_grad()
        self.ranks.align(self.statistics)
        if self.config.accumulate_steps == 1:
            losses, logits = self._add_gradients(images, labels)
        else:
            losses, logits = self._accumulate(images, labels)
        self.ranks.average_gradients(self.parameters)
        grad_norms = self._clip(measure_gradient)
        self.optimizer.step()
        return losses, logits, grad_norms

    def _add_gradients(
        self, images: Tensor, labels: Tensor, share: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Add those of one batch, of which ``share`` counts; its losses and logits."""
        with self.autocast:
            logits = self.forward(images)
        losses, total = self._losses(logits.float(), labels)
        (total if share == 1.0 else total * share).backward()
        return losses.detach(), logits.detach()

    def _accumulate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`_add_gradients` for a step of several batches, each normalized on its own."""
        count = self.config.accumulate_steps
        parts = []
        batches = zip(images.chunk(count), labels.chunk(count), strict=True)
        for batch, target in batches:
            parts.append(self._add_gradients(batch, target, 1 / count))
        losses, logits = zip(*parts, strict=True)
        return torch.stack(losses).mean(0), torch.cat(logits)

    def _losses(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each seed, and their sum, whose gradient for a weight is that of its seed."""
        smoothing = self.config.label_smoothing
        if len(self.members) == 1:
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            return loss, loss
        rows = logits.view(len(labels), -1)
        each = F.cross_entropy(rows, labels, reduction="none", label_smoothing=smoothing)
        losses = each.view(-1, len(self.members)).mean(0)
        return losses, losses.sum()

    def _clip(self, measure: bool) -> Tensor | None:
        """Clip the gradient of each seed where asked for; the norms before, if they are wanted."""
        limit, seeds = self.config.grad_clip, len(self.members)
        norms = None
        if limit is not None:
            if seeds == 1:
                norms = clip_grad_norm_(self.parameters, limit)
            else:
                norms = clip_gradients(self.parameters, seeds, limit)
        elif measure:
            if seeds == 1:
                norms = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
            else:
                norms = gradient_norms(self.parameters, seeds)
        return norms if measure else None

    def _set_schedules(self, step: int) -> None:
        """What goes by the fraction of training done: the learning rate, and warm-ups of norms."""
        self.optimizer.rates = self.rates(step)
        for norm in self.warming:
            norm.at_fraction(step / self.total_steps)

    def probe(self) -> tuple[Tensor, Tensor]:
        """The images that diagnostics look at, as the network sees them, and their labels: of
        validation, or else of training, spread evenly since folders lie sorted by class."""
        pool, pictures = self.val_indices, self.val_pictures
        if len(pool) < 2:
            pool, pictures = self.train_indices, self.pictures
        count = min(PROBE_IMAGES, len(pool))
        count -= count % min(self.config.norm.ghost_batch_size, count)  # no short ghost batch
        places = torch.linspace(0, len(pool) - 1, count).long()
        return next(evaluation_batches(pictures, pool[places], count))

    def validate(
        self, member: Member, stop: Callable[[], bool] = lambda: False,
        advanced: Callable[[int], object] = lambda images: None,
    ) -> Score | None:  # fmt: skip
        if len(self.val_indices) == 0:
            return None
        first = self.config.evaluate.bn_stats[0]
        return self._score(member, self.val_pictures, self.val_indices, first, stop, advanced)

    def test(
        self, member: Member, bn_stats: str, stop: Callable[[], bool] = lambda: False,
        advanced: Callable[[int], object] = lambda images: None,
    ) -> Score:  # fmt: skip
        indices = torch.arange(len(self.test_pictures.labels))
        return self._score(member, self.test_pictures, indices, bn_stats, stop, advanced)

    def passing(self, images: int, bn_stats: str) -> int:
        """How many images pass the network where so many are scored with such statistics."""
        size, count = sample_batches(self.config, len(self.train_indices))
        return images + (size * count if images and bn_stats == "precise" else 0)

    def _score(
        self, member: Member, pictures: Pictures, indices: Tensor, bn_stats: str,
        stop: Callable[[], bool], advanced: Callable[[int], object],
    ) -> Score:  # fmt: skip
        def samples() -> Iterator[Tensor]:
            return as_trained(self.pictures, self.train_indices, self.config, member.seed)

        size = self.config.evaluate.batch_size
        return evaluate(
            member.network,
            pictures,
            indices,
            size,
            self.autocast,
            stop,
            bn_stats,
            samples,
            advanced,
        )


def total_steps(config: Config, epoch: int) -> int:
    """How many steps a run takes whose epochs are of so many."""
    return config.max_steps or (config.epochs or 0) * epoch
