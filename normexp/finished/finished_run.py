"""A run that has been trained, for use: its network with the weights that met the test set."""

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from normexp.config.own_code import digest, installed, own_file
from normexp.config.schema import (
    CIFAR,
    Checkpoint,
    Config,
    DataConfig,
    ModelConfig,
    NormConfig,
)
from normexp.data import cifar, sources
from normexp.data.batches import Pictures
from normexp.data.cifar_versions import version_of
from normexp.data.images import Channels, Dataset, ImageSet
from normexp.data.levels import SIXTEEN_BITS, Levels
from normexp.data.split import train_and_val
from normexp.models.build import build_model
from normexp.models.source import is_own
from normexp.norms import rules
from normexp.norms.catalogue import BUILT_IN
from normexp.norms.population import evaluating
from normexp.runs import checkpoint, composing
from normexp.system.errors import UserError
from normexp.system.foreign_files import read_json
from normexp.system.printable import note
from normexp.system.writing import refuse_other_than_folder
from normexp.trainer import process
from normexp.trainer.evaluation import as_trained
from normexp.trainer.fit import take_weights

BESIDE_TEXTS = ("norm_source", "data_fingerprint", "model_source")


@dataclass
class FinishedRun:
    """What best.pt holds, ready for images."""

    path: Path
    run_id: str
    config: Config
    network: nn.Module
    """On its device, in training mode as networks are between uses."""
    classes: tuple[str, ...]
    mean: Channels
    std: Channels
    """Of each colour channel of the training images, on the scale 0..1."""
    epoch: int
    """After which the weights were saved."""
    data_fingerprint: str
    """Of the images that it was trained on; empty for synthetic ones and where none was kept."""
    device: torch.device
    levels: Levels | None
    """Black and white of training images of more than 8 bits a channel; None if none had."""

    @property
    def image_size(self) -> int:
        """Pixels on a side of the images that the network takes."""
        return composing.image_size(self.config)

    def pictures(self, images: ImageSet) -> Pictures:
        """Images ready to be normalized as in training."""
        channels_last = self.config.layout_last
        dataset = Dataset(images, images, self.classes, self.mean, self.std, "")
        return Pictures(images, dataset, self.config.data, self.device, channels_last)

    def training_samples(self, data: DataConfig, fix: str) -> Callable[[], Iterator[Tensor]]:
        """The training images that precise statistics are of, as the run saw them.

        Args:
            data: where the run's own images lie.
            fix: what a person can give if they lie elsewhere.

        Raises:
            UserError: they are not there.
        """
        try:
            dataset = sources.load(data, levels=self.levels or SIXTEEN_BITS)
        except UserError as error:
            reason = str(error).partition(";")[0]
            raise UserError(
                f"{self.path}: its precise statistics are of its training images: {reason}; {fix}"
            ) from error
        # Decoders of another version may round otherwise: hence not the bits.
        measured = (*dataset.mean, *dataset.std)
        same = all(
            math.isclose(one, other, abs_tol=1e-3)
            for one, other in zip(measured, (*self.mean, *self.std), strict=True)
        )
        if dataset.classes != self.classes or not same:
            raise UserError(
                f"{data.root}: not the images that {self.path} was trained on, which its precise "
                f"statistics are of; {fix}"
            )
        indices, _ = train_and_val(dataset, self.config.data)
        pictures = self.pictures(dataset.train)
        places = torch.from_numpy(indices)
        return lambda: as_trained(pictures, places, self.config, self.config.seed)

    @contextlib.contextmanager
    def for_single_images(self) -> Iterator[None]:
        """The network in evaluation, with statistics that do not depend on other images.

        They are precise ones where those gave the run's accuracies, and running averages elsewhere.

        Raises:
            UserError: precise ones need the training images, and those are not there.
        """
        kind = "precise" if self.config.evaluate.bn_stats[0] == "precise" else "running"
        samples: Callable[[], Iterable[Tensor]] = list
        if kind == "precise":
            samples = self.training_samples(self.config.data, "give --data FOLDER of those")
        autocast = process.autocast(self.config.precision, self.device)
        with torch.no_grad(), evaluating(self.network, kind, samples, autocast):
            yield

    def logits(self, pixels: Tensor) -> Tensor:
        """What the network says, fp32 (n,classes), of images, uint8 (n,3,S,S), on the CPU.

        Raises:
            UserError: as :meth:`numbers`.
        """
        images = ImageSet(pixels.numpy(), np.zeros(len(pixels), dtype=np.int64))
        pictures = self.pictures(images)
        with torch.no_grad(), process.autocast(self.config.precision, self.device):
            found: Tensor = self.network(pictures.normalized(pixels.to(self.device)))
        return self.numbers(found.float().cpu())

    def numbers(self, logits: Tensor) -> Tensor:
        """The same logits.

        Raises:
            UserError: they are not finite, as those of weights that diverged.
        """
        if not bool(logits.isfinite().all()):
            raise UserError(
                f"{self.path}: what its network says is not finite, the run diverged; train it "
                "with a lower optimizer.lr"
            )
        return logits


def lying_in(config: Config, folder: Path | None) -> Config:
    """The configuration of a run whose images lie in a folder, or where they did (None)."""
    if folder is None:
        return config
    return replace(config, data=replace(config.data, root=str(folder)))


def load(
    path: Path, change: Callable[[Config], Config] = lambda config: config, norm: str | None = None
) -> FinishedRun:
    """Load a run for use; notes on stderr say if it has not completed, and whose code it uses.

    The run may come from anyone: see :func:`_own_places` and :func:`_allow_code`.

    Args:
        change: gives the configuration that it is used with, such as on another device.
        norm: the name of a norm whose code a person asks for, whoever made the run.

    Raises:
        UserError: there is no such run, its files are damaged, its norm is not on the path, not
            what it was or not the person's, or this machine has not its device.
    """
    best = path / "checkpoints" / "best.pt"
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; give a run directory, outputs/NAME/RUN_ID")
    refuse_other_than_folder(best.parent, "put the folder itself there")
    if not best.is_file():
        raise UserError(
            f"{path}: no finished run, there is no checkpoints/best.pt; give a run directory, "
            "outputs/NAME/RUN_ID, of a run that finished an epoch"
        )
    state = checkpoint.read(best, checkpoint.BEST, torch.device("cpu"))
    _refuse_odd(state, best)
    weights, epoch = state["model"], state["epoch"]
    config = _own_places(_config(state["config"], best))
    if config.evaluate.checkpoint is Checkpoint.last:
        last = path / "checkpoints" / "last.pt"
        found = checkpoint.read(last, checkpoint.LAST, torch.device("cpu"), state["run_id"])
        weights, epoch = found["model"], found["progress"]["epoch"]
    config = change(config)
    composing.check(config)
    beside = state.get("beside_config", {})  # of earlier versions it is not known
    _allow_code(config.norm, beside.get("norm_source", ""), norm, path)
    _allow_network(config.model, beside.get("model_source", ""), path)
    device = process.pick_device(config.device)
    classes = tuple(state["classes"])
    # The weights it began with are of no more use: they need not be where they were.
    model = replace(config.model, pretrained=False, weights=None)
    network = build_model(model, config.norm, composing.image_size(config), len(classes), 0)
    try:
        take_weights(network, weights)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{best}: its weights do not fit the network that its configuration describes; a norm "
            f"of one's own has changed, or normexp has ({str(error).splitlines()[-1].strip()})"
        ) from error
    _tell_unfinished(path, state["run_id"])
    return FinishedRun(
        path, state["run_id"], config, network.to(device), classes, _three(state["mean"]),
        _three(state["std"]), epoch, beside.get("data_fingerprint", ""), device,
        Levels(**state["levels"]) if state.get("levels") else None,
    )  # fmt: skip


def _own_places(config: Config) -> Config:
    """The configuration of a run less the places that it may not choose.

    Its images are read where they were; what is fetched or packed for it comes from and goes to
    where it would for a run of the person's own.
    """
    data = replace(config.data, url=None, cache=None)
    if data.name in CIFAR and cifar.lacking(cifar.place(data), version_of(data)):
        data.root = composing.read([f"data={data.name.value}"]).data.root
    return replace(config, data=data)


def _allow_code(norm: NormConfig, source: str, asked: str | None, path: Path) -> None:
    """Let the code of a run's norm be imported, and say whose it is; nothing was imported before.

    A run may name any module. It is used if the run recorded its file, which is still the same and
    a person's own: in the folder one works in, or elsewhere on the path.

    Args:
        source: the hash of the file that the run recorded; empty where it did not.
        asked: the norm that a person named.

    Raises:
        UserError: it may not.
    """
    if norm.name in (*BUILT_IN, rules.KEEP):
        return
    file = own_file("norm.name", norm.name)
    if source and rules.source_digest(norm) != source:
        raise UserError(
            f"{file}: not what it was when {path} was trained with it; put that back, or train "
            "again"
        )
    if asked != norm.name and (not source or installed(file)):
        why = "is of an installed package or of Python" if source else "may be another than it had"
        raise UserError(
            f"{path}: its norm is code of {file}, which {why}; if you know it, ask for it: "
            f"--norm {norm.name}"
        )
    note(f"{path}: its norm {norm.name} is the code of {file}")


def _allow_network(model: ModelConfig, source: str, path: Path) -> None:
    """As :func:`_allow_code`, of a network of one's own.

    Raises:
        UserError: it may not.
    """
    if not is_own(model):
        return
    file = own_file("model", model.name)
    if not source or installed(file) or digest("model", model.name) != source.partition("-")[0]:
        raise UserError(
            f"{path}: its network is code of {file}, which is not what it was trained with, or of "
            "an installed package; put that file back, or train again"
        )
    note(f"{path}: its network {model.name} is the code of {file}")


def _refuse_odd(state: dict[str, Any], best: Path) -> None:
    """Raise a UserError where a checkpoint holds what no run would write: it is anyone's."""
    identity, classes = state.get("run_id"), state["classes"]
    config, beside = state["config"], state.get("beside_config", {})
    good = (
        isinstance(identity, str) and re.fullmatch(r"\w[\w.-]*", identity)  # it names files
        and isinstance(classes, list) and classes and all(isinstance(one, str) for one in classes)
        and all(isinstance(state[name], list) and len(state[name]) == 3 for name in ("mean", "std"))
        and all(map(_of_pixels, state["mean"], state["std"]))
        and isinstance(state["epoch"], int)
        and Levels.valid(state.get("levels"))
        # Runs write what interpolations came to: a foreign one could ask for the environment.
        and isinstance(config, dict) and "${" not in repr(config)
        and isinstance(beside, dict)
        and all(isinstance(beside.get(key, ""), str) for key in BESIDE_TEXTS)
    )  # fmt: skip
    if not good:
        raise UserError(f"{best} is damaged, or no run of normexp wrote it; use another run")


def _of_pixels(mean: Any, std: Any) -> bool:
    """Whether 8-bit pixels on the scale 0..1 can have such a mean and standard deviation."""
    if not all(type(one) in (int, float) for one in (mean, std)) or not 0 <= mean <= 1:
        return False
    # Pixels that are all the same are at one of the levels.
    constant = std == 0 and abs(255 * mean - round(255 * mean)) < 1e-6
    return bool(constant or 0 < std * std <= mean * (1 - mean) + 1e-9)


def _tell_unfinished(path: Path, run_id: str) -> None:
    """Say on stderr where a run has not completed: its weights are those of an earlier epoch.

    Raises:
        UserError: what is recorded is of another run than the weights.
    """
    try:
        found = read_json(path / "result.json")
        status, reason, of = found["status"], found["reason"], found["run_id"]
    except FileNotFoundError:
        status, reason, of = "not finished", None, run_id
    except (OSError, ValueError, KeyError, TypeError):
        status, reason, of = "of unknown end", "its result.json cannot be read", run_id
    if of != run_id:
        raise UserError(
            f"{path}: result.json is of {of}, checkpoints/best.pt of {run_id}; put the right one "
            "back, or train it again with force=true"
        )
    if status != "completed":
        because = f" ({reason})" if reason else ""
        note(f"{path}: the run is {status}{because}; its weights are what it had so far")


def _config(plain: dict[str, Any], best: Path) -> Config:
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "its configuration"
        raise UserError(
            f"{best} is of another version of normexp, which has no such {key}; use that version"
        ) from error
    assert isinstance(config, Config)
    return config


def _three(values: list[float]) -> Channels:
    red, green, blue = values
    return red, green, blue
