"""TensorBoard: one writer a run, in the run directory itself, under stable tags.

Scalars are placed by images seen, the one axis on which runs of different batch sizes line up.
"""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor, nn
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from normexp.config.schema import Config, to_dict
from normexp.system.errors import cannot_write

LAYOUT = {
    "accuracy": {
        "validation": ["Multiline", ["val/acc"]],
        "training": ["Multiline", ["train/acc"]],
    },
    "loss": {
        "validation": ["Multiline", ["val/loss"]],
        "training": ["Multiline", ["train/loss"]],
    },
}


RESULTS = {"hparam/val_acc": "val_acc", "hparam/test_acc": "test_acc"}
"""The metrics of HPARAMS, each with its field of result.json. Tags of their own: under those of the
epochs TensorBoard would show the last one's, and not that of the weights that met the test set."""

OF_EPOCH = {
    "train/loss": "train_loss", "train/acc": "train_acc", "train/grad_norm": "grad_norm",
    "train/lr": "lr", "val/loss": "val_loss", "val/acc": "val_acc",
}  # fmt: skip
"""Tags, each with the column of metrics.csv that tells the same of an epoch."""


class TensorBoard:
    """The event file of a run; does nothing where it is not wanted."""

    def __init__(
        self, folder: Path, config: Config, samples_seen: int, wanted: bool,
        rows: Sequence[Mapping[str, Any]] = (),
    ) -> None:  # fmt: skip
        """
        Args:
            samples_seen: images of training that lie behind the run.
            rows: of metrics.csv, for what lies behind it where no events tell of that.
        """
        self.config = config.log
        self.folder = folder
        self.writer: SummaryWriter | None = None
        if not wanted:
            return
        # What an interrupted sitting logged beyond its last checkpoint is done again: TensorBoard
        # drops events from there on.
        again = any(folder.glob("events.out.tfevents.*"))
        purge = (samples_seen + 1 if samples_seen else 0) if again else None
        threading.excepthook = _leave_to_the_writer
        with self._told():
            self.writer = SummaryWriter(str(folder), purge_step=purge)
            if not (samples_seen and again):
                self._introduce(config)
        for row in () if again else rows:
            values = {tag: row[column] for tag, column in OF_EPOCH.items()}
            self.scalars(values, row["samples_seen"])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Raise a UserError if the events cannot be written."""
        try:
            yield
        except OSError as error:
            fix = "choose output=..., or log.tensorboard=false"
            raise cannot_write(self.folder / "events.out.tfevents", error, fix) from error

    def _introduce(self, config: Config) -> None:
        """The configuration, and what TensorBoard shows of it."""
        assert self.writer is not None
        settings = to_dict(config)
        text = "\n".join(f"    {line}" for line in json.dumps(settings, indent=2).splitlines())
        self.writer.add_text("config", text)
        self.writer.add_custom_scalars(LAYOUT)
        # The writer's own add_hparams would open a second run in a sub-directory.
        columns, start, _ = hparams(_hyperparameters(settings), dict.fromkeys(RESULTS, 0.0))
        assert self.writer.file_writer is not None
        for summary in (columns, start):
            self.writer.file_writer.add_summary(summary)

    def result(self, result: Mapping[str, Any]) -> None:
        """How the run ended, as HPARAMS shows it: a run that diverged as one that failed."""
        if self.writer is None:
            return
        self.scalars({tag: result[name] for tag, name in RESULTS.items()}, result["samples_seen"])
        *_, end = hparams({}, {})
        if result["status"] != "completed":
            content = HParamsPluginData.FromString(end.value[0].metadata.plugin_data.content)
            content.session_end_info.status = STATUS_FAILURE
            end.value[0].metadata.plugin_data.content = content.SerializeToString()
        with self._told():
            assert self.writer.file_writer is not None
            self.writer.file_writer.add_summary(end)
        self.flush()

    def scalars(self, values: Mapping[str, float | None], samples_seen: int) -> None:
        if self.writer is None:
            return
        with self._told():
            for tag, value in values.items():
                if value is not None:
                    self.writer.add_scalar(tag, value, samples_seen)

    def images(self, images: Tensor) -> None:
        """The first of a batch as the network sees them, (N,3,H,W), stretched to 0..1."""
        if self.writer is None or self.config.images == 0:
            return
        shown = images[: self.config.images].float()
        low, high = shown.amin(), shown.amax()
        with self._told():
            self.writer.add_images("train/images", (shown - low) / (high - low).clamp(min=1e-12))

    def histograms(self, network: nn.Module, samples_seen: int) -> None:
        if self.writer is None or not self.config.histograms:
            return
        with self._told():
            for name, parameter in network.named_parameters():
                for tag, values in (("weights", parameter), ("gradients", parameter.grad)):
                    if values is not None and bool(torch.isfinite(values).all()):
                        self.writer.add_histogram(f"{tag}/{name}", values.detach(), samples_seen)

    def flush(self) -> None:
        if self.writer is not None:
            with self._told():
                self.writer.flush()

    def close(self) -> None:
        # On a full disk an earlier error has told, or result.json will.
        if self.writer is not None:
            with contextlib.suppress(OSError):
                self.writer.close()


def _leave_to_the_writer(problem: threading.ExceptHookArgs) -> None:
    """What ends TensorBoard's writing thread is raised again where the writer is next used; a
    traceback printed by the thread would come on top."""
    of_tensorboard = type(problem.thread).__module__.startswith("tensorboard.")
    if not (of_tensorboard and isinstance(problem.exc_value, OSError)):
        threading.__excepthook__(problem)


def _hyperparameters(settings: dict[str, Any]) -> dict[str, Any]:
    """The columns people compare by; the whole configuration is in the text.

    TensorBoard sorts them by name and shows the first few: what varies most often comes first.
    """
    norm, optimizer = settings["norm"], settings["optimizer"]
    chosen = {
        "batch_size": settings["batch_size"],
        "lr": optimizer["lr"],
        "model": settings["model"]["name"],
        "norm": norm["name"],
        "seed": settings["seed"],
        "settings/num_groups": norm["num_groups"],
        "settings/channels_per_group": norm["channels_per_group"],
        "settings/accumulate_steps": settings["accumulate_steps"],
        "settings/data": settings["data"]["name"],
        "settings/train_size": settings["data"]["train_size"],
        "settings/optimizer": optimizer["name"],
        "settings/scheduler": settings["scheduler"]["name"],
        "settings/epochs": settings["epochs"],
        "settings/max_steps": settings["max_steps"],
        "settings/precision": settings["precision"],
    }
    given = {key: value for key, value in chosen.items() if value is not None}
    # TensorBoard takes no lists, such as of the groups of each layer.
    return {key: str(value) if isinstance(value, list) else value for key, value in given.items()}
