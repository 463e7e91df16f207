"""The schema of conf/: typed dataclasses, what their values may be, and the checks of single keys.

Hydra merges the YAML files and the command line over these classes, so a misspelt key or a wrong
type is refused while composing. What only shows when keys are looked at together is refused by
:func:`check`. Nothing here imports torch: configuration errors answer at once.
"""

import difflib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from normexp.errors import UserError


class Architecture(str, Enum):
    cnn = "cnn"
    mlp = "mlp"


class DataName(str, Enum):
    cifar10 = "cifar10"
    image_folder = "image_folder"
    synthetic = "synthetic"


class OptimizerName(str, Enum):
    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


class LrRule(str, Enum):
    none = "none"
    linear = "linear"
    sqrt = "sqrt"


class SchedulerName(str, Enum):
    constant = "constant"
    step = "step"
    cosine = "cosine"
    one_cycle = "one_cycle"


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(str, Enum):
    fp32 = "fp32"
    bf16 = "bf16"


class Checkpoint(str, Enum):
    best = "best"
    last = "last"


class OnError(str, Enum):
    go_on = "go_on"
    stop = "stop"


@dataclass
class ModelConfig:
    name: str = MISSING
    """What the network is called in run names and tables."""
    architecture: Architecture = MISSING
    """`cnn`: 3x3 convolutions, each with norm and ReLU, then linear layers without norms;
    `mlp`: linear layers, each with norm and ReLU, then a linear classifier."""
    channels: list[int] = field(default_factory=list)
    """Output channels of each 3x3 convolution (cnn)."""
    pool_after: list[int] = field(default_factory=list)
    """After which convolutions, counted from 1, a 2x2 max pool stands (cnn)."""
    hidden: list[int] = field(default_factory=list)
    """Widths of the hidden linear layers."""
    bias: bool = True
    """Whether layers before a norm have a bias; the same for every norm."""


@dataclass
class NormConfig:
    name: str = MISSING
    """A norm of the catalogue, or `module:function` for one of your own."""
    num_groups: Optional[int] = None
    """Groups of channels that share statistics (gn); or give channels_per_group."""
    channels_per_group: Optional[int] = None
    """Channels in one group (gn); or give num_groups."""
    eps: float = 1e-5
    """Added to the variance; one value for all norms unless asked."""
    affine: bool = True
    """One scale and one shift a channel, learned."""
    momentum: float = 0.1
    """Weight of the new batch in BN's running averages (torch's convention)."""


@dataclass
class DataConfig:
    name: DataName = MISSING
    root: str = "data"
    """Where the images lie (cifar10, image_folder)."""
    url: Optional[str] = None
    """Another address for cifar-10-python.tar.gz (cifar10)."""
    download: bool = True
    """Fetch what is missing (cifar10)."""
    verify: bool = True
    """Demand the official checksums; false accepts a re-encoded copy (cifar10)."""
    cache: Optional[str] = None
    """Where packed images are kept (image_folder); by default a folder of the user's cache."""
    train_folder: str = "train"
    test_folder: str = "test"
    image_size: int = 32
    """Images become squares of this many pixels (image_folder, synthetic)."""
    seed: int = 0
    """What synthetic images are made from (synthetic)."""
    train_images: int = 10000
    """How many training images to make (synthetic)."""
    test_images: int = 2000
    """How many test images to make (synthetic)."""
    val_fraction: float = 0.1
    """Share of the training images kept for validation; 0 for none."""
    split_seed: int = 0
    """What the split and the subset are drawn from; the same for all runs of a comparison."""
    train_size: Optional[int] = None
    """Train on a fixed, class-balanced subset of this many images."""
    flip: bool = True
    """Mirror training images at random."""
    crop_padding: int = 4
    """Crop training images at random after zero-padding by this many pixels; 0 for none."""
    normalize: bool = True
    """Subtract the mean and divide by the std of each colour channel; false leaves 0..1."""


@dataclass
class OptimizerConfig:
    name: OptimizerName = MISSING
    lr: float = MISSING
    """Learning rate at the reference batch."""
    weight_decay: float = 0.0
    """Decay of weights; norms' parameters and biases are left alone."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Decay rates of the moments (adam, adamw)."""
    eps: float = 1e-8
    """Added to the denominator (adam, adamw)."""
    momentum: float = 0.9
    """Momentum (sgd)."""
    nesterov: bool = False
    """Nesterov momentum (sgd)."""
    lr_rule: LrRule = LrRule.none
    """How the rate follows the batch size B: none, linear (B/reference), sqrt."""
    reference_batch: int = 32
    """The batch size at which the rate is `lr` (linear, sqrt)."""


@dataclass
class SchedulerConfig:
    name: SchedulerName = MISSING
    warmup: float = 0.0
    """Fraction of training over which the rate rises."""
    warmup_start: float = 0.0
    """Factor of the rate at the start of the rise."""
    milestones: list[float] = field(default_factory=list)
    """Fractions of training at which the rate is multiplied by gamma (step)."""
    gamma: float = 0.1
    final: float = 0.0
    """Factor of the rate at the end (cosine, one_cycle)."""


@dataclass
class EvaluateConfig:
    batch_size: int = 128
    """Images at a time in validation and test; does not change results."""
    checkpoint: Checkpoint = Checkpoint.best
    """Which weights meet the test set: best on validation, or last."""


@dataclass
class LogConfig:
    every: int = 100
    """Steps in a reporting interval: loss and accuracy are read from the device once in each."""
    progress: bool = True
    """A progress bar, on terminals only."""
    tensorboard: bool = True
    histograms: bool = False
    """Histograms of weights and gradients each epoch."""
    images: int = 0
    """How many images of the first batch to log as the network sees them."""


@dataclass
class Config:
    model: ModelConfig = field(default_factory=ModelConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    log: LogConfig = field(default_factory=LogConfig)
    name: str = "default"
    """Runs are kept in <output>/<name>/<run_id>."""
    output: str = "outputs"
    batch_size: int = 64
    epochs: Optional[int] = 10
    max_steps: Optional[int] = None
    """Train this many steps instead of a number of epochs."""
    seed: int = 0
    """Sets the initial weights, the order of the images and their augmentation, each on its own."""
    label_smoothing: float = 0.0
    grad_clip: Optional[float] = None
    """Largest norm of the gradient."""
    precision: Precision = Precision.fp32
    device: Device = Device.auto
    threads: Optional[int] = None
    """CPU threads; by default torch's choice."""
    channels_last: bool = True
    """Memory layout of images in convolutions; a matter of speed."""
    deterministic: bool = False
    """Refuse operations that are not repeatable bit for bit."""
    checkpoint_minutes: float = 1.0
    """A checkpoint within an epoch after this many minutes: what a crash can cost at most."""
    resume: bool = True
    """Go on from the last checkpoint of the same run."""
    force: bool = False
    """Train again even if the run is complete."""
    on_error: OnError = OnError.go_on
    """What a sweep does when a run fails: go on with the others, or stop."""


# What cannot change the result of a run, only how, where or how fast it is computed.
OUTSIDE_IDENTITY = frozenset(
    {
        *("name", "output", "device", "threads", "channels_last", "deterministic"),
        *("checkpoint_minutes", "resume", "force", "on_error", "log", "evaluate.batch_size"),
        *("data.root", "data.url", "data.download", "data.verify", "data.cache"),
    }
)

# Keys that only some choices read: {key: (key of the choice, choices that read it)}.
READ_BY: dict[str, tuple[str, frozenset[str]]] = {
    "model.channels": ("model.architecture", frozenset({"cnn"})),
    "model.pool_after": ("model.architecture", frozenset({"cnn"})),
    "data.url": ("data.name", frozenset({"cifar10"})),
    "data.cache": ("data.name", frozenset({"image_folder"})),
    "data.train_folder": ("data.name", frozenset({"image_folder"})),
    "data.test_folder": ("data.name", frozenset({"image_folder"})),
    "data.image_size": ("data.name", frozenset({"image_folder", "synthetic"})),
    "data.seed": ("data.name", frozenset({"synthetic"})),
    "data.train_images": ("data.name", frozenset({"synthetic"})),
    "data.test_images": ("data.name", frozenset({"synthetic"})),
    "optimizer.betas": ("optimizer.name", frozenset({"adam", "adamw"})),
    "optimizer.eps": ("optimizer.name", frozenset({"adam", "adamw"})),
    "optimizer.momentum": ("optimizer.name", frozenset({"sgd"})),
    "optimizer.nesterov": ("optimizer.name", frozenset({"sgd"})),
    "optimizer.reference_batch": ("optimizer.lr_rule", frozenset({"linear", "sqrt"})),
    "scheduler.milestones": ("scheduler.name", frozenset({"step"})),
    "scheduler.gamma": ("scheduler.name", frozenset({"step"})),
    "scheduler.final": ("scheduler.name", frozenset({"cosine", "one_cycle"})),
}


def register() -> None:
    """Put the schema where the defaults list of conf/config.yaml finds it."""
    ConfigStore.instance().store(name="schema", node=Config)


def conf_dir() -> Path:
    """The folder of YAML files: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def from_hydra(composed: DictConfig) -> Config:
    """Turn Hydra's composed configuration into a :class:`Config`.

    Raises:
        UserError: a key has no value, or is none of the schema (Hydra lets `+key=value` pass).
    """
    for key in _keys(composed):
        refuse_unknown(key)
    for key in sorted(OmegaConf.missing_keys(composed)):
        raise UserError(f"{key} has no value; give one: {key}=...")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _keys(composed: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, composed):
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(composed, key) and isinstance(composed[key], DictConfig):
            yield from _keys(composed[key], f"{prefix}{key}.")


def refuse_unknown(key: str) -> None:
    """Raise a UserError if a dotted key leaves the schema, with the keys known at that level."""
    level: Any = Config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        part = part.partition("[")[0]
        known = {item.name: item.type for item in fields(level)}
        if part not in known:
            prefix = "".join(f"{parent}." for parent in parts[:depth])
            keys = [*known] if depth else [*known, "experiment"]
            raise UserError(
                f"{prefix}{part}: no such key;{nearest(part, keys, prefix)} "
                f"known are {', '.join(keys)}"
            )
        if not is_dataclass(known[part]):
            path = ".".join(parts[: depth + 1])
            if depth + 1 < len(parts):
                raise UserError(f"{key}: nothing lies below {path}; write {path}=...")
            return
        level = known[part]


def nearest(given: str, known: Iterable[str], prefix: str = "") -> str:
    """A guess at what a person meant, or nothing."""
    near = difflib.get_close_matches(given, list(known), 1, cutoff=0.5)
    return f" did you mean {prefix}{near[0]}?" if near else ""


def to_dict(config: Any) -> Any:
    """Plain dicts, lists and strings: what is written to YAML, JSON and checkpoints."""
    if is_dataclass(config):
        return {item.name: to_dict(getattr(config, item.name)) for item in fields(config)}
    if isinstance(config, list):
        return [to_dict(item) for item in config]
    return config.value if isinstance(config, Enum) else config


def get(config: Config, key: str) -> Any:
    """The value of a dotted key: ``get(config, "norm.eps")``."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def set_aside_unread(config: Config) -> list[str]:
    """Reset what the choices made do not read, so that it cannot tell equal runs apart.

    Returns:
        One sentence for each setting that was given and is ignored.
    """
    notes = []
    defaults = Config()
    for key, (choice, readers) in READ_BY.items():
        chosen = str(to_dict(get(config, choice)))
        given, default = get(config, key), get(defaults, key)
        if chosen not in readers and given != default:
            owner, leaf = key.split(".")
            setattr(getattr(config, owner), leaf, default)
            notes.append(f"{key}={given} is ignored: {choice}={chosen} does not read it")
    if config.scheduler.warmup == 0 and config.scheduler.warmup_start != 0:
        notes.append(
            f"scheduler.warmup_start={config.scheduler.warmup_start} is ignored: scheduler.warmup=0"
        )
        config.scheduler.warmup_start = 0.0
    if config.max_steps is not None:
        config.epochs = None
    config.model.pool_after = sorted(config.model.pool_after)
    return notes


def _require(good: bool, key: str, value: Any, rule: str) -> None:
    if not good:
        raise UserError(f"{key}={value}: {rule}")


def check(config: Config) -> None:
    """Refuse values that no run could use, each with the key, the value and what would work.

    Raises:
        UserError: on the first such value.
    """

    def positive(*keys: str) -> None:
        for key in keys:
            value = get(config, key)
            if value is not None:
                good = value > 0 and math.isfinite(value)
                _require(good, key, value, "must be greater than 0")

    def fraction(*keys: str) -> None:
        for key in keys:
            value = get(config, key)
            _require(0 <= value < 1, key, value, "must be at least 0 and less than 1")

    positive("batch_size", "epochs", "max_steps", "threads", "grad_clip", "norm.eps")
    positive("data.image_size", "data.train_images", "data.test_images", "data.train_size")
    positive("optimizer.lr", "optimizer.eps", "optimizer.reference_batch", "scheduler.gamma")
    positive("norm.num_groups", "norm.channels_per_group", "evaluate.batch_size", "log.every")
    positive("checkpoint_minutes")
    fraction("data.val_fraction", "label_smoothing", "scheduler.warmup", "optimizer.momentum")
    if config.epochs is None and config.max_steps is None:
        raise UserError("epochs=null: give epochs=N or max_steps=N")
    for key in ("seed", "data.seed", "data.split_seed"):
        value = get(config, key)
        _require(0 <= value < 2**63, key, value, "must be from 0 to 2**63-1")
    for key in ("data.crop_padding", "log.images", "optimizer.weight_decay", "scheduler.final"):
        value = get(config, key)
        _require(0 <= value < math.inf, key, value, "must not be negative")
    _require(0 <= config.scheduler.warmup_start <= 1, "scheduler.warmup_start",
             config.scheduler.warmup_start, "must be from 0 to 1")  # fmt: skip
    momentum = config.norm.momentum
    _require(0 < momentum <= 1, "norm.momentum", momentum, "must be above 0 and at most 1")
    betas = config.optimizer.betas
    _require(len(betas) == 2 and all(0 <= beta < 1 for beta in betas), "optimizer.betas", betas,
             "must be two numbers, each at least 0 and less than 1")  # fmt: skip
    if config.optimizer.nesterov and config.optimizer.momentum == 0:
        raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0")
    stones = config.scheduler.milestones
    _require(all(0 < stone < 1 for stone in stones) and stones == sorted(stones),
             "scheduler.milestones", stones,
             "must be rising fractions of training, such as [0.3,0.6,0.9]")  # fmt: skip
    _check_name(config.name)
    _check_model(config)


def _check_name(name: str) -> None:
    parts = Path(name).parts
    good = parts and not Path(name).is_absolute() and ".." not in parts and "\0" not in name
    _require(
        bool(good), "name", name, "must be a folder below the output folder, such as name=first"
    )


def _check_model(config: Config) -> None:
    model = config.model
    for key in ("channels", "hidden"):
        widths = getattr(model, key)
        _require(all(width > 0 for width in widths), f"model.{key}", widths, "must be above 0")
    if model.architecture is Architecture.mlp:
        return
    _require(len(model.channels) > 0, "model.channels", model.channels,
             "a cnn needs at least one convolution, such as [16,16]")  # fmt: skip
    places, count = model.pool_after, len(model.channels)
    _require(all(1 <= place <= count for place in places) and len(set(places)) == len(places),
             "model.pool_after", places,
             f"must name convolutions from 1 to {count}, each once")  # fmt: skip
    size = config.data.image_size if config.data.name is not DataName.cifar10 else 32
    _require(size >> len(places) > 0, "model.pool_after", places,
             f"{size}x{size} images have room for {size.bit_length() - 1} pools")  # fmt: skip
