"""The training loop: steps, reporting intervals, epochs, and one test at the end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, get_total_norm
from tqdm import tqdm

from normexp.config import Architecture, Checkpoint, Config
from normexp.data.batches import EpochPlan, Pictures, TrainingBatches
from normexp.data.sources import Dataset
from normexp.data.split import split
from normexp.errors import UserError
from normexp.models.build import build_model, count_parameters
from normexp.run_directory import RunDirectory
from normexp.seeds import stream_seed
from normexp.trainer import checkpoint, console, process
from normexp.trainer.checkpoint import Progress
from normexp.trainer.evaluation import Score, Stopped, evaluate
from normexp.trainer.optimization import build_optimizer, effective_rate, rate_factor
from normexp.trainer.ranks import Ranks
from normexp.trainer.tensorboard import TensorBoard


class Diverged(Exception):
    """The loss is not a finite number any more."""


@dataclass(frozen=True)
class Interval:
    """What some steps in a row came to, read from the device at once."""

    losses: list[float]
    correct: int
    grad_norm: float | None
    """Norm of the gradient at the last step, before clipping; None if that was not asked for."""


class Trainer:
    """A network, its data and its optimizer on a device, and how to take steps."""

    def __init__(
        self, config: Config, dataset: Dataset, device: torch.device, ranks: Ranks | None = None
    ) -> None:
        self.config = config
        self.device = device
        self.ranks = ranks or Ranks()
        self.autocast = process.autocast(config.precision, device)
        # Linear layers on flattened images want rows of channels; only convolutions gain.
        channels_last = config.channels_last and config.model.architecture is Architecture.cnn
        image_size = dataset.train.images.shape[-1]
        network = build_model(
            config.model, config.norm, image_size, len(dataset.classes),
            stream_seed(config.seed, "weights"),
        )  # fmt: skip
        layout = torch.channels_last if channels_last else torch.preserve_format
        self.network = network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.parallel = self.ranks.wrap(self.network, device)
        self.optimizer = build_optimizer(self.network, config.optimizer, device)

        data = config.data
        train, val = split(
            dataset.train.labels, data.val_fraction, data.train_size, data.split_seed
        )
        if len(train) == 0:
            raise UserError(
                f"data.val_fraction={data.val_fraction}: leaves no image of "
                f"{len(dataset.train.labels)} to train on; use a smaller share"
            )
        if len(train) < config.batch_size:
            raise UserError(
                f"batch_size={config.batch_size}: there are {len(train)} training images, less "
                f"than one batch; use batch_size={len(train)} or less"
            )
        self.pictures = Pictures(dataset.train, dataset, data, device, channels_last)
        self.test_pictures = Pictures(dataset.test, dataset, data, device, channels_last)
        self.train_indices, self.val_indices = torch.from_numpy(train), torch.from_numpy(val)
        self.batches = TrainingBatches(
            self.pictures, self.train_indices, data, config.batch_size, config.seed,
            lambda values: self.ranks.share(values, config.batch_size), self.ranks.world,
        )  # fmt: skip

        self.lr = effective_rate(config.optimizer, config.batch_size)
        epochs = config.epochs or 0
        self.total_steps = config.max_steps or epochs * self.batches.steps
        self.total_epochs = -(-self.total_steps // self.batches.steps)

    def epoch_steps(self, epoch: int) -> int:
        """Steps in an epoch, counted from 0; the last is short where max_steps ends within it."""
        return min(self.batches.steps, self.total_steps - epoch * self.batches.steps)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.lr * rate_factor(self.config.scheduler, step / self.total_steps)

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
        size = self.batches.batch_size
        losses: list[Tensor] = []
        correct: list[Tensor] = []
        grad_norm = None
        for images, labels in self.batches.chunks(plan, first, last):
            before = len(losses)
            outputs: list[Tensor] = []
            for batch, target in zip(images.split(size), labels.split(size), strict=True):
                if stop():
                    break
                measure = measure_gradient and first + len(losses) + 1 == last
                self._set_rate(self.rate(done + len(losses)))
                loss, logits, grad_norm = self.step(batch, target, measure)
                losses.append(loss)
                outputs.append(logits)
            if outputs:
                guesses = torch.cat(outputs).argmax(1)
                correct.append((guesses == labels[: len(guesses)]).sum())
            advanced(len(losses) - before)
            if stop():
                break
        return Interval(
            self.ranks.mean(torch.stack(losses)).tolist() if losses else [],
            int(self.ranks.sum(torch.stack(correct).sum())) if correct else 0,
            None if grad_norm is None else grad_norm.item(),
        )

    def step(
        self, images: Tensor, labels: Tensor, measure_gradient: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """One step: the mean loss and the logits of the batch, and the norm of the gradient."""
        with self.autocast:
            logits = self.parallel(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        grad_norm = None
        if self.config.grad_clip is not None:
            grad_norm = clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        elif measure_gradient:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            grad_norm = get_total_norm(gradients)
        self.optimizer.step()
        return loss.detach(), logits.detach(), grad_norm if measure_gradient else None

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def validate(self, stop: Callable[[], bool] = lambda: False) -> Score | None:
        if len(self.val_indices) == 0:
            return None
        return self._score(self.pictures, self.val_indices, stop)

    def test(self, stop: Callable[[], bool] = lambda: False) -> Score:
        indices = torch.arange(len(self.test_pictures.labels))
        return self._score(self.test_pictures, indices, stop)

    def _score(self, pictures: Pictures, indices: Tensor, stop: Callable[[], bool]) -> Score:
        size = self.config.evaluate.batch_size
        return evaluate(self.network, pictures, indices, size, self.autocast, stop)


def train(
    config: Config, directory: RunDirectory, dataset: Dataset, device: torch.device,
    progress: Progress, stop: Callable[[], bool], ranks: Ranks | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train one run to its end, going on from its last checkpoint where there is one.

    Args:
        progress: kept up to date, so that the caller can tell how far a run came that failed.
        stop: asked before each step; once true, the run saves itself and raises Stopped.
        ranks: the processes that train the run together; rank 0 alone writes.

    Returns:
        What was measured at the end, for result.json; nothing on other ranks than 0.

    Raises:
        UserError: the data or the disk do not allow it.
        Diverged: the loss became NaN or infinite; the message says at which step.
        Stopped: ``stop()`` was true.
    """
    say = console.logger.info
    trainer = Trainer(config, dataset, device, ranks)
    state = checkpoint.read_last(directory, device) if config.resume else None
    if state is not None:
        checkpoint.restore(state, trainer.network, trainer.optimizer, progress)
        say("going on from step %d of %d", progress.step, trainer.total_steps)
    main = trainer.ranks.main
    if main:
        directory.write_config(config)
        directory.write_metrics(progress.rows)
        _introduce(trainer, dataset)

    seen = progress.step * config.batch_size
    board = TensorBoard(directory.path, config, seen, wanted=main and config.log.tensorboard)
    bar = console.progress_bar(trainer.total_steps, progress.step, main and config.log.progress)
    clock = Clock(progress)
    result: dict[str, Any] = {}
    # Processes that train together can only stop at the same step: at the end of an interval.
    stop_now = stop if trainer.ranks.world == 1 else lambda: False
    try:
        while progress.epoch < trainer.total_epochs:
            _train_epoch(trainer, progress, directory, board, bar, clock, stop, stop_now)
            if main:
                try:
                    score = trainer.validate(stop_now)
                except Stopped:
                    # The steps of the epoch are taken; only its validation is to be done again.
                    checkpoint.save_last(directory, trainer.network, trainer.optimizer, progress)
                    raise
                _finish_epoch(trainer, progress, directory, dataset, board, score, clock)
            else:
                progress.next_epoch()
        if main:
            result = _test(trainer, progress, directory, board, clock, stop_now)
    finally:
        bar.close()
        board.close()
    return result


class Clock:
    """Wall time of a run over all its sittings, and the time since its last checkpoint."""

    def __init__(self, progress: Progress) -> None:
        self.before = progress.seconds
        self.start = self.saved = time.perf_counter()

    def total(self) -> float:
        return self.before + time.perf_counter() - self.start

    def since_saved(self) -> float:
        return time.perf_counter() - self.saved


def _train_epoch(
    trainer: Trainer, progress: Progress, directory: RunDirectory, board: TensorBoard,
    bar: "tqdm[NoReturn]", clock: Clock, stop: Callable[[], bool], stop_now: Callable[[], bool],
) -> None:  # fmt: skip
    """Take the steps of the epoch that are not taken yet, an interval at a time."""
    config = trainer.config
    epoch, steps = progress.epoch, trainer.epoch_steps(progress.epoch)
    position = progress.step - epoch * trainer.batches.steps
    plan = trainer.batches.plan(epoch)
    if progress.step == 0:
        images, _ = next(trainer.batches.chunks(plan, 0, 1))
        board.images(images)
    while position < steps:
        # Intervals begin at fixed places in an epoch, so that a resumed run reports the same.
        last = min((position // config.log.every + 1) * config.log.every, steps)
        began = time.perf_counter()
        part = trainer.interval(plan, position, last, progress.step, True, stop_now, bar.update)
        seconds = time.perf_counter() - began
        for place, loss in enumerate(part.losses, start=1):
            if not math.isfinite(loss):
                progress.step += place
                raise Diverged(f"the loss became {loss} at step {progress.step}")
            # One by one in order, so that the sum does not depend on where intervals ended.
            progress.loss_sum += loss
        taken = len(part.losses)
        position += taken
        progress.step += taken
        progress.correct += part.correct
        progress.epoch_seconds += seconds
        progress.train_seconds += seconds
        progress.seconds = clock.total()
        if part.grad_norm is not None:
            progress.grad_norms.append(part.grad_norm)
        if taken:
            _report_interval(trainer, progress, part, board, bar, seconds)
        stopping = trainer.ranks.any(stop(), trainer.device)
        due = stopping or clock.since_saved() > 60 * config.checkpoint_minutes
        if due and trainer.ranks.main:
            checkpoint.save_last(directory, trainer.network, trainer.optimizer, progress)
            clock.saved = time.perf_counter()
        if stopping:
            raise Stopped(f"at step {progress.step} of {trainer.total_steps}")


def _report_interval(
    trainer: Trainer, progress: Progress, part: Interval, board: TensorBoard, bar: "tqdm[NoReturn]",
    seconds: float,
) -> None:  # fmt: skip
    taken, size = len(part.losses), trainer.config.batch_size
    loss, accuracy = sum(part.losses) / taken, part.correct / (taken * size)
    speed = taken * size / seconds
    bar.set_postfix_str(f"loss {loss:.3f}, acc {console.percent(accuracy)}, {speed:,.0f} images/s")
    scalars = {
        "train/loss": loss,
        "train/acc": accuracy,
        "train/grad_norm": part.grad_norm,
        "train/lr": trainer.rate(progress.step - 1),
        "time/images_per_second": speed,
        "time/ms_per_step": 1000 * seconds / taken,
    }
    board.scalars(scalars, progress.step * size)


def _finish_epoch(
    trainer: Trainer, progress: Progress, directory: RunDirectory, dataset: Dataset,
    board: TensorBoard, score: Score | None, clock: Clock,
) -> None:  # fmt: skip
    """Record the epoch, keep the best weights, write the checkpoint."""
    config = trainer.config
    steps = trainer.epoch_steps(progress.epoch)
    images = steps * config.batch_size
    norms = progress.grad_norms
    progress.seconds = clock.total()
    samples_seen = progress.step * config.batch_size
    row = {
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "samples_seen": samples_seen,
        "lr": trainer.rate(progress.step - 1),
        "train_loss": progress.loss_sum / steps,
        "train_acc": progress.correct / images,
        "val_loss": score.loss if score else None,
        "val_acc": score.accuracy if score else None,
        "grad_norm": sum(norms) / len(norms) if norms else None,
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(images / progress.epoch_seconds, 1),
    }
    progress.rows.append(row)
    directory.write_metrics(progress.rows)
    board.scalars({"val/loss": row["val_loss"], "val/acc": row["val_acc"]}, samples_seen)
    board.histograms(trainer.network, samples_seen)
    board.flush()
    progress.next_epoch()
    # Without validation images there is nothing to choose by: the last epoch is kept.
    if score is None or progress.best_acc is None or score.accuracy > progress.best_acc:
        progress.best_acc = score.accuracy if score else None
        progress.best_epoch = progress.epoch
        checkpoint.save_best(directory, trainer.network, config, dataset, progress)
    checkpoint.save_last(directory, trainer.network, trainer.optimizer, progress)
    clock.saved = time.perf_counter()
    validation = (
        f"val loss {score.loss:.4f} acc {console.percent(score.accuracy)}  " if score else ""
    )
    console.logger.info(
        "epoch %d/%d  train loss %.4f acc %s  %s%s images/s",
        progress.epoch, trainer.total_epochs, row["train_loss"],
        console.percent(row["train_acc"]), validation, f"{row['images_per_second']:,.0f}",
    )  # fmt: skip


def _test(
    trainer: Trainer, progress: Progress, directory: RunDirectory, board: TensorBoard,
    clock: Clock, stop: Callable[[], bool],
) -> dict[str, Any]:  # fmt: skip
    """Meet the test set, once, with the weights that the configuration asks for."""
    config = trainer.config
    epoch = progress.epoch
    if config.evaluate.checkpoint is Checkpoint.best:
        epoch = progress.best_epoch
        best = checkpoint.read(directory.best, checkpoint.BEST, trainer.device)
        trainer.network.load_state_dict(best["model"])
    score = trainer.test(stop)
    samples = progress.step * config.batch_size
    board.scalars({"test/loss": score.loss, "test/acc": score.accuracy}, samples)
    progress.seconds = clock.total()
    tested = progress.rows[epoch - 1]
    return {
        "tested_epoch": epoch,
        "val_loss": tested["val_loss"],
        "val_acc": tested["val_acc"],
        "test_loss": score.loss,
        "test_acc": score.accuracy,
        "parameters": count_parameters(trainer.network),
        "lr": trainer.lr,
    }


def _introduce(trainer: Trainer, dataset: Dataset) -> None:
    """Print the network and what it is trained on."""
    config = trainer.config
    images = (len(trainer.train_indices), len(trainer.val_indices), len(dataset.test.labels))
    counts = [f"{count:,}" for count in images]
    console.detail(f"{trainer.network}\n{count_parameters(trainer.network):,} parameters")
    console.detail(
        f"{config.data.name.value}: {counts[0]} training, {counts[1]} validation, {counts[2]} test "
        f"images; {trainer.total_steps:,} steps of {config.batch_size} images; "
        f"{process.device_name(trainer.device)}, {config.precision.value}"
    )
