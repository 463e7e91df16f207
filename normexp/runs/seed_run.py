"""What belongs to the run of one seed: its progress, its log, its directory, and how it ended."""

import logging
import math
from typing import Any

import torch

from normexp.config.schema import Checkpoint, Config
from normexp.data.sources import Dataset
from normexp.models.streams import Stream
from normexp.runs import checkpoint, console
from normexp.runs.checkpoint import Progress
from normexp.runs.directory import DIAGNOSTICS, RunDirectory, result_record
from normexp.runs.records import FINAL
from normexp.runs.tensorboard import TensorBoard
from normexp.system.errors import UserError
from normexp.trainer import process
from normexp.trainer.diagnostics import PER_CHANNEL, Diagnostics
from normexp.trainer.evaluation import Score
from normexp.trainer.fit import Fit
from normexp.trainer.steps import Interval, Member, Trainer

Key = tuple[int, float]
"""Seed and learning rate."""


class SeedRun:
    """A run, trained alone or together with other seeds; its directory does not tell which."""

    def __init__(self, config: Config, directory: RunDirectory, main: bool = True) -> None:
        """
        Args:
            main: whether this process writes, of those that train the run together.
        """
        self.config = config
        self.directory = directory
        self.main = main
        self.progress = Progress()
        self.state: dict[str, Any] | None = None
        """The checkpoint to go on from, until :meth:`begin`."""
        self.origin = ""
        self.fit: Fit | None = None
        self.earlier: dict[str, Any] | None = None
        """The checkpoint to go back to, between :meth:`was_at` and :meth:`go_back`."""
        self.result: dict[str, Any] | None = None
        """The contents of result.json once the run has ended."""
        self.together: list[Key] = []
        """Runs that are trained as one network, this one included; none before :meth:`begin`."""
        self.member: Member
        self.board: TensorBoard
        self.diagnostics: Diagnostics | None = None
        """None where they are not asked for."""
        self.withdrawn = False
        """Whether it leaves what was there before: there were no images to begin with."""
        self.several = False
        """Whether it is one of several runs that were asked for."""
        self.called = f"seed {config.seed}"
        """In a line among those of others."""
        self.on_screen = True
        """False where another seed speaks for all."""
        self.log: logging.Logger = console.run_log(directory.log) if main else console.SILENT

    def say(self, text: str, detail: bool = False, screen: bool = True) -> None:
        """Into train.log, and on the screen."""
        shown = screen and self.on_screen
        self.log.info("%s", text, extra={"detail": detail, "screen": shown})

    @property
    def anew(self) -> bool:
        """Whether nothing of an earlier run is gone on from."""
        return self.config.force or not self.config.resume

    def find_state(self, device: torch.device) -> None:
        """Read the run's last checkpoint, if there is one, and how far the run has come by it."""
        if not self.anew:
            self.take(checkpoint.read_last(self.directory, device, self.log))

    def fit_state(self, fit: Fit, device: torch.device) -> None:
        """Go on without the checkpoint if the run's network and optimizer cannot take it up."""
        self.fit = fit
        if self.state is not None and not checkpoint.fits(
            self.state, self.directory, device, self.log, fit
        ):
            self.take(checkpoint.read_previous(self.directory, device, self.log, fit))

    def take(self, state: dict[str, Any] | None, origin: str = "") -> None:
        """Go on from a checkpoint, or from the beginning.

        Args:
            origin: whose it is, if not the run's own.
        """
        self.state, self.origin = state, origin
        earlier: dict[str, Any] = {"cpu_seconds": None}  # did not measure it
        self.progress = Progress() if state is None else Progress(**earlier | state["progress"])

    @property
    def reached(self) -> tuple[int, int]:
        """Epochs finished, and steps done; the epoch tells whether the step was validated."""
        return self.progress.epoch, self.progress.step

    @property
    def key(self) -> "Key":
        """What tells it from the runs that may be trained together with it."""
        return self.config.seed, self.config.optimizer.lr

    @property
    def companions(self) -> frozenset["Key"]:
        """Runs that the checkpoint was trained together with, its own included."""
        found = self.state.get("together", ()) if self.state is not None else ()
        # Earlier versions trained seeds of one rate together, and wrote those down alone.
        rate = self.config.optimizer.lr
        return frozenset((one, rate) if isinstance(one, int) else tuple(one) for one in found)

    def was_at(self, place: tuple[int, int], device: torch.device) -> bool:
        """Whether the run :attr:`reached` this place at the checkpoint before its last; before its
        first that is the beginning."""
        if not self.directory.previous.exists():
            return place == (0, 0)
        self.earlier = checkpoint.read_previous(self.directory, device, self.log, self.fit)
        if self.earlier is None:
            return False
        progress = self.earlier["progress"]
        return bool((progress["epoch"], progress["step"]) == place)

    def go_back(self) -> None:
        """Go on from where :meth:`was_at` says, and forget the last checkpoint."""
        step = self.progress.step
        self.take(self.earlier)
        self.directory.last.unlink()
        self.say(f"back from step {step} to {self.progress.step}, where seeds beside it were saved")

    def begin(self, member: Member, trainer: Trainer, together: list["Key"]) -> None:
        """Take up a network, put it to where the run was, and open the run's files.

        Args:
            together: the runs that are trained as one network, this one included.
        """
        self.member, self.together = member, together
        if self.state is not None and self.progress.step == trainer.total_steps:
            # Only the test is left: who is tested at the same time did not train with it.
            self.together = [*self.companions] or together
        before = self.state.get("diagnostics") if self.state is not None else None
        if self.state is not None:
            checkpoint.restore(self.state, member.network, member.optimizer)
            if len(together) > 1:
                member.stream = Stream.begun(member.seed, trainer.device, torch.get_rng_state())
            place = f"{self.progress.step} of {trainer.total_steps}"
            self.say(f"going on from step {place}{self.origin}")
            self.state = None
        seen = self.progress.step * self.config.images_per_step
        wanted = self.main and self.config.log.tensorboard
        if self.main:
            self.directory.write_config(self.config)
            self.directory.write_metrics(self.progress.rows)
        rows = self.progress.rows
        self.board = TensorBoard(self.directory.path, self.config, seen, wanted, rows)
        if self.main and self.config.diagnostics:
            self.diagnostics = Diagnostics(*trainer.probe(), member.rate, before)
            if self.progress.step == 0:
                self._diagnose(0)

    def account(self, part: Interval, place: int, seconds: float, busy: float) -> bool:
        """Add an interval to the progress, up to where the loss is no number.

        Args:
            place: of this seed among those trained together.
            seconds: this seed's share of the time.
            busy: of that, what the thread had a processor for.

        Returns:
            Whether all its losses are finite numbers.
        """
        progress = self.progress
        progress.epoch_seconds += seconds
        progress.train_seconds += seconds
        if progress.cpu_seconds is not None:
            progress.cpu_seconds += busy
        for loss in part.losses[place]:
            progress.step += 1
            if not math.isfinite(loss):
                return False
            # One by one in order, so that the sum does not depend on where intervals ended.
            progress.loss_sum += loss
        progress.correct += part.correct[place]
        if part.grad_norms is not None:
            progress.grad_norms.append(part.grad_norms[place])
        return True

    def report(self, part: Interval, place: int, rate: float, seconds: float) -> None:
        """An interval's scalars."""
        images = part.taken * self.config.images_per_step
        scalars = {
            "train/loss": sum(part.losses[place]) / part.taken,
            "train/acc": part.correct[place] / images,
            "train/grad_norm": None if part.grad_norms is None else part.grad_norms[place],
            "train/lr": rate,
            "time/images_per_second": images / seconds,
            "time/ms_per_step": 1000 * seconds / part.taken,
        }
        self.board.scalars(scalars, self.progress.step * self.config.images_per_step)

    def finish_epoch(
        self, steps: int, rate: float, score: Score | None, dataset: Dataset
    ) -> dict[str, Any] | None:
        """Record an epoch, keep the best weights, write the checkpoint; the row of metrics.csv, or
        None where another process writes."""
        progress, size = self.progress, self.config.images_per_step
        if not self.main:
            progress.next_epoch()
            return None
        norms = progress.grad_norms
        seen = progress.step * size
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "samples_seen": seen,
            "lr": rate,
            "train_loss": progress.loss_sum / steps,
            "train_acc": progress.correct / (steps * size),
            "val_loss": score.loss if score else None,
            "val_acc": score.accuracy if score else None,
            "grad_norm": sum(norms) / len(norms) if norms else None,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(steps * size / progress.epoch_seconds, 1),
        }
        progress.rows.append(row)
        self.directory.write_metrics(progress.rows)
        self.board.scalars({"val/loss": row["val_loss"], "val/acc": row["val_acc"]}, seen)
        self.board.histograms(self.member.network, seen)
        self._diagnose(progress.epoch + 1)
        self.board.flush()
        progress.next_epoch()
        # Without validation images there is nothing to choose by: the last epoch is kept.
        if score is None or progress.best_acc is None or score.accuracy > progress.best_acc:
            progress.best_acc = score.accuracy if score else None
            progress.best_epoch = progress.epoch
            checkpoint.save_best(
                self.directory, self.member.network, self.config, dataset, progress
            )
        self.save()
        return row

    def _diagnose(self, epoch: int) -> None:
        """Measure after so many epochs; 0 is before the first."""
        if self.diagnostics is None:
            return
        step = self.progress.step
        try:
            rows = self.directory.read_diagnostics(epoch - 1)
        except UserError as error:
            self.log.warning("%s; what it held is lost", str(error).removesuffix("; remove it"))
            rows = []
        for layer, quantity, value in self.diagnostics.measure(self.member.network):
            rows.append(dict(zip(DIAGNOSTICS, (epoch, step, layer, quantity, value), strict=True)))
            if quantity != PER_CHANNEL:
                tag = "/".join(filter(None, ("diagnostics", quantity, layer)))
                self.board.scalars({tag: value}, step * self.config.images_per_step)
        self.directory.write_diagnostics(rows)

    def save(self) -> None:
        """Write all that the run needs to go on; the trainer has split the optimizer before."""
        if not self.main:
            return
        member, before = self.member, self.diagnostics.before if self.diagnostics else None
        rng = torch.get_rng_state() if member.stream is None else member.stream.cpu
        checkpoint.save_last(
            self.directory, member.network, member.optimizer, self.progress, rng, self.together,
            before,
        )  # fmt: skip

    @property
    def tested_epoch(self) -> int:
        """Whose weights meet the test set."""
        last = self.config.evaluate.checkpoint is Checkpoint.last
        return self.progress.epoch if last else self.progress.best_epoch

    def choose_weights(self, device: torch.device) -> None:
        """Load the weights that meet the test set."""
        if self.config.evaluate.checkpoint is Checkpoint.best:
            own = self.directory.run_id
            best = checkpoint.read(self.directory.best, checkpoint.BEST, device, own)
            self.member.network.load_state_dict(best["model"])

    def end(
        self, status: str, reason: str | None, device: torch.device, tested: dict[str, Any]
    ) -> None:
        """Write result.json."""
        measured = {**self._measured(), **process.measured(device), **tested}
        result = result_record(
            self.config, self.directory.run_id, status, reason, measured, self.directory.beside
        )
        if status in FINAL:
            self.board.result(result)  # before: what has a result is not trained again
        if self.main:
            self.directory.write_result(result)
        self.result = result
        if self.main and status in FINAL:  # at once: the run is not looked at again
            shown = console.closing(result, self.directory.path)
            self.say(shown, detail=True, screen=not self.several)

    def close(self) -> None:
        """Close the run's files."""
        console.close_log(self.log)
        if hasattr(self, "board"):
            self.board.close()

    def _measured(self) -> dict[str, Any]:
        """What can be said of a run wherever it ended."""
        progress = self.progress
        last = progress.rows[-1] if progress.rows else {}
        steps, seconds = progress.step, progress.train_seconds
        samples = steps * self.config.images_per_step
        return {
            "epochs": progress.epoch,
            "steps": steps,
            "samples_seen": samples,
            "train_loss": last.get("train_loss"),
            "train_acc": last.get("train_acc"),
            "seconds": round(progress.seconds, 3),
            "train_seconds": round(seconds, 3),
            "ms_per_step": round(1000 * seconds / steps, 4) if steps else None,
            "images_per_second": round(samples / seconds, 1) if seconds else None,
            "fused": max(1, len(self.together)),
            "cpu_share": _share(progress.cpu_seconds, seconds),
        }


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else round(part / whole, 3)
