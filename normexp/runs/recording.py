"""Runs from where they are to their ends: what the training loop tells is written down."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from normexp.data.sources import Dataset
from normexp.models.build import NOTES, count_parameters
from normexp.norms.population import refuse_unknown
from normexp.runs import console
from normexp.runs.seed_run import SeedRun
from normexp.trainer import loop, process
from normexp.trainer.evaluation import Score
from normexp.trainer.ranks import Ranks
from normexp.trainer.steps import Trainer


def train_and_record(
    runs: list[SeedRun], dataset: Dataset, device: torch.device, stop: Callable[[], bool],
    ranks: Ranks | None = None,
) -> None:  # fmt: skip
    """Train runs to their ends, from their last checkpoints where there are any.

    How each ended, completed or diverged, is in its ``result``, and in its directory.

    Args:
        runs: they differ in their seed and learning rate alone and are all at the same step;
            several are trained as one network. Their progress is kept up to date, so that the
            caller can tell how far a run came that failed.
        stop: asked before each step; once true, the runs save themselves and Stopped is raised.
        ranks: the processes that train the run together; rank 0 alone writes.

    Raises:
        UserError: the data or the disk do not allow it.
        CannotFuse: several runs, and a network of which several cannot be made one.
        Stopped: ``stop()`` was true.
    """
    config = runs[0].config
    seeds = [run.config.seed for run in runs]
    rates = [run.config.optimizer.lr for run in runs]
    trainer = Trainer(config, seeds, dataset, device, ranks, rates)
    if "precise" in config.evaluate.bn_stats:
        refuse_unknown(trainer.members[0].network)
    resumed = any(run.state is not None for run in runs)
    for run, member in zip(runs, trainer.members, strict=True):
        run.begin(member, trainer, [one.key for one in runs])
        run.say(_introduction(trainer, dataset), detail=True)
    if resumed and len(runs) > 1:
        trainer.join(trainer.members)  # with what the checkpoints held
    recorder = _Recorder(runs, trainer, dataset)
    try:
        for event in loop.train(trainer, *runs[0].reached, stop, recorder.bars.advance):
            recorder.record(event)
    finally:
        recorder.bars.close()
        for run in runs:
            run.close()


class _Recorder:
    """Writes down what happens to runs that are trained together."""

    def __init__(self, runs: list[SeedRun], trainer: Trainer, dataset: Dataset) -> None:
        self.trainer, self.dataset = trainer, dataset
        self.runs = {run.member: run for run in runs}
        self.going = list(runs)
        shown = trainer.ranks.main and trainer.config.log.progress
        self.bars = console.Bars(trainer.total_steps, runs[0].progress.step, shown)
        self.charged = time.perf_counter()
        self.sharing = self.going
        """Whose time it is."""

    def record(self, event: loop.Event) -> None:
        now = time.perf_counter()
        for run in self.sharing:
            run.progress.seconds += (now - self.charged) / len(self.sharing)
        self.charged = now
        self.bars.end_evaluation()
        match event:
            case loop.FirstBatch(images):
                for run, own in zip(self.going, images, strict=True):
                    run.board.images(own)
            case loop.Steps():
                self._steps(event)
            case loop.Diverged(member, reason):
                self._diverged(self.runs[member], reason)
            case loop.CheckpointDue():
                for run in self.going:
                    run.save()
            case loop.Evaluating(what, images):
                self.bars.begin_evaluation(what, images)
            case loop.EpochDone():
                self._epoch(event)
            case loop.Testing(member):
                self.sharing = [self.runs[member]]
                self.runs[member].choose_weights(self.trainer.device)
            case loop.Tested(member, scores):
                self._tested(self.runs[member], scores)

    def _steps(self, event: loop.Steps) -> None:
        part, count = event.part, len(self.going)
        share = event.seconds / count
        for place, run in enumerate(self.going):
            if run.account(part, place, share, event.busy / count):
                run.report(part, place, event.rates[place], share)
        images = part.taken * self.trainer.config.images_per_step * count
        loss = sum(map(sum, part.losses)) / (part.taken * count)
        accuracy = console.percent(sum(part.correct) / images)
        speed = f"{images / event.seconds:,.0f} images/s"
        self.bars.say((f"loss {loss:.3f}", f"acc {accuracy}", speed))

    def _diverged(self, run: SeedRun, reason: str) -> None:
        run.say(f"diverged: {reason}", screen=not run.several)
        run.end("diverged", reason, self.trainer.device, {})
        if run.several:
            console.logger.info(f"{run.called} diverged: {reason}")
        self.going.remove(run)

    def _epoch(self, event: loop.EpochDone) -> None:
        """Record it, keep the best weights, write the checkpoints."""
        rows = []
        for run, rate, score in zip(self.going, event.rates, event.scores, strict=True):
            row = run.finish_epoch(event.steps, rate, score, self.dataset)
            if row is not None:
                rows.append(row)
                run.say(_epoch_lines(self.trainer, [row])[0], screen=False)
        if rows:
            lines = [_whose(self.going) + line for line in _epoch_lines(self.trainer, rows)]
            console.logger.info(console.fitting(lines))

    def _tested(self, run: SeedRun, scores: dict[str, Score]) -> None:
        epoch, score = run.tested_epoch, next(iter(scores.values()))
        if not math.isfinite(score.loss):
            # Without validation images it shows here first.
            self._diverged(run, f"the test loss of epoch {epoch} is {score.loss}")
            return
        if len(scores) > 1:
            each = [f"{kind} {console.percent(found.accuracy)}" for kind, found in scores.items()]
            # Of several seeds the closing table tells the mean.
            line = f"test accuracy by statistics: {', '.join(each)}"
            run.say(line, detail=True, screen=not run.several)
        scalars = {"test/loss": score.loss, "test/acc": score.accuracy}
        run.board.scalars(scalars, run.progress.step * run.config.images_per_step)
        tested = run.progress.rows[epoch - 1]
        measured = {
            "tested_epoch": epoch,
            "val_loss": tested["val_loss"],
            "val_acc": tested["val_acc"],
            "test_loss": score.loss,
            "test_acc": score.accuracy,
            "test_acc_by_bn_stats": {kind: found.accuracy for kind, found in scores.items()},
            "parameters": count_parameters(run.member.network),
            "lr": run.member.rate,
        }
        run.end("completed", None, self.trainer.device, measured)


def _whose(going: list[SeedRun]) -> str:
    if len(going) > 1:
        alike = len({run.config.optimizer.lr for run in going}) == 1
        return f"mean of {len(going)} {'seeds' if alike else 'runs'}, "
    return f"{going[0].called}, " if going[0].several else ""


def _epoch_lines(trainer: Trainer, rows: list[dict[str, Any]]) -> list[str]:
    """An epoch of one run, or the means over several seeds: in full, and in less and less room."""

    def mean(name: str) -> float:
        return sum(float(row[name]) for row in rows) / len(rows)

    def scores(part: str, kind: str) -> tuple[str, str]:
        accuracy = f"acc {console.percent(mean(f'{part}_acc'))}"
        return f"  {kind} loss {mean(f'{part}_loss'):.4f} {accuracy}", f"  {kind} {accuracy}"

    parts = [scores("train", "train")]
    if rows[0]["val_acc"] is not None:
        parts.append(scores("val", "val"))
    epoch = f"epoch {rows[0]['epoch']}/{trainer.total_epochs}"
    whole, short = (epoch + "".join(each) for each in zip(*parts, strict=True))
    speed = f"  {mean('images_per_second'):,.0f} images/s"
    return [whole + speed, whole, short, epoch + parts[-1][1]]


def _introduction(trainer: Trainer, dataset: Dataset) -> str:
    """The network and what it is trained on."""
    config, network = trainer.config, trainer.members[0].network
    images = (len(trainer.train_indices), len(trainer.val_indices), len(dataset.test.labels))
    counts = [f"{count:,}" for count in images]
    notes = "".join(f"{note}\n" for note in NOTES.get(network, []) if note)
    return (
        f"{network}\n{notes}{count_parameters(network):,} parameters\n"
        f"{config.data.name.value}: {counts[0]} training, {counts[1]} validation, {counts[2]} test "
        f"images; {trainer.total_steps:,} steps of {config.images_per_step} images; "
        f"{process.device_name(trainer.device)}, {config.precision.value}"
    )
